"""Pools behind convolutions: one kernel gives the two nodes' results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convc.ir import ConvSpec, Graph, GraphBuilder, Step, TensorType
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.pool import AveragePoolAttributes, MaxPoolAttributes
from convc.ir.reference import interpret
from convc.ir.types import numpy_dtype
from convc.lowering.build import build
from convc.lowering.emit import emit
from convc.runtime import load
from convc.schedules import pooled_model as model
from convc.schedules.backend import backend_of
from convc.schedules.plan import Chain, Plan, Unsupported
from convc.schedules.policy import Policy
from convc.schedules.pooled import NAME
from convc.schedules.pooled_choice import best_setting, pool_behind
from convc.schedules.select import problem_of, select
from convc.target import Target, parse_target
from tests.schedules.conv_module import conv_node, whole_numbers
from tests.tolerance import assert_exact

EPS = 2.0**-23
RELU = (Step("bias"), Step("relu"))
ADD = (Step("bias"), Step("add"), Step("relu"))
MAX2 = MaxPoolAttributes((2, 2), (2, 2))
STEM = MaxPoolAttributes((3, 3), (2, 2), (1, 1, 1, 1))


@dataclass(frozen=True)
class Case:
    """A convolution and a pool.

    Attributes:
        data, weight, geometry: of the convolution.
        pool: its attributes, or the op of a reduction over the planes.
        algorithm, knobs: what is forced; `strip` and others.
    """

    data: tuple[int, ...]
    weight: tuple[int, ...]
    pool: Any
    algorithm: str = "direct"
    steps: tuple[Step, ...] = RELU
    knobs: dict[str, int] = field(default_factory=dict)
    geometry: dict[str, Any] = field(default_factory=dict)

    @property
    def divides(self) -> bool:
        """Whether the pool is a mean, of the plane or of windows."""
        return self.pool == "reduce_mean" or isinstance(self.pool, AveragePoolAttributes)


def _pads(n: int) -> dict[str, Any]:
    return {"pads": (n,) * 4}


CASES = {
    "stem": Case((1, 3, 37, 41), (20, 3, 7, 7), STEM, geometry={"strides": (2, 2), **_pads(3)}, knobs={"strip": 3}),
    "stem_whole": Case((2, 3, 22, 22), (16, 3, 7, 7), STEM, geometry={"strides": (2, 2), **_pads(3)}),
    "two": Case((1, 16, 12, 14), (40, 16, 3, 3), MAX2, geometry=_pads(1), knobs={"strip": 2}),
    "odd_floor": Case((1, 24, 13, 11), (24, 24, 3, 3), MAX2, geometry=_pads(1), knobs={"strip": 4}),
    "odd_ceil": Case((2, 16, 13, 11), (32, 16, 3, 3), replace(MAX2, ceil_mode=True), geometry=_pads(1), knobs={"strip": 2}),
    "ceil_over_the_end": Case((1, 16, 12, 12), (16, 16, 1, 1), MaxPoolAttributes((3, 3), (2, 2), ceil_mode=True), knobs={"strip": 4}),
    "uneven": Case((1, 16, 9, 10), (16, 16, 3, 3), MaxPoolAttributes((3, 2), (2, 3), (2, 0, 1, 1)), geometry={"pads": (0, 1, 2, 1)}, knobs={"strip": 3}),
    "dilated": Case((1, 16, 15, 15), (16, 16, 3, 3), MaxPoolAttributes((2, 3), (1, 2), (1, 1, 0, 1), (3, 2)), geometry={"dilations": (2, 1)}, knobs={"strip": 5}),
    "clipped": Case((1, 16, 12, 12), (16, 16, 3, 3), STEM, geometry={"dilations": (9, 9), **_pads(9)}, knobs={"strip": 2, "rows": 1, "clip": 1}),
    "gaps": Case((1, 16, 14, 14), (16, 16, 3, 3), MaxPoolAttributes((1, 2), (3, 3)), geometry=_pads(1)),
    "no_bias": Case((1, 8, 10, 10), (16, 8, 1, 1), MAX2, steps=(), geometry={"strides": (2, 2)}),
    "mean": Case((1, 16, 12, 12), (32, 16, 3, 3), AveragePoolAttributes((2, 2), (2, 2)), geometry=_pads(1), knobs={"strip": 3}),
    "mean_padded": Case((1, 16, 11, 12), (16, 16, 3, 3), AveragePoolAttributes((4, 4), (2, 2), (1, 1, 1, 2)), geometry=_pads(1), knobs={"strip": 2}),
    "mean_counted": Case((1, 16, 11, 12), (24, 16, 3, 3), AveragePoolAttributes((4, 4), (2, 2), (1, 2, 1, 1), count_include_pad=True), geometry=_pads(1), knobs={"strip": 2}),
    "mean_ceil": Case((1, 16, 11, 12), (16, 16, 3, 3), AveragePoolAttributes((2, 4), (2, 3), (0, 1, 1, 1), ceil_mode=True, count_include_pad=True), geometry=_pads(1), knobs={"strip": 4}),
    "global_mean": Case((2, 24, 8, 4), (72, 24, 1, 1), "reduce_mean"),
    "global_max": Case((1, 16, 7, 7), (80, 16, 1, 1), "reduce_max", steps=(Step("bias"), Step("clip", (0.0, 6.0)))),
    "residual": Case((1, 16, 8, 8), (32, 16, 1, 1), "reduce_mean", steps=ADD),
    "residual_padded": Case((2, 16, 9, 9), (20, 16, 3, 3), STEM, steps=ADD, geometry=_pads(1), knobs={"strip": 2}),
    "residual_floor": Case((1, 16, 9, 9), (16, 16, 3, 3), MAX2, steps=ADD, geometry=_pads(1), knobs={"strip": 2}),
    "grouped": Case((1, 32, 10, 10), (32, 16, 3, 3), MAX2, geometry={**_pads(1), "group": 2}),
    "both_apart": Case((1, 16, 13, 11), (24, 16, 3, 3), STEM, geometry=_pads(1), knobs={"strip": 0}),
    "residual_apart": Case((2, 16, 9, 10), (20, 16, 3, 3), STEM, steps=ADD, geometry=_pads(1), knobs={"strip": 0}),
    "mean_apart": Case((1, 16, 11, 12), (16, 16, 3, 3), AveragePoolAttributes((4, 4), (2, 2), (1, 1, 1, 2)), geometry=_pads(1), knobs={"strip": 0}),
    "winograd": Case((1, 16, 16, 16), (32, 16, 3, 3), MAX2, "winograd", geometry=_pads(1)),
    "winograd_odd": Case((2, 24, 15, 17), (40, 24, 3, 3), replace(MAX2, ceil_mode=True), "winograd", geometry=_pads(1)),
    "winograd_five": Case((1, 16, 27, 14), (16, 16, 3, 3), MAX2, "winograd", geometry=_pads(1), knobs={"m": 5, "rows": 2, "points": 6, "strip": 5}),
    "winograd_mean": Case((1, 16, 12, 12), (16, 16, 5, 5), AveragePoolAttributes((2, 2), (2, 2), (1, 0, 0, 0)), "winograd", geometry=_pads(2)),
    "winograd_residual": Case((1, 16, 14, 14), (16, 16, 3, 3), replace(MAX2, pads=(1, 1, 1, 1)), "winograd", ADD, geometry=_pads(1)),
    "winograd_apart": Case((1, 16, 13, 12), (32, 16, 3, 3), STEM, "winograd", geometry=_pads(1), knobs={"strip": 0}),
}  # fmt: skip


def graph_of(cases: Mapping[str, Case]) -> Graph:
    """Return a graph of cases; a case's nodes are called `NAME.conv` and `NAME`."""
    b, rng, outputs = GraphBuilder("pools"), np.random.default_rng(0), {}
    for name, case in cases.items():
        spec = ConvSpec.of(case.data, case.weight, **case.geometry)
        x = b.input(f"x_{name}", TensorType(spec.data))
        extras = []
        for step in case.steps:
            if step.name == "bias":
                extras.append(b.constant(whole_numbers(rng, (spec.out_channels,))))
            elif step.takes_operand:
                extras.append(b.input(f"r_{name}", TensorType(spec.output)))
        w = b.constant(whole_numbers(rng, spec.weight))
        y = conv_node(b, x, w, spec, case.steps, extras, f"{name}.conv")
        if isinstance(case.pool, str):
            outputs[name] = b.add(
                case.pool, [y], ReduceAttributes((2, 3), keepdims=True), name=name
            )
        else:
            op = "max_pool" if isinstance(case.pool, MaxPoolAttributes) else "average_pool"
            outputs[name] = b.add(op, [y], case.pool, name=name)
    return b.finish(outputs)


def forced(graph: Graph, cases: Mapping[str, Case], target: Target) -> Plan:
    """Return the plan in which these pools join their convolutions, whatever the model says."""
    algorithms = {f"{name}.conv": case.algorithm for name, case in cases.items()}
    plan = select(graph, target, algo_for=algorithms)
    choices, chains = dict(plan.choices), []
    for name, case in cases.items():
        node = graph[f"{name}.conv"]
        behind = pool_behind(graph, node, problem_of(graph, node))
        assert behind is not None
        algorithm = backend_of(target).algorithm(case.algorithm)
        assert model.supports(behind[1], algorithm) is None
        best = best_setting(behind[1], algorithm, algorithm.knobs(behind[1].layer, target), target, Policy(), others=True)  # fmt: skip
        assert not isinstance(best, Unsupported)
        knobs = {**best[0], **case.knobs}
        strip = knobs.pop("strip")
        choices[node.name] = replace(choices[node.name], knobs=knobs)
        chains.append(Chain((node.name, name), {"strip": strip}, "test", NAME))
    return replace(plan, choices=choices, chains=tuple(chains))


# Whole planes and strips, direct and winograd, every kind of border; the rest of the grid is slow.
SAMPLE = (
    "stem",
    "clipped",
    "residual_padded",
    "residual_apart",
    "winograd_odd",
)


def agree(cases: Mapping[str, Case], mcpu: str, folder: Path) -> None:
    """Compare one kernel for each of these pairs with the oracle, on one and on two threads."""
    graph, target = graph_of(cases), parse_target("llvm", mcpu, 2)
    built = build(emit(graph, forced(graph, cases, target), target), target)
    built.export(folder / "pools.so")
    rng = np.random.default_rng(0)
    inputs = {n.name: whole_numbers(rng, n.type.shape) for n in graph.inputs}
    expected, results = interpret(graph, inputs), []
    for threads in (1, 2):
        results.append(load(folder / "pools.so", threads=threads).run(inputs))
        for name, case in cases.items():
            actual, largest = results[-1][name], np.abs(expected[name]).max()
            if case.algorithm == "direct" and not case.divides:
                assert_exact(actual, expected[name])
            else:
                # Sums of whole numbers are exact, and a mean rounds its quotient, by a reciprocal; winograd's bound is on 16 channels.
                limit = 4 * EPS if case.algorithm == "direct" else 64 * EPS
                assert np.abs(actual - expected[name]).max() <= limit * largest, (name, case)
    for name in cases:
        np.testing.assert_array_equal(results[0][name], results[1][name])
    steps = [s for s in built.manifest.steps if s.algorithm]
    assert [s.node for s in steps] == [f"{name}.conv" for name in cases]
    assert [s.algorithm for s in steps] == [case.algorithm for case in cases.values()]


def some(*names: str) -> dict[str, Case]:
    return {name: CASES[name] for name in names}


@pytest.mark.parametrize("mcpu", ["host", "x86-64-v3"])
def test_one_kernel_gives_the_results_of_both(mcpu: str, tmp_path: Path):
    agree(some(*SAMPLE) if mcpu == "host" else some("mean_padded"), mcpu, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("mcpu", ["host", "x86-64-v3"])
def test_one_kernel_gives_the_results_of_both_in_every_case(mcpu: str, tmp_path: Path):
    agree(CASES, mcpu, tmp_path)


def drawn(rng: np.random.Generator) -> Case | None:
    """Return a convolution and a pool of random geometry; None if there is no such pool."""

    def pair(low: int, high: int) -> tuple[int, int]:
        first, second = rng.integers(low, high + 1, 2)
        return int(first), int(second)

    def below(limits: tuple[int, int]) -> tuple[int, ...]:
        return tuple(int(rng.integers(0, limit)) for limit in limits * 2)

    kernel, strides, dilations = pair(1, 4), pair(1, 2), pair(1, 2)
    channels, results = (int(rng.choice([3, 8, 16, 20, 40])) for _ in range(2))
    geometry = {"strides": strides, "dilations": dilations, "pads": below(kernel)}
    data = (int(rng.integers(1, 3)), channels, *pair(10, 20))
    plane = ConvSpec.of(data, (results, channels, *kernel), **geometry).output[2:]
    window, between = pair(1, 4), pair(1, 2)
    options: dict[str, bool] = {"ceil_mode": bool(rng.integers(2))}
    kind = [MaxPoolAttributes, AveragePoolAttributes][int(rng.integers(2))]
    if kind is AveragePoolAttributes:
        options["count_include_pad"] = bool(rng.integers(2))
    pool = kind(window, pair(1, 4), below(window), between, **options)
    if any((w - 1) * d + 1 > extent for w, d, extent in zip(window, between, plane, strict=True)):
        return None
    steps = [(), RELU, ADD][int(rng.integers(3))]
    # Winograd is drawn where F(m, r) is one of stride-1 tiles and windows do not overlap.
    tiles = max(kernel) > 1 and max(dilations) == 1 and channels > 3 and bool(rng.integers(2))
    return Case(data, (results, channels, *kernel), pool, "winograd" if tiles else "direct", steps, geometry=geometry)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_one_kernel_gives_the_results_of_both_of_random_pairs(seed: int, tmp_path: Path):
    rng, cases = np.random.default_rng(seed), {}
    while len(cases) < 16:
        case = drawn(rng)
        if case is not None:
            cases[f"c{len(cases)}"] = case
    agree(cases, "host", tmp_path)


@pytest.mark.parametrize("algorithm", ["direct", pytest.param("winograd", marks=pytest.mark.slow)])
def test_the_result_of_the_convolution_is_never_in_memory(algorithm: str):
    case = Case((1, 8, 48, 48), (64, 8, 3, 3), MAX2, algorithm, geometry=_pads(1))
    target, scratch = parse_target("llvm", "host", 1), {}
    for name, knobs in (("strips", {}), ("whole", {"strip": 0})):
        cases = {"pair": replace(case, knobs=knobs)}
        graph = graph_of(cases)
        built = build(emit(graph, forced(graph, cases, target), target), target)
        form = built.manifest
        assert [s.op for s in form.steps if s.algorithm] == ["conv+max_pool"]
        scratch[name] = form.workspace_bytes + form.arena_bytes
    convolved = 4 * graph["pair.conv"].type.size
    # Of `winograd` transforms in flight are in both. What is taken at once of strips is a fraction of the convolution's result.
    assert scratch["whole"] >= convolved
    assert scratch["whole"] - scratch["strips"] > convolved / 2


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_halves_are_rounded_once_and_the_greatest_is_the_same(dtype: str, tmp_path: Path):
    b, rng = GraphBuilder("halves"), np.random.default_rng(0)
    spec = ConvSpec.of((1, 16, 12, 12), (16, 16, 3, 3), pads=(1,) * 4, dtype=dtype)
    x = b.input("x", TensorType(spec.data, dtype))
    w = b.constant(rng.normal(size=spec.weight).astype(numpy_dtype(dtype)))
    graph = b.finish({"two": b.add("max_pool", [conv_node(b, x, w, spec, name="two.conv")], STEM, name="two")})  # fmt: skip
    target, results = parse_target("llvm", "host", 1), []
    data = rng.normal(size=spec.data).astype(numpy_dtype(dtype))
    for plan in (
        forced(graph, some("two"), target),
        replace(select(graph, target, algo="direct"), chains=()),
    ):
        build(emit(graph, plan, target), target).export(tmp_path / f"{len(results)}.so")
        results.append(load(tmp_path / f"{len(results)}.so", threads=1).run({"x": data})["two"])
    np.testing.assert_array_equal(*(r.view(np.uint16) for r in results))
