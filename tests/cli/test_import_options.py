"""Options that change what an ONNX model means: constants for inputs, floats for integers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from convc.errors import InputError
from convc.npz import load_npz, save_npz
from tests.cli.command_line import Result

Convc = Callable[..., Result]


QUANTISED = """<ir_version: 8, opset_import: ["": 13]> g (uint8[1,1,3,3] x) => (uint8[1,1,3,3] y)
<float xs = {0.5}, uint8 xz = {0}, int8[1,1,1,1] w = {3}, float ws = {0.25}, int8 wz = {0}, float ys = {0.5}, uint8 yz = {0}>
{ y = QLinearConv (x, xs, xz, w, ws, wz, ys, yz) }"""
RESHAPED = """<ir_version: 8, opset_import: ["": 13]> g (float[2,3] x, int64[1] shape) => (float[6] y)
{ y = Reshape (x, shape) }"""


@pytest.fixture
def quantised(tmp_path: Path) -> Path:
    path = tmp_path / "q.onnx"
    onnx.save(onnx.parser.parse_model(QUANTISED), path)
    return path


@pytest.fixture
def net(models: Path) -> Path:
    return models / "tiny.cvc"


def test_dequantize(convc: Convc, quantised: Path, tmp_path: Path) -> None:
    assert convc("check", quantised, "--json").document["ops"] == {"conv_quantized": 1}
    ops = convc("check", quantised, "--dequantize", "--json").document["ops"]
    assert ops == {"dequantize": 2, "conv": 1, "quantize": 1}
    for flags in ((), ("--dequantize",)):
        out = tmp_path / f"q{len(flags)}.so"
        assert convc("compile", quantised, "-o", out, *flags).code == 0
        assert convc("verify", out, quantised, *flags).code == 0


def test_values(convc: Convc, tmp_path: Path) -> None:
    path, values, out = tmp_path / "r.onnx", tmp_path / "v.npz", tmp_path / "r.so"
    onnx.save(onnx.parser.parse_model(RESHAPED), path)
    refused = convc("compile", path, "-o", out)
    assert refused.code == 3
    assert "depends on runtime values of 'shape'" in refused.err
    save_npz(values, {"shape": np.array([6])})
    assert convc("compile", path, "-o", out, "--values", values).code == 0
    assert convc("verify", out, path, "--values", values).code == 0
    assert list(convc("check", path, "--values", values, "--json").document["inputs"]) == ["x"]
    # What compile's hint says must be possible to follow.
    for verb in ("tune", "explain", "inspect"):
        assert (
            convc(
                verb, path, "--values", values, *(["--list-tasks"] if verb == "tune" else [])
            ).code
            == 0
        )


def test_a_range_of_batches(convc: Convc, models: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "any.so", models / "dynamic.onnx"
    made = convc("compile", path, "-o", out, "--shape", "image:N=2..16x3x6x6", "--json")
    assert made.document["batch_sizes"] == [16, 8, 2]
    assert convc("verify", out, path, "--json").document["ok"]
    for shape, text in (
        ("N=9..3x3x6x6", "from the least to the greatest"),
        ("Nx0x6x6", "must look like"),
    ):
        refused = convc("compile", path, "-o", out, "--shape", shape)
        assert refused.code == 2
        assert text in refused.err


READERS = ("check", "inspect", "compile", "tune", "bench", "verify", "explain")


@pytest.mark.parametrize("verb", READERS)
def test_every_verb_that_reads_a_model_has_the_same_flags(convc: Convc, verb: str) -> None:
    help_text = convc(verb, "--help").out
    for flag in ("--shape", "--values", "--dequantize", "--dtype"):
        assert flag in help_text


def test_dtype(convc: Convc, net: Path, tmp_path: Path) -> None:
    out = tmp_path / "half.so"
    made = convc("compile", net, "-o", out, "--dtype", "bf16", "--json")
    assert made.code == 0
    assert made.document["max_relative_error"] < 2**-7
    # The module says itself what it was compiled for.
    checked = convc("verify", out, net, "--json")
    assert checked.code == 0
    assert 1e-4 < checked.document["tolerance"] < 0.1
    refused = convc("verify", out, net, "--dtype", "fp16")
    assert refused.code == 2
    assert "bf16; got fp16" in refused.err
    assert convc("verify", out, net, "--tolerance", "1e-9").code == 4
    layer = convc("explain", net, "--dtype", "fp16", "--json").document["layers"][0]
    assert layer["key"].startswith("conv2d-f16-")
    (task,) = convc("tune", net, "--dtype", "bf16", "--list-tasks", "--json").document["tasks"]
    assert task["workload"].startswith("conv2d-bf16-")
    assert convc("bench", out, "--dtype", "bf16").code == 2


def test_a_half_precision_layer_is_tuned(convc: Convc, net: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    tuned = convc("tune", net, "--dtype", "bf16", "--trials", "2", "--log", log, "--json")
    assert tuned.code == 0
    assert tuned.document["trials"].get("ok", 0) >= 1
    out = tmp_path / "half.so"
    made = convc("compile", net, "-o", out, "--dtype", "bf16", "--log", log, "--require-tuned")
    assert made.code == 0


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (b"junk of no kind", r"got one that begins with b'junk o'\."),
        (np.ones(3), r"got one that begins with b'\\x93NUMPY'\."),
        ({"x": np.array([None])}, r"got one of Python objects\."),
    ],
)
def test_files_of_values_that_are_no_arrays_of_numbers(tmp_path, array, found):
    path = tmp_path / "values.npz"
    if isinstance(array, bytes):
        path.write_bytes(array)
    elif isinstance(array, dict):
        np.savez(path, **array)
    else:
        with path.open("wb") as file:
            np.save(file, array)
    with pytest.raises(InputError, match=rf"must be a NumPy \.npz file of numbers; {found}"):
        load_npz(path)
