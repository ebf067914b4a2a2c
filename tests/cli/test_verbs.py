"""Verbs on small models, `explain` in a file of its own: answers, JSON documents, exit codes, whole messages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convc.npz import load_npz
from tests.cli.command_line import Result, error_of

Convc = Callable[..., Result]


# ---- check ------------------------------------------------------------------------------------------------------


def test_check_lists_inputs_outputs_and_ops(convc: Convc, models: Path) -> None:
    result = convc("check", models / "tiny.cvc", "--json")
    assert result.code == 0
    assert result.document == {
        "ok": True,
        "model": str(models / "tiny.cvc"),
        "graph": "tiny",
        "inputs": {"x": "f32[1,4,8,8]"},
        "outputs": {"y": "f32[1,8,1,1]"},
        "ops": {"conv": 1, "relu": 1, "reduce_mean": 1},
    }
    text = convc("check", models / "tiny.cvc")
    assert text.out.startswith(f"{models / 'tiny.cvc'} can be compiled: 3 nodes, 3 ops\n")
    assert convc("check", models / "tiny.cvc", "-q").out == ""


def test_check_names_every_unsupported_operator(convc: Convc, models: Path) -> None:
    code, kind, message = error_of(convc("check", models / "unsupported.onnx", "--json"))
    assert (code, kind) == (3, "UnsupportedModelError")
    assert "acme::Foo" in message
    assert "acme::Bar" in message
    text = convc("check", models / "unsupported.onnx")
    assert text.code == 3
    assert text.out == ""
    assert text.err.startswith("error: ")


def test_check_takes_a_shape_for_a_symbolic_dimension(convc: Convc, models: Path) -> None:
    path = models / "dynamic.onnx"
    assert convc("check", path, "--json").document["inputs"] == {"image": "f32[N,3,6,6]"}
    for shape in ("2x3x6x6", "image:2x3x6x6"):
        result = convc("check", path, "--shape", shape, "--json")
        assert result.document["inputs"] == {"image": "f32[2,3,6,6]"}
    code, kind, message = error_of(convc("check", path, "--shape", "imag:2x3x6x6", "--json"))
    assert (code, kind) == (3, "InvalidModelError")
    assert "Did you mean 'image'?" in message


@pytest.mark.parametrize(
    ("arguments", "code", "kind", "message"),
    [
        (["check", "no.onnx"], 2, "UsageError", "MODEL must be a file; got 'no.onnx': no such file."),
        (["check", "no.txt"], 2, "UsageError", "MODEL must end in .onnx or .cvc; got 'no.txt'."),
        (["inspect", "no.txt"], 2, "UsageError", "FILE must end in one of .so, .onnx, .cvc; got 'no.txt'."),
        (["run", "no.so"], 2, "UsageError", "MODULE must be a file; got 'no.so': no such file."),
        (["run", "no.onnx"], 2, "UsageError", "MODULE must end in .so; got 'no.onnx'. Make one with `convc compile`."),
        (["bench", "no.so", "--duration", "5"], 2, "UsageError", "a duration must be a number with a unit (us, ms, s, m, h), as in 500ms; got '5'."),
        (["bench", "no.so", "--vs", "onnxruntime"], 2, "UsageError", "--vs onnxruntime must have --model MODEL.onnx; got 'no.so'."),
        (["verify", "no.so", "no.onnx"], 2, "UsageError", "MODULE must be a file; got 'no.so': no such file."),
        (["bogus"], 2, "UsageError", "No such command 'bogus'."),
        (["check"], 2, "UsageError", "Missing argument 'MODEL'."),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)  # fmt: skip
def test_wrong_usage(
    convc: Convc, arguments: list[str], code: int, kind: str, message: str
) -> None:
    assert error_of(convc(*arguments, "--json")) == (code, kind, message)
    text = convc(*arguments)
    assert (text.code, text.out) == (code, "")
    assert text.err == f"error: {message}\nhelp: `convc --help`, or `convc VERB --help`.\n"


@pytest.mark.parametrize(
    ("file", "kind"), [("broken.onnx", "InvalidModelError"), ("broken.cvc", "TextError")]
)
def test_a_broken_model_exits_with_3(convc: Convc, models: Path, file: str, kind: str) -> None:
    assert error_of(convc("check", models / file, "--json"))[:2] == (3, kind)


# ---- inspect ----------------------------------------------------------------------------------------------------


def test_inspect_a_model_counts_flops_and_parameters(convc: Convc, models: Path) -> None:
    document = convc("inspect", models / "tiny.cvc", "--layers", "--json").document
    assert document["flops"] == 2 * 8 * 8 * 8 * 4 * 9
    assert document["parameters"] == 8 * 4 * 9 + 8
    assert [row["op"] for row in document["layers"]] == ["conv", "relu", "reduce_mean"]
    assert document["layers"][0]["flops"] == document["flops"]
    assert "reduce_mean" in convc("inspect", models / "tiny.cvc").out


def test_inspect_prints_the_text_form(convc: Convc, models: Path, tmp_path: Path) -> None:
    printed = convc("inspect", models / "tiny.cvc", "--text").out
    again = tmp_path / "again.cvc"
    again.write_text(printed)
    assert convc("inspect", again, "--text").out == printed


def test_inspect_a_module_reads_its_manifest(convc: Convc, module: Path) -> None:
    document = convc("inspect", module, "--json").document
    assert document["kind"] == "module"
    assert document["name"] == "tiny"
    (x,) = document["inputs"]
    assert (x["name"], x["shape"], x["dtype"], x["rows"]) == ("x", [1, 4, 8, 8], "float32", 0)
    assert isinstance(document["steps"], int)
    layers = convc("inspect", module, "--layers", "--json").document["steps"]
    assert len(layers) == document["steps"]
    assert sum(step["flops"] for step in layers) == document["flops"] == 2 * 8 * 8 * 8 * 4 * 9
    assert "module   tiny (" in convc("inspect", module).out


def test_inspect_of_no_module_exits_with_5(convc: Convc, tmp_path: Path) -> None:
    fake = tmp_path / "fake.so"
    fake.write_bytes(b"not an ELF file")
    assert error_of(convc("inspect", fake, "--json"))[:2] == (5, "PackageError")


# ---- compile ----------------------------------------------------------------------------------------------------


def test_compile_verifies_and_reports(convc: Convc, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.so"
    document = convc("compile", models / "tiny.cvc", "-o", out, "--threads", "1", "--json").document
    assert document["module"] == str(out)
    assert document["module_bytes"] == out.stat().st_size
    assert document["max_relative_error"] <= 1e-5
    assert document["reference"] == "float64"
    assert document["flops"] == 2 * 8 * 8 * 8 * 4 * 9
    assert [p.name for p in tmp_path.iterdir()] == ["net.so"]


def test_compile_names_its_output_after_the_model(
    convc: Convc, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = convc("compile", models / "tiny.cvc", "--no-verify", "--dump", tmp_path / "dump")
    assert result.code == 0
    assert (tmp_path / "tiny.so").is_file()
    assert "verified    no (--no-verify)" in result.out
    assert list((tmp_path / "dump").glob("*.cvc"))


def test_a_wrong_module_is_not_written(convc: Convc, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.so"
    code, kind, message = error_of(
        convc("compile", models / "tiny.cvc", "-o", out, "--tolerance", "0", "--json")
    )
    assert (code, kind) == (4, "AccuracyError")
    assert message.startswith("output 'y' must be within 0 of float64; got ")
    assert message.endswith(f"'{out}' is not written. With --no-verify it is.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "code", "kind"),
    [
        (["--target", "cuda"], 5, "ToolchainError"),
        (["--mcpu", "z80"], 2, "UnknownNameError"),
        (["--algo", "winogard"], 2, "UnknownNameError"),
        (["-o", "net.dll"], 2, "UsageError"),
        (["-o", "no/such/folder/net.so"], 2, "UsageError"),
        (["--algo-for", "direct"], 2, "UsageError"),
        (["--shape", "1x2"], 2, "UsageError"),
        (["--threads", "0"], 2, "UsageError"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)
def test_compile_refuses(
    convc: Convc, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], code: int, kind: str
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert error_of(convc("compile", models / "tiny.cvc", *flags, "--json"))[:2] == (code, kind)
    assert list(tmp_path.iterdir()) == []


def test_the_old_target_string_is_understood(convc: Convc, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.so"
    flags = ("--target", "llvm -mcpu=x86-64-v3", "--no-verify", "-o", out, "--json")
    assert convc("compile", models / "tiny.cvc", *flags).document["target"]["mcpu"] == "x86-64-v3"


# ---- run --------------------------------------------------------------------------------------------------------


def test_run_feeds_files_and_saves_outputs(convc: Convc, module: Path, tmp_path: Path) -> None:
    x, y = tmp_path / "x.npy", tmp_path / "y.npz"
    np.save(x, np.ones((1, 4, 8, 8), np.float32))
    result = convc(
        "run", module, "-i", f"x={x}", "-o", y, "--print-top", "2", "--json", "--threads", "1"
    )
    (row,) = result.document["outputs"]
    # 36 products of 0.25 and a bias of 0.5 inside, 24 on an edge, 16 in a corner: the mean over 6x6, 4x6 and 4 points.
    expected = 0.5 + 0.25 * (36 * 36 + 24 * 24 + 16 * 4) / 64
    assert row["min"] == row["max"] == expected
    assert row["top"] == [{"index": [0, c, 0, 0], "value": expected} for c in range(2)]
    assert load_npz(y)["y"].tolist() == np.full((1, 8, 1, 1), expected).tolist()
    same = convc("run", module, "-i", "ones", "--json", "--threads", "1").document["outputs"][0]
    assert same["max"] == expected


def test_run_is_repeatable_by_seed(convc: Convc, module: Path) -> None:
    first, second, other = (
        convc("run", module, "--seed", s, "--json", "--threads", "1").document["outputs"][0]["max"]
        for s in (1, 1, 2)
    )
    assert first == second
    assert first != other


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("z=ones", "-i must look like NAME=VALUE with NAME one of x; got 'z=ones'."),
        ("x=twos", "-i x must be a .npy file or one of random, ones, zeros; got 'twos'."),
        ("x=no.npy", "an input must be a file; got 'no.npy': no such file."),
    ],
)
def test_run_refuses_an_input(convc: Convc, module: Path, value: str, message: str) -> None:
    assert error_of(convc("run", module, "-i", value, "--json")) == (2, "UsageError", message)


def test_run_refuses_an_array_that_does_not_fit(convc: Convc, module: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.ones((1, 4, 8, 9), np.float32))
    code, kind, message = error_of(convc("run", module, "-i", f"x={path}", "--json"))
    assert (code, kind) == (2, "InputError")
    assert "(1, 4, 8, 9)" in message
    path.write_bytes(b"text")
    code, kind, message = error_of(convc("run", module, "-i", f"x={path}", "--json"))
    assert (code, kind) == (2, "UsageError")
    assert (
        message
        == f"'{path}' must be a NumPy array file of numbers; got one that begins with b'text'. Write it with numpy.save."
    )
    np.save(path, np.array([{}], dtype=object))
    assert (
        "got one of Python objects"
        in error_of(convc("run", module, "-i", f"x={path}", "--json"))[2]
    )


# ---- bench ------------------------------------------------------------------------------------------------------

QUICK = ("--warmup", "1ms", "--iterations", "5", "--threads", "1", "--no-peak")


def test_bench_reports_latency_and_layers(convc: Convc, module: Path) -> None:
    document = convc("bench", module, *QUICK, "--profile", "--json").document
    latency = document["latency_seconds"]
    assert latency["iterations"] == 5
    assert 0 < latency["min"] <= latency["median"] <= latency["p90"] <= latency["p99"]
    assert document["gflops_per_second"] == pytest.approx(
        document["flops"] / latency["median"] / 1e9
    )
    assert document["peak_gflops_per_second"] is None
    assert sum(row["share"] for row in document["layers"]) == pytest.approx(100)
    assert document["peer"] is None
    text = convc("bench", module, *QUICK, "--profile", "--sort", "time")
    assert text.code == 0
    assert "median" in text.out
    assert "sum" in text.out


def test_bench_compiles_a_model_and_times_its_peer(convc: Convc, models: Path) -> None:
    pytest.importorskip("onnxruntime")
    flags = ("--shape", "2x3x6x6", "--vs", "onnxruntime", *QUICK)
    document = convc("bench", models / "dynamic.onnx", *flags, "--json").document
    peer = document["peer"]
    assert peer["name"] == "onnxruntime"
    assert peer["latency_seconds"]["iterations"] == 5
    ratio = document["latency_seconds"]["median"] / peer["latency_seconds"]["median"]
    assert peer["ratio"] == pytest.approx(ratio)
    assert "onnxruntime" in convc("bench", models / "dynamic.onnx", *flags).out


# ---- verify -----------------------------------------------------------------------------------------------------


def test_verify_passes(convc: Convc, module: Path, models: Path) -> None:
    document = convc("verify", module, models / "tiny.cvc", "-n", "2", "--json").document
    assert (document["ok"], document["runs"], document["reference"]) == (True, 2, "float64")
    (row,) = document["outputs"]
    assert row["elements"] == 16
    assert row["max_relative_error"] < 1e-5
    assert convc("verify", module, models / "tiny.cvc").out.endswith("ok: within 0.0001\n")


def test_verify_fails_with_4_and_keeps_the_inputs(
    convc: Convc, module: Path, models: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.cvc"
    wrong.write_text((models / "tiny.cvc").read_text().replace("splat(0.25)", "splat(0.26)"))
    folder = tmp_path / "failing"
    result = convc("verify", module, wrong, "--save-failing", folder, "--json")
    assert result.code == 4
    document = result.document
    assert document["ok"] is False
    assert document["error"]["kind"] == "AccuracyError"
    assert document["failing_inputs"] == str(folder / "inputs.npz")
    assert load_npz(folder / "inputs.npz")["x"].shape == (1, 4, 8, 8)
    again = convc("verify", module, wrong, "--inputs", folder / "inputs.npz")
    assert again.code == 4
    assert again.err.startswith("error: output 'y' must be within 0.0001 of float64; got ")
    looked = convc("verify", module, wrong, "-n", "1", "--per-layer", "--json").document
    assert looked["first_wrong_layer"].startswith("No layer goes wrong when it is compiled now")
    fixed = convc("verify", module, models / "tiny.cvc", "--inputs", folder / "inputs.npz", "-q")
    assert (fixed.code, fixed.out) == (0, "")


def test_verify_needs_an_onnx_model_for_onnxruntime(
    convc: Convc, module: Path, models: Path
) -> None:
    flags = ("--reference", "onnxruntime", "--json")
    assert error_of(convc("verify", module, models / "tiny.cvc", *flags)) == (
        2,
        "InputError",
        f"reference onnxruntime must have an .onnx model; got {models / 'tiny.cvc'}.",
    )
    assert error_of(
        convc("verify", module, models / "tiny.cvc", "--reference", "torch", "--json")
    ) == (
        2,
        "UnknownNameError",
        "unknown reference 'torch'; known: auto, float64, onnxruntime.",
    )


def test_verify_takes_symbolic_shapes_from_the_module(
    convc: Convc, models: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    module = tmp_path / "dynamic.so"
    model = models / "dynamic.onnx"
    assert convc("compile", model, "--shape", "2x3x6x6", "-o", module).code == 0
    document = convc("verify", module, model, "--reference", "onnxruntime", "--json").document
    assert (document["ok"], document["reference"]) == (True, "onnxruntime")
    assert document["outputs"][0]["max_absolute_error"] == 0


# ---- lists, doctor ----------------------------------------------------------------------------------------------


def test_ops_lists_onnx_operators_and_ir_ops(convc: Convc) -> None:
    document = convc("ops", "--json").document
    operators = {o["op_type"]: o for o in document["operators"]}
    assert 11 in operators["Conv"]["since"]
    assert "conv" in {o["name"] for o in document["ir_ops"]}
    assert "ai.onnx::Conv " in convc("ops").out


def test_targets_lists_the_host_and_the_levels(convc: Convc) -> None:
    document = convc("targets", "--json").document
    rows = {t["mcpu"]: t for t in document["targets"]}
    assert rows["host"]["lanes"] >= 4
    assert "znver4" in document["cpus"] or "x86-64-v3" not in rows
    assert "--target llvm" in convc("targets").out


def test_doctor_finds_this_machine_fit(convc: Convc) -> None:
    result = convc("doctor", "--json")
    assert result.code == 0
    checks = {c["name"]: c for c in result.document["checks"]}
    assert checks["apache-tvm"]["status"] == "ok"
    assert convc("doctor").out.endswith("convc can work here.\n")
