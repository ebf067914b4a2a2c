"""Options that change what an ONNX model means: constants for inputs, floats for integers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from convc.npz import save_npz
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
