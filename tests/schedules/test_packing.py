"""Weights known at run time: every packing against its algorithm's own, and whole convolutions with their steps."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import te

from convc.compiler import compile
from convc.explaining import explain
from convc.ir import ConvSpec, GraphBuilder, TensorType
from convc.ir.ops.conv import (
    ConvAttributes,
    ConvTransposeAttributes,
    convolve,
    convolve_transposed,
)
from convc.ir.reference import interpret
from convc.schedules import packing
from convc.schedules.algorithm import Problem
from convc.schedules.dual import dual, dual_weight, posed
from convc.schedules.llvm.backend import BACKEND
from convc.schedules.llvm.convolutions import SCHEDULES
from convc.schedules.llvm.packings import PACKINGS
from convc.schedules.plan import Unsupported
from convc.schedules.rank import raised
from convc.target import parse_target
from tests.conv_grid import CONV_GRID
from tests.schedules.conv_module import conv_node, whole_numbers
from tests.tolerance import INEXACT, assert_bounded, assert_exact, error_bound

HOST = parse_target("llvm", "host", 1)
HOST_LLVM = tvm.target.Target({"kind": "llvm", "mcpu": HOST.mcpu})


def runtime(spec: ConvSpec) -> Problem:
    return Problem(spec, constant_weight=False)


def sampled(algorithm, count: int, seed: int = 0) -> list[Problem]:
    """Return problems of the grid that the algorithm takes with run-time weights, duals among them."""
    answers = [posed(runtime(row.spec), algorithm, HOST) for row in CONV_GRID]
    found = [a for a in answers if isinstance(a, Problem)]
    order = np.random.default_rng(seed).permutation(len(found))
    duals = [p for p in found if p.dual][:2]
    return [*duals, *(found[i] for i in order[:count])]


@pytest.mark.parametrize("name", [n for n, row in PACKINGS.items() if row is not packing.PLAIN])
def test_packing_at_run_time_equals_packing_at_compile_time(name):
    algorithm = BACKEND.algorithm(name)
    functions, cases = {}, []
    for i, problem in enumerate(sampled(algorithm, 8)):
        knobs = {**algorithm.knobs(problem, HOST), "parallel": 1}
        tensors = packing.compute(name, problem, HOST, knobs)
        assert tensors is not None
        func = SCHEDULES["packing"](te.create_prim_func(tensors), knobs, HOST)
        functions[f"pack{i}"] = func.with_attr("global_symbol", f"pack{i}")
        cases.append((problem, knobs))
    assert cases
    module = tvm.compile(tvm.IRModule(functions), target=HOST_LLVM)
    for i, (problem, knobs) in enumerate(cases):
        spec = problem.spec
        shape = spec.weight
        if problem.dual:
            shape = (spec.in_channels, spec.out_channels // spec.group, *spec.kernel)
        w = whole_numbers(np.random.default_rng(i), shape)
        forward = dual_weight(w, spec.group) if problem.dual else w
        expected = algorithm.pack(forward, problem, knobs)
        assert PACKINGS[name].shape(problem, knobs) == expected.shape
        packed = tvm.runtime.tensor(np.full(expected.shape, np.nan, np.float32))
        module[f"pack{i}"](tvm.runtime.tensor(w), packed)
        if name in INEXACT:
            # Two rounded sums of up to 7 products each, or the few roundings of a transform, in float32.
            bound = 16 * np.finfo(np.float32).eps * np.abs(expected).max()
            assert np.abs(packed.numpy() - expected).max() <= bound
        else:
            np.testing.assert_array_equal(packed.numpy(), expected)


# Rows and columns, a line, filters in parts, one tap a row, phases of a dilated filter, the longest transform, depthwise.
TRANSFORMS = (
    (ConvSpec.of((2, 5, 11, 9), (37, 5, 5, 3), pads=(1, 2, 0, 1)), 12, 8),
    (ConvSpec.of((1, 18, 40), (20, 18, 7), pads=(3, 3)), 1, 16),
    (ConvSpec.of((1, 2, 3, 90), (3, 2, 1, 70), pads=(0, 9, 0, 9)), 1, 64),
    (ConvSpec.of((1, 5, 40, 5), (6, 5, 7, 1), pads=(3, 0, 3, 0)), 16, 2),
    (ConvSpec.of((1, 5, 23, 17), (19, 5, 3, 3), dilations=(2, 3)), 8, 8),
    (ConvSpec.of((1, 1, 40, 40), (2, 1, 33, 33), pads=(6, 6, 6, 6)), 64, 40),
    (ConvSpec.of((2, 19, 17, 23), (19, 1, 5, 7), pads=(2, 3, 2, 3), group=19), 12, 16),
    # Groups in a block, of blocks, one of each input, in parts.
    (ConvSpec.of((1, 12, 13, 9), (20, 3, 3, 3), pads=(1, 1, 1, 1), group=4), 8, 8),
    (ConvSpec.of((1, 48, 13, 9), (32, 24, 5, 3), pads=(2, 1, 2, 1), group=2), 8, 8),
    (ConvSpec.of((1, 6, 13, 9), (18, 1, 3, 3), pads=(1, 1, 1, 1), group=6), 8, 8),
    (ConvSpec.of((1, 4, 2, 120), (8, 2, 1, 100), pads=(0, 49, 0, 50), group=2), 1, 24),
)  # fmt: skip


def test_filters_are_transformed_at_run_time_as_at_compile_time():
    functions, cases, algorithm = {}, [], BACKEND.algorithm("fft")
    for spec, t_h, t_w in TRANSFORMS:
        problem = posed(runtime(spec), algorithm, HOST)
        assert isinstance(problem, Problem)
        for products in (4,) if spec.group == spec.in_channels == spec.out_channels else (3, 4):
            knobs = algorithm.with_lengths(
                raised(spec), HOST, t_h, t_w, products, spec.dilations[0]
            )
            tensors = packing.compute("fft", problem, HOST, knobs)
            func = SCHEDULES["packing"](
                te.create_prim_func(tensors), {**knobs, "parallel": 1}, HOST
            )
            name = f"fft{len(cases)}"
            functions[name] = func.with_attr("global_symbol", name)
            cases.append((problem, knobs, name))
    module = tvm.compile(tvm.IRModule(functions), target=HOST_LLVM)
    rng = np.random.default_rng(0)
    for problem, knobs, name in cases:
        w = rng.normal(size=problem.spec.weight).astype(np.float32)
        expected = algorithm.pack(w, problem, knobs)
        found = tvm.runtime.tensor(np.full(expected.shape, np.nan, np.float32))
        module[name](tvm.runtime.tensor(w), found)
        bound = 4 * np.finfo(np.float32).eps * np.abs(expected).max()
        assert np.abs(found.numpy() - expected).max() <= bound, (problem.spec.key, knobs)
        assert not found.numpy()[expected == 0].any()


RUNTIME = (
    ConvSpec.of((2, 20, 9, 9), (40, 20, 3, 3), pads=(1, 1, 1, 1)),
    ConvSpec.of((2, 3, 12, 12), (24, 3, 5, 5), strides=(2, 2), pads=(2, 2, 2, 2)),
    ConvSpec.of((2, 16, 7, 7), (16, 1, 3, 3), pads=(1, 1, 1, 1), group=16),
    ConvSpec.of((1, 8, 20), (12, 4, 3), group=2, pads=(1, 1)),
    ConvSpec.of((2, 20, 9, 9), (20, 24, 3, 3), pads=(1, 1, 1, 1), transposed=True),
    ConvSpec.of((2, 6, 5, 5), (6, 4, 3, 2), pads=(0, 1, 2, 0), group=2, transposed=True),
    ConvSpec.of(
        (2, 20, 6, 6),
        (20, 16, 3, 3),
        strides=(2, 2),
        pads=(1, 1, 1, 1),
        output_padding=(1, 1),
        transposed=True,
    ),
    ConvSpec.of((1, 4, 3, 4, 5), (4, 4, 3, 2, 2), pads=(1,) * 6, transposed=True),
)


def asking_for(algorithm, b: GraphBuilder, x: str, w: str, spec: ConvSpec, name: str) -> str:
    if spec.transposed:
        geometry = (spec.strides, spec.pads, spec.dilations, spec.group, spec.output_padding)
        attributes = ConvTransposeAttributes(*geometry, algorithm=algorithm)
        return b.add("conv_transpose", [x, w], attributes, name=name)
    geometry = (spec.strides, spec.pads, spec.dilations, spec.group)
    return b.add("conv", [x, w], ConvAttributes(*geometry, algorithm=algorithm), name=name)


def test_convolutions_with_run_time_weights():
    """Every convolution by every algorithm that takes it, in one module."""
    b, outputs, inputs, solved = GraphBuilder("runtime"), {}, {}, {}
    rng = np.random.default_rng(0)
    for i, spec in enumerate(RUNTIME):
        x, w = b.input(f"x{i}", TensorType(spec.data)), b.input(f"w{i}", TensorType(spec.weight))
        inputs[x], inputs[w] = whole_numbers(rng, spec.data), whole_numbers(rng, spec.weight)
        for algorithm in BACKEND.algorithms:
            answer = posed(runtime(spec), algorithm, HOST)
            if isinstance(answer, Problem):
                name = f"{algorithm.name}{i}"
                # Asked for by the node: the same node twice would become one.
                outputs[name] = asking_for(algorithm.name, b, x, w, spec, name)
                solved[name] = (i, algorithm.name, answer)
    graph = b.finish(outputs)
    model = compile(graph, threads=1)
    actual, expected = model.run(inputs), interpret(graph, inputs)
    steps = {s.node: s for s in model.manifest.steps if s.op == "pack"}
    for name, (i, algorithm, problem) in solved.items():
        assert (name in steps) == (algorithm != "generic")
        assert model.plan[name].algorithm == algorithm
        if algorithm not in INEXACT:
            assert_exact(actual[name], expected[name])
            continue
        x, w = inputs[f"x{i}"], inputs[f"w{i}"]
        forward = dual_weight(w, problem.spec.group) if problem.dual else w
        bound = error_bound(algorithm, x, forward, problem.spec, model.plan[name].knobs)
        assert_bounded(actual[name], expected[name], bound)
    assert {algorithm for _, algorithm, _ in solved.values()} == set(PACKINGS)
    assert {a for _, a, problem in solved.values() if problem.dual} >= {"direct", "winograd"}


def test_packing_is_in_the_estimate_and_a_refusal_has_its_reason():
    b = GraphBuilder("g")
    x, w = b.input("x", TensorType((1, 64, 8, 8))), b.input("w", TensorType((64, 64, 3, 3)))
    constant = b.constant(np.ones((64, 64, 3, 3), np.float32))
    for name, weight in (("late", w), ("early", constant)):
        conv_node(b, x, weight, ConvSpec.of((1, 64, 8, 8), (64, 64, 3, 3)), name=name)
    v = b.input("v", TensorType((64, 4, 3, 3)))
    conv_node(b, x, v, ConvSpec.of((1, 64, 8, 8), (64, 4, 3, 3), group=16), name="groups")
    graph = b.finish({name: name for name in ("late", "early", "groups")})
    reports = {r.node: {c.algorithm: c for c in r.candidates} for r in explain(graph, threads=1)}
    for algorithm in ("direct", "im2col", "fft"):
        late, early = (reports[n][algorithm].estimate_seconds for n in ("late", "early"))
        assert late > early > 0
    refused = "must be constant, to be packed at compile time"
    assert reports["groups"]["grouped"].reason == f"weights {refused}"
    assert reports["groups"]["direct"].reason == f"weights of this geometry {refused}"
    assert reports["groups"]["fft"].estimate_seconds is not None


@pytest.mark.parametrize(
    "spec",
    [
        ConvSpec.of((2, 4, 5, 6), (4, 3, 3, 2), pads=(1, 0, 2, 1), transposed=True),
        ConvSpec.of((1, 4, 7), (4, 2, 3), dilations=(2,), pads=(3, 1), output_padding=(1,), group=2, transposed=True),
    ],
)  # fmt: skip
def test_the_dual_is_the_same_convolution(spec):
    solved = dual(Problem(spec))
    assert solved is not None
    rng = np.random.default_rng(0)
    x, w = (whole_numbers(rng, s).astype(np.float64) for s in (spec.data, spec.weight))
    assert solved.spec.output == spec.output
    np.testing.assert_array_equal(
        convolve(x, dual_weight(w, spec.group), solved.spec), convolve_transposed(x, w, spec)
    )


def test_what_has_no_dual():
    strided = ConvSpec.of((1, 2, 4), (2, 2, 3), strides=(2,), transposed=True)
    cut = ConvSpec.of((1, 2, 6), (2, 2, 3), pads=(3, 0), transposed=True)
    assert dual(Problem(strided)) is None
    assert dual(Problem(cut)) is None
    assert isinstance(posed(Problem(cut), BACKEND.algorithm("winograd"), HOST), Unsupported)
