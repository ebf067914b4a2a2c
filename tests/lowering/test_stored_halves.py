"""Kernels of half-width floats: every algorithm within its bound, rounding bit for bit, weights in the type they are stored in."""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convc.compiler import compile
from convc.ir import GraphBuilder, Step, TensorType
from convc.ir.ops.conv import ConvAttributes, ConvTransposeAttributes, DenseAttributes
from convc.ir.reference import interpret
from convc.ir.spec import ConvSpec
from convc.ir.text import parse
from convc.ir.types import numpy_dtype
from convc.lowering.build import build
from convc.lowering.emit import emit
from convc.runtime import load
from convc.schedules.algorithm import Problem
from convc.schedules.dual import posed
from convc.schedules.plan import Choice, Plan, Unsupported
from convc.schedules.select import problem_of
from convc.schedules.table import ALGORITHMS
from convc.target import parse_target
from tests.conv_grid import CONV_GRID
from tests.tolerance import assert_bounded, error_bound

HALVES = ("float16", "bfloat16")
TARGET = parse_target(cores=1)
SMALL = [row.spec for row in CONV_GRID if row.group in ("tiny", "edges")]


def takers(name: str) -> list[ConvSpec]:
    row = next(a for a in ALGORITHMS if a.name == name)
    taken = [s for s in SMALL if not isinstance(posed(Problem(s), row, TARGET), Unsupported)]
    return random.Random(name).sample(taken, min(3, len(taken)))


@pytest.mark.parametrize("dtype", HALVES)
def test_every_algorithm(dtype: str) -> None:
    """Three of each algorithm's convolutions in one module."""
    b, rng = GraphBuilder("halves"), np.random.default_rng(0)
    pins, outputs, inputs = {}, {}, {}

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32).astype(numpy_dtype(dtype))

    for row in ALGORITHMS:
        for i, spec in enumerate(takers(row.name)):
            name = f"{row.name}_{i}"
            x = b.input(f"x_{name}", TensorType(spec.data, dtype))
            w = b.constant(normal(*spec.weight), "w")
            inputs[x], pins[name] = normal(*spec.data), row.name
            common = (spec.strides, spec.pads, spec.dilations, spec.group)
            a = ConvTransposeAttributes(*common, output_padding=spec.output_padding) if spec.transposed else ConvAttributes(*common)  # fmt: skip
            outputs[name] = b.add("conv_transpose" if spec.transposed else "conv", [x, w], a, name)
    graph = b.finish(outputs)
    compiled = compile(graph, threads=1, algo_for=pins)
    actual, expected = compiled.run(inputs), interpret(graph, inputs)
    for name, algorithm in pins.items():
        choice = compiled.plan[name]
        assert choice.algorithm == algorithm
        problem = problem_of(graph, graph[name])
        x, w = (v.astype(np.float64) for v in (inputs[f"x_{name}"], graph[graph[name].inputs[1]].value))  # fmt: skip
        row = next(a for a in ALGORITHMS if a.name == algorithm)
        solved = posed(problem, row, TARGET)
        assert isinstance(solved, Problem)
        assert solved.stored == dtype
        if solved.dual:
            continue  # its own convolution is among the others
        bound = error_bound(algorithm, x, w, problem.spec, choice.knobs)
        assert actual[name].dtype == numpy_dtype(dtype)
        assert_bounded(actual[name], expected[name], bound)


@pytest.mark.skipif(
    "avx512bf16" not in TARGET.features,
    reason="needs a CPU with AVX512_BF16, as any from Zen 4 or Cooper Lake on",
)
def test_pairs_of_bfloat16() -> None:
    """The layers of the grid by the instruction for pairs of products, whatever the model thinks of its speed."""
    row = next(a for a in ALGORITHMS if a.name == "direct")
    rng = np.random.default_rng(0)
    for spec in takers("direct"):
        problem = Problem(replace(spec, dtype="bfloat16"))
        b = GraphBuilder("pairs")
        x = b.input("x", TensorType(spec.data, "bfloat16"))
        data, weight = (
            rng.standard_normal(s).astype(np.float32).astype(numpy_dtype("bfloat16"))
            for s in (spec.data, spec.weight)
        )
        w = b.constant(weight, "w")
        a = ConvAttributes(spec.strides, spec.pads, spec.dilations, spec.group, (Step("silu"),))
        graph = b.finish({"y": b.add("conv", [x, w], a, "y")})
        knobs = next(k for k in row.space(problem.widened, TARGET) if k["pairs"])
        program = emit(graph, Plan({"y": Choice("direct", knobs, "", ())}), TARGET)
        with tempfile.TemporaryDirectory() as folder:
            build(program, TARGET).export(Path(folder) / "m.so")
            y = load(Path(folder) / "m.so", threads=1).run({"x": data})["y"]
        bound = error_bound(
            "direct", data.astype(np.float64), weight.astype(np.float64), problem.spec, knobs
        )
        # silu's slope is at most 1.1; then one more rounding.
        assert_bounded(y, interpret(graph, {"x": data})["y"], 1.1 * bound + 1e-6)


@pytest.mark.parametrize("dtype", HALVES)
def test_values_are_rounded_to_nearest_even(dtype: str) -> None:
    """Every pattern of the upper half, with ties and their neighbours below it; NaN stays NaN, infinity infinite."""
    short = {"float16": "f16", "bfloat16": "bf16"}[dtype]
    high = np.arange(1 << 16, dtype=np.uint32) << 16
    low = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x1000, 0x0FFF, 0x3000], np.uint32)
    x = (high[:, None] | low).view(np.float32).reshape(-1)
    text = f'graph @g {{ %x = input : f32[{x.size}] %y = cast(%x) {{dtype = "{dtype}"}} : {short}[{x.size}] return %y }}'
    y = compile(parse(text), threads=1).run({"x": x})["y"]
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(numpy_dtype(dtype))
    nan = np.isnan(x)
    assert np.isnan(y[nan].astype(np.float32)).all()
    np.testing.assert_array_equal(y[~nan].view(np.uint16), expected[~nan].view(np.uint16))


@pytest.mark.parametrize("dtype", HALVES)
def test_other_operators(dtype: str) -> None:
    short = {"float16": "f16", "bfloat16": "bf16"}[dtype]
    graph = parse(
        f"""graph @g {{
          %x = input : {short}[2,24,9,9]  %r = input : {short}[2,24,9,9]
          %s = add(%x, %r)  %m = max_pool(%s) {{kernel = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]}}
          %a = average_pool(%x) {{kernel = [3, 3]}}  %e = reduce_mean(%x) {{axes = [2, 3]}}  %f = softmax(%x) {{axis = 1}}
          %c = concat(%x, %r) {{axis = 1}}  %t = transpose(%c) {{perm = [0, 2, 3, 1]}}  %g = silu(%x)  %p = matmul(%x, %r)
          %b = bit_cast(%x) {{source = "{dtype}", dtype = "uint16"}}  %h = reduce_max(%x) {{axes = [1]}}
          return %s, %m, %a, %e, %f, %t, %g, %p, %b, %h
        }}"""
    )
    rng = np.random.default_rng(0)
    inputs = {n.name: rng.standard_normal(n.type.shape).astype(np.float32).astype(numpy_dtype(dtype)) for n in graph.inputs}  # fmt: skip
    actual, expected = compile(graph, threads=1).run(inputs), interpret(graph, inputs)
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    np.testing.assert_array_equal(actual["b"], inputs["x"].view(np.uint16))
    for name in set(expected) - {"b"}:
        assert actual[name].dtype == numpy_dtype(dtype)
        # Computed in float32, and rounded once.
        difference = np.abs(actual[name].astype(np.float64) - expected[name])
        assert (difference <= unit * np.abs(expected[name]) + 1e-5).all(), name


def test_weights_are_stored_in_halves_where_packing_only_moves_them() -> None:
    b, rng = GraphBuilder("sizes"), np.random.default_rng(0)
    x = b.input("x", TensorType((1, 64, 8, 8), "float32"))
    w = b.constant(rng.standard_normal((64, 64, 3, 3)).astype(np.float32), "w")
    c = b.add("conv", [x, w], ConvAttributes(pads=(1,) * 4), "c")
    f = b.add("reduce_max", [c], parse("graph @g { %x = input : f32[1,2,2,2] %y = reduce_max(%x) {axes = [2, 3], keepdims = false} return %y }")["y"].attributes)  # fmt: skip
    v = b.constant(rng.standard_normal((512, 64)).astype(np.float32), "v")
    graph = b.finish({"y": b.add("dense", [f, v], DenseAttributes())})

    def nbytes(dtype: str, algo: str) -> int:
        return compile(graph, threads=1, dtype=dtype, algo=algo).manifest.weights_bytes

    direct = nbytes("fp32", "direct")
    assert direct == 4 * (64 * 64 * 9 + 512 * 64)
    assert nbytes("bf16", "direct") == nbytes("fp16", "direct") == direct // 2
    # Winograd's transformed weights are no halves.
    dense = 512 * 64
    assert nbytes("bf16", "winograd") - 2 * dense == nbytes("fp32", "winograd") - 4 * dense


@pytest.mark.parametrize("dtype", HALVES)
def test_weights_of_run_time(dtype: str) -> None:
    short = {"float16": "f16", "bfloat16": "bf16"}[dtype]
    graph = parse(
        f"""graph @g {{ %x = input : {short}[1,16,8,8]  %w = input : {short}[32,16,3,3]  %m = input : {short}[9,16]  %n = input : {short}[24,16]
          %c = conv(%x, %w) {{pads = [1, 1, 1, 1]}}  %d = dense(%m, %n)  return %c, %d }}"""
    )
    rng = np.random.default_rng(0)
    inputs = {n.name: rng.standard_normal(n.type.shape).astype(np.float32).astype(numpy_dtype(dtype)) for n in graph.inputs}  # fmt: skip
    actual, expected = compile(graph, threads=1).run(inputs), interpret(graph, inputs)
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    for name in expected:
        difference = np.abs(actual[name].astype(np.float64) - expected[name])
        assert (difference <= unit * np.abs(expected[name]) + 1e-4).all(), name
