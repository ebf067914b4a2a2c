"""The public API: compile, export, load, run, call, pin, explain."""

from __future__ import annotations

import gc
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest

import convc
from convc.compiler import compile
from convc.errors import (
    InputError,
    InvalidModelError,
    ToolchainError,
    UnknownNameError,
    UnsupportedConvError,
)
from convc.explaining import explain
from convc.ir import Graph
from convc.ir.passes import PIPELINE
from convc.ir.reference import interpret
from convc.ir.text import parse, print_graph, save
from convc.schedules.table import ALGORITHMS
from convc.version import VERSION

NET = """
graph @net {
  %x = input : f32[1,3,6,6]  %w = constant splat(0.5) : f32[8,3,3,3]  %v = constant splat(0.25) : f32[4,8,1,1]
  %first = conv(%x, %w) {pads = [1, 1, 1, 1]}  %r = relu(%first)
  %second = conv(%r, %v)  %m = reduce_mean(%second) {axes = [2, 3]}
  return %m as "mean", %r as "features"
}
"""
ONNX = '<ir_version: 8, opset_import: ["": 18]> small (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }'


@pytest.fixture(scope="module")
def net() -> Graph:
    return parse(NET)


@pytest.fixture(scope="module")
def model(net):
    return compile(net, threads=1)


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, 3, 6, 6)).astype(np.float32)


def assert_right(graph: Graph, x: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
    expected = interpret(graph, {"x": x})
    assert list(outputs) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-5, atol=1e-5)


# ---- running ----------------------------------------------------------------------------------------------------


def test_run_by_name_and_call_in_order(net, model):
    x = image()
    outputs = model.run({"x": x})
    assert_right(net, x, outputs)
    mean, features = model(x)
    np.testing.assert_array_equal(mean, outputs["mean"])
    np.testing.assert_array_equal(features, outputs["features"])


def test_one_output_is_an_array():
    graph = parse("graph @g { %x = input : f32[3]  %y = neg(%x)  return %y }")
    y = compile(graph, threads=1)(np.array([1, -2, 3], np.float32))
    assert y.tolist() == [-1, 2, -3]


def test_load_makes_modules_of_their_own(net, model):
    first, second = model.load(threads=1), model.load(threads=1, nan="error")
    assert_right(net, image(1), first.run({"x": image(1)}))
    assert_right(net, image(2), second.run({"x": image(2)}))
    with pytest.raises(InputError, match="must have no NaN"):
        second(np.full((1, 3, 6, 6), np.nan, np.float32))


def test_export_is_what_convc_load_loads(net, model, tmp_path: Path):
    path = model.export(tmp_path / "net.so")
    assert path == tmp_path / "net.so"
    module = convc.load(path, threads=1)
    assert_right(net, image(3), module.run({"x": image(3)}))
    manifest = module.manifest
    assert (manifest.name, manifest.convc, manifest.entry) == ("net", VERSION, "main")
    assert [(t.name, t.shape, t.dtype) for t in manifest.inputs] == [("x", (1, 3, 6, 6), "float32")]
    assert [t.name for t in manifest.outputs] == ["mean", "features"]
    assert manifest.arena_bytes == model.manifest.arena_bytes > 0


def test_the_temporary_folder_goes_with_the_model_without_a_warning(net):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled = compile(net, threads=1)
        module = compiled.load(threads=1)
        folder = compiled._loaded["file"].parent
        assert folder.is_dir()
        del compiled
        gc.collect()
        assert not folder.exists()
    # The module has mapped what it needs.
    assert_right(net, image(), module.run({"x": image()}))


def test_source_graph_and_plan_are_kept(net, model):
    assert model.source is net
    assert {n.name for n in model.graph.nodes} < {n.name for n in net.nodes}
    assert set(model.plan.choices) == {n.name for n in model.graph.nodes if n.op == "conv"}


def test_threads_are_planned_for_and_free_at_run_time(net):
    compiled = compile(net, threads=2)
    assert compiled.manifest.threads == 2
    assert_right(net, image(), compiled.load(threads=1).run({"x": image()}))


# ---- sources ----------------------------------------------------------------------------------------------------


def test_a_cvc_file_with_its_weights(net, tmp_path: Path):
    save(net, tmp_path / "net.cvc")
    compiled = compile(tmp_path / "net.cvc", threads=1)
    assert_right(net, image(), compiled.run({"x": image()}))
    assert compiled.manifest.graph_sha256 == compile(net, threads=1).manifest.graph_sha256


def test_an_onnx_model_in_memory_and_in_a_file(tmp_path: Path):
    proto = onnx.parser.parse_model(ONNX)
    onnx.save(proto, tmp_path / "small.onnx")
    for source in (proto, tmp_path / "small.onnx", str(tmp_path / "small.onnx")):
        y = compile(source, shapes={"x": (2, 4)}, threads=1)(np.full((2, 4), -1, np.float32))
        assert y.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0]]


def test_a_hash_tells_models_apart_by_structure_and_weights():
    texts = [
        NET,
        NET.replace("splat(0.5)", "splat(0.75)"),
        NET.replace("relu", "neg"),
        NET.replace("@net", "@other"),
    ]
    hashes = [compile(parse(text), threads=1).manifest.graph_sha256 for text in texts]
    assert len(set(hashes)) == 4
    assert all(len(h) == 64 for h in hashes)


def test_what_is_no_model(net, tmp_path: Path):
    for name in ("none.onnx", "none.cvc"):
        with pytest.raises(InvalidModelError) as caught:
            compile(tmp_path / name)
        assert (
            str(caught.value)
            == f"model must be a file; got '{tmp_path / name}', which does not exist."
        )
    with pytest.raises(InvalidModelError) as caught:
        compile(net, shapes={"x": (1, 3, 8, 8)})
    assert str(caught.value) == (
        "shapes must be given for ONNX models alone; got {'x': (1, 3, 8, 8)} for graph 'net', whose shapes are fixed."
    )


# ---- pinning ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [a.name for a in ALGORITHMS])
def test_algo_is_used_wherever_it_applies(net, name):
    compiled = compile(net, algo=name, threads=1)
    assert_right(net, image(), compiled.run({"x": image()}))
    for choice in compiled.plan.choices.values():
        applies = next(c for c in choice.candidates if c.algorithm == name).applies
        assert (choice.algorithm == name) is applies
        assert (choice.reason.split("; ")[0] == f"pinned by --algo {name}") is applies
    assert compiled.manifest.options == {"algo": name}


def test_algo_for_pins_by_name_and_by_pattern(net):
    pins = {"first": "direct", "*": "generic"}
    compiled = compile(net, algo_for=pins, threads=1)
    chosen = {name: choice.algorithm for name, choice in compiled.plan.choices.items()}
    # The first pattern that matches counts.
    assert chosen == {"first": "direct", "second": "generic"}
    assert compiled.plan["first"].reason == "pinned by --algo-for first"
    assert compiled.plan["second"].reason.split("; ")[0] == "pinned by --algo-for *"
    assert compiled.manifest.options == {
        "algo": "auto",
        "algo_for.first": "direct",
        "algo_for.*": "generic",
    }
    assert_right(net, image(), compiled.run({"x": image()}))


def test_a_name_with_brackets_can_be_pinned():
    text = NET.replace("%second", '%"block[0]/conv"')
    plan = compile(parse(text), algo_for={"block[0]/conv": "generic"}, threads=1).plan
    assert plan["block[0]/conv"].reason.split("; ")[0] == "pinned by --algo-for block[0]/conv"


def test_auto_unpins():
    plan = compile(parse(NET), algo="generic", algo_for={"second": "auto"}, threads=1).plan
    assert plan["first"].algorithm == "generic"
    assert not plan["second"].reason.startswith("pinned")


def test_names_nobody_knows(net):
    known = ", ".join(a.name for a in ALGORITHMS)
    with pytest.raises(UnknownNameError) as caught:
        compile(net, algo="winogard")
    assert (
        str(caught.value)
        == f"unknown algorithm 'winogard'; known: {known}. Did you mean 'winograd'?"
    )
    with pytest.raises(UnknownNameError) as caught:
        compile(net, algo_for={"second": "dierct"})
    assert (
        str(caught.value) == f"unknown algorithm 'dierct'; known: {known}. Did you mean 'direct'?"
    )
    with pytest.raises(UnknownNameError) as caught:
        compile(net, algo_for={"secnd": "direct"})
    assert (
        str(caught.value)
        == "unknown layer with a choice 'secnd'; known: first, second, m. Did you mean 'second'?"
    )
    with pytest.raises(
        UnknownNameError, match=r"^unknown cpu 'znver'; known: .*\. Did you mean 'znver\d'\?$"
    ):
        compile(net, mcpu="znver")


def test_an_algorithm_that_does_not_apply(net):
    with pytest.raises(UnsupportedConvError) as caught:
        compile(net, algo_for={"second": "depthwise"})
    assert str(caught.value).startswith(
        "algorithm 'depthwise' cannot compute 'second': group must equal C and K; got group = 1, C = 8, K = 4. These can: direct"
    )


def test_targets(net):
    with pytest.raises(ToolchainError) as caught:
        compile(net, target="cuda")
    assert str(caught.value).startswith("target 'cuda' must name its compute capability")
    with pytest.raises(ToolchainError) as caught:
        compile(net, target="llvm -device=gpu")
    assert str(caught.value).startswith("option of target llvm must be one of -mcpu")
    compiled = compile(net, target="llvm -mcpu=x86-64-v2", threads=1)
    assert compiled.manifest.target.mcpu == "x86-64-v2"
    assert "avx2" not in compiled.manifest.target.features
    assert_right(net, image(), compiled.run({"x": image()}))


# ---- reports ----------------------------------------------------------------------------------------------------


def test_progress_is_told_stage_by_stage(net):
    seen: list[tuple[str, int, int]] = []
    compile(net, threads=1, progress=lambda *report: seen.append(report))
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    assert stages == ["import", "passes", "choose", "build"]
    build = [(done, total) for stage, done, total in seen if stage == "build"]
    assert [done for done, _ in build] == list(range(len(build)))
    assert {total for _, total in build} == {build[-1][0]}


def test_dump_writes_the_graph_after_each_pass(net, tmp_path: Path):
    compiled = compile(net, threads=1, dump=tmp_path / "new" / "folder")
    files = sorted((tmp_path / "new" / "folder").iterdir())
    assert [f.name for f in files] == [f"{i:02d}_{p.name}.cvc" for i, p in enumerate(PIPELINE)]
    assert files[-1].read_text() == print_graph(compiled.graph)
    assert print_graph(parse(files[0].read_text())) == files[0].read_text()


def test_explain_has_every_algorithm_for_every_layer(net):
    reports = explain(net, threads=1, algo_for={"second": "generic"})
    assert [r.node for r in reports] == ["first", "second", "m"]
    for report in reports[:2]:
        assert [c.algorithm for c in report.candidates] == [a.name for a in ALGORITHMS]
        assert [c.chosen for c in report.candidates].count(True) == 1
        for candidate in report.candidates:
            assert candidate.reason
            assert candidate.estimate_seconds is None or candidate.estimate_seconds > 0
    (chosen,) = (c for c in reports[1].candidates if c.chosen)
    pinned, behind = chosen.reason.split("; ", 1)
    assert (chosen.algorithm, pinned) == ("generic", "pinned by --algo-for second")
    assert behind.endswith("apart: only direct and winograd compute strips of rows; not generic")
    refused = next(c for c in reports[0].candidates if c.algorithm == "subpixel")
    assert (refused.estimate_seconds, refused.reason) == (None, "convolution must be transposed")
    rows, plain = reports[2].candidates
    assert (rows.algorithm, rows.chosen) == ("rows", False)
    assert rows.reason == "the axis must be the last alone, 3; got [2, 3]"
    assert (plain.algorithm, plain.chosen) == ("plain", True)


# ---- numbers that the layout could spoil --------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["sigmoid", "exp", "log", "reciprocal", "softplus", "clip"])
def test_lanes_beyond_the_last_channel_reach_nothing(function):
    """5 channels lie in a block of 8; f(0) is not 0, or no number at all, in the 3 lanes of padding."""
    attributes = " {min = 1.0}" if function == "clip" else ""
    text = f"""graph @g {{
      %x = input : f32[1,3,4,4]  %w = constant splat(0.5) : f32[5,3,1,1]  %b = constant splat(9.0) : f32[5]
      %a = conv(%x, %w, %b) {{epilogue = [bias]}}  %f = {function}(%a){attributes}
      %v = constant splat(0.25) : f32[5,5,3,3]  %c = conv(%f, %v) {{pads = [1, 1, 1, 1]}}
      %m = average_pool(%c) {{kernel = [4, 4]}}  %r = reshape(%m) {{shape = [1, 5]}}
      %u = constant splat(0.5) : f32[2,5]  %d = dense(%r, %u)
      return %d, %f }}"""
    graph = parse(text)
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    actual, expected = compile(graph, threads=1).run({"x": x}), interpret(graph, {"x": x})
    for name in expected:
        np.testing.assert_allclose(actual[name], expected[name], rtol=2e-6)


@pytest.mark.parametrize("algo", ["direct", "depthwise", "grouped", "generic"])
def test_infinities_stay_where_they_are(algo):
    """inf times the zero weights of padding is nan; a clip afterwards would hide it everywhere but in the padding."""
    # Direct sums over the groups that share a block with zero weights, which is said where it is described: one group for it.
    group = 1 if algo == "direct" else 5
    text = f"""graph @g {{
      %x = input : f32[1,5,4,4]  %w = constant splat(0.5) : f32[5,{5 // group},3,3]
      %a = conv(%x, %w) {{pads = [1, 1, 1, 1], group = {group}, epilogue = [clip(-4.0, 4.0)]}}
      %v = constant splat(0.25) : f32[3,5,3,3]  %b = conv(%a, %v) {{pads = [1, 1, 1, 1]}}  return %b }}"""
    graph = parse(text)
    x = np.ones((1, 5, 4, 4), np.float32)
    x[0, :, 1, 1] = np.inf
    expected = interpret(graph, {"x": x})["b"]
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(compile(graph, algo=algo, threads=1)(x), expected)


def test_long_chains_of_functions_compile_in_no_time():
    """Written into each other, 20 functions that read their argument twice would be a million copies of it."""
    body = "  ".join(
        f"%v{i + 1} = {f}(%v{i})"
        for i, f in enumerate(["leaky_relu", "tanh", "softplus", "elu"] * 5)
    )
    conv = "%x = input : f32[1,3,4,4]  %w = constant splat(0.5) : f32[5,3,1,1]  %v0 = conv(%x, %w)"
    graph = parse(f"graph @g {{ {conv}  {body}  return %v20 }}")
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    began = time.process_time()
    compiled = compile(graph, threads=1)
    assert time.process_time() - began < 30
    np.testing.assert_allclose(compiled(x), interpret(graph, {"x": x})["v20"], rtol=1e-5)
