"""Weight gradients' CUDA kernels on the emulated device, their choice, and what nvcc makes of them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import tvm
from tvm import te

from convc.ir import ConvSpec, GraphBuilder, TensorType
from convc.ir.ops.conv_weight_grad import ConvWeightGradAttributes, convolve_weight_grad
from convc.ir.types import numpy_dtype
from convc.schedules.cuda import compiler, nvcc, weight_gradient
from convc.schedules.error_bound import relative_error, result_rounding
from convc.schedules.policy import Policy
from convc.schedules.weight_gradients import choose_weight_gradient
from convc.target import parse_target
from tests.conv_grid import CONV_GRID
from tests.cuda_emulation.emulation import Case, compile_and_run, run_cases
from tests.tolerance import assert_bounded, assert_exact

TARGET = parse_target("cuda -arch=sm_90")

# A sum in several parts, the last one shorter; tiles over both edges; groups whose channels are no whole tile.
LONG = ConvSpec.of((4, 5, 13, 12), (20, 5, 3, 3), strides=(1, 2), pads=(1, 0, 1, 2))
GROUPS = ConvSpec.of((2, 24, 12, 11), (40, 12, 3, 2), dilations=(2, 1), pads=(2, 0, 2, 1), group=2)
# As in a network: 64 results of a thread, a sum in parts of whole steps.
DEEP = ConvSpec.of((2, 64, 14, 14), (64, 64, 1, 1))
# One channel of the result, of the data; one tap of both; in padded tiles.
ONE = (
    ConvSpec.of((1, 4, 6, 6), (1, 4, 3, 3)),
    ConvSpec.of((1, 1, 6, 6), (8, 1, 1, 1)),
    ConvSpec.of((1, 1, 5), (1, 1, 1)),
)

# The grid in parts, each less than a minute of one core.
PARTS = 6
TYPES = ("float32", "float16", "bfloat16", "float64")

Trial = tuple[ConvSpec, Mapping[str, int]]


def grid(dtype: str) -> list[ConvSpec]:
    """Return the grid's convolutions in the order of a hash, always the same."""
    specs = [replace(r.spec, dtype=dtype) for r in CONV_GRID if not r.spec.transposed]
    return sorted(specs, key=lambda s: hashlib.sha256(f"weight gradient {s.key}".encode()).digest())


def sample() -> list[ConvSpec]:
    """Return one convolution of each kind in the grid, the types by turns."""
    kinds: dict[tuple, ConvSpec] = {}
    for s in grid("float32"):
        uneven = s.pads[: s.rank] != s.pads[s.rank :]
        kind = (s.rank, s.group > 1, max(s.dilations) > 1, max(s.strides) > 1, uneven)
        kinds.setdefault(kind, s)
    return [replace(s, dtype=TYPES[i % 4]) for i, (_, s) in enumerate(sorted(kinds.items()))]


def scheduled(spec: ConvSpec, knobs: Mapping[str, int]):
    func = te.create_prim_func(weight_gradient.compute(spec, knobs))
    return weight_gradient.schedule(func, knobs, TARGET)


def by_default(specs: Sequence[ConvSpec]) -> list[Trial]:
    return [(s, weight_gradient.knobs(s, TARGET)) for s in specs]


def check(trials: Sequence[Trial], *, exact: bool) -> None:
    """Run the trials on the emulated device, in two orders that must agree bit for bit, and compare each result with the oracle."""
    operands = []
    for index, (spec, _) in enumerate(trials):
        rng = np.random.default_rng(index)
        pair = []
        for shape in (spec.data, spec.output):
            values = rng.integers(-4, 5, shape) if exact else rng.normal(size=shape)
            pair.append(values.astype(numpy_dtype(spec.dtype)))
        operands.append(pair)
    cases = [Case(scheduled(*t), tuple(pair)) for t, pair in zip(trials, operands, strict=True)]
    outcomes = run_cases(cases, config=compiler.OPTIONS)
    wrong = []
    for (spec, knobs), (x, dy), outcome in zip(trials, operands, outcomes, strict=True):
        if outcome.error:
            wrong.append(f"{spec.key} {dict(knobs)}: {outcome.error[:600]}")
            continue
        wide_x, wide_dy = x.astype(np.float64), dy.astype(np.float64)
        expected = convolve_weight_grad(wide_x, wide_dy, spec)
        try:
            if exact:
                # Sums are exact in float32; a narrower result is rounded once.
                assert_exact(outcome.outputs[0], expected.astype(x.dtype).astype(np.float64))
            else:
                bound = relative_error("direct", spec, {}) * convolve_weight_grad(np.abs(wide_x), np.abs(wide_dy), spec)  # fmt: skip
                rounding = result_rounding(spec.dtype) * np.abs(expected)
                assert_bounded(outcome.outputs[0], expected, bound + rounding)
        except AssertionError as error:
            wrong.append(f"{spec.key} {dict(knobs)}: {error}")
    assert not wrong, "\n".join(wrong)


def test_a_sample_of_the_grid():
    specs = sample()
    assert {s.rank for s in specs} == {1, 2, 3}
    trials = by_default(specs)
    check(trials, exact=True)
    # Each trial is compiled anew, so of every rank and type.
    some = trials[::3]
    assert {s.rank for s, _ in some} == {1, 2, 3}
    assert {s.dtype for s, _ in some} == set(TYPES)
    check(some, exact=False)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("dtype", TYPES)
def test_the_whole_grid(dtype, part):
    trials = by_default(grid(dtype)[part::PARTS])
    check(trials, exact=True)
    check(trials, exact=False)


def test_tiles_over_edges_groups_and_parts():
    trials = by_default([LONG, replace(GROUPS, dtype="bfloat16"), DEEP, *ONE])
    assert {min(k["split"], 2) for _, k in trials} == {1, 2}
    check(trials, exact=True)


def test_every_overlap_and_parts_of_the_sum_change_nothing():
    trials: list[Trial] = []
    for spec in (LONG, replace(GROUPS, dtype="float16")):
        space = list(weight_gradient.space(spec, TARGET))
        overlaps = dict.fromkeys((k["stages"], k["ahead"]) for k in space)
        for (stages, ahead), split in itertools.product(overlaps, (1, 4)):
            fitting = [
                k for k in space if (k["stages"], k["ahead"], k["split"]) == (stages, ahead, split)
            ]
            trials.append((spec, fitting[len(fitting) // 2]))
    assert {(k["stages"], k["ahead"]) for _, k in trials} == {(1, 0), (1, 1), (2, 0)}
    check(trials, exact=True)


def test_large_groups_are_products_and_depthwise_ones_are_plain_sums():
    dense = ConvSpec.of((32, 64, 56, 56), (64, 64, 3, 3), pads=(1, 1, 1, 1))
    chosen = choose_weight_gradient(dense, TARGET)
    assert [c.algorithm for c in chosen.candidates] == ["direct", "cudnn", "plain"]
    assert chosen.algorithm == "direct"
    depthwise = replace(dense, weight=(64, 1, 3, 3), group=64)
    assert choose_weight_gradient(depthwise, TARGET).algorithm == "plain"
    wide = choose_weight_gradient(replace(dense, dtype="float16"), TARGET, accumulate="float16")
    assert wide.algorithm == "plain"
    assert wide.candidates[0].reason == "accumulate must be float32; got float16"


def test_a_grid_has_room_for_all_parts_and_groups():
    """No launch of more blocks than the third axis of a grid takes."""
    many = ConvSpec.of((8, 4096, 16, 16), (4096, 1, 3, 3), pads=(1, 1, 1, 1), group=4096)
    assert max(k["split"] for k in weight_gradient.space(many, TARGET)) * many.group <= 65535
    more = ConvSpec.of((1, 65536, 3, 3), (65536, 1, 3, 3), group=65536)
    assert choose_weight_gradient(more, TARGET).candidates[0].reason == "groups must be at most 65535; got 65536"  # fmt: skip


def test_an_empty_batch_is_left_to_plain_sums():
    chosen = choose_weight_gradient(ConvSpec.of((0, 4, 6, 6), (8, 4, 3, 3)), TARGET)
    assert chosen.algorithm == "plain"
    assert chosen.candidates[0].reason == "data must not be empty"


def test_a_policy_bounds_them():
    dense = ConvSpec.of((32, 64, 56, 56), (64, 64, 3, 3), pads=(1, 1, 1, 1))
    free = choose_weight_gradient(dense, TARGET)
    needed = weight_gradient.workspace(dense, free.knobs)
    assert needed >= free.knobs["split"] * 4 * 64 * 64 * 9
    bounded = choose_weight_gradient(dense, TARGET, policy=Policy(workspace_limit=needed // 2))
    assert bounded.algorithm == "direct"
    assert weight_gradient.workspace(dense, bounded.knobs) <= needed // 2
    assert bounded.candidates[0].seconds > free.candidates[0].seconds
    none = choose_weight_gradient(dense, TARGET, policy=Policy(workspace_limit=0))
    assert none.candidates[0].knobs["split"] == 1
    groups = choose_weight_gradient(GROUPS, TARGET, policy=Policy(workspace_limit=0))
    assert groups.algorithm == "plain"
    assert groups.candidates[0].reason.startswith("workspace must be at most 0 bytes; got ")
    without = choose_weight_gradient(dense, TARGET, policy=Policy(exclude=("direct",)))
    assert (without.algorithm, without.candidates[0].reason) == ("plain", "excluded by the policy")
    # A list that names no row is about convolutions.
    assert choose_weight_gradient(dense, TARGET, policy=Policy(include=("winograd",))).algorithm == "direct"  # fmt: skip
    only = choose_weight_gradient(dense, TARGET, policy=Policy(include=("direct",)))
    assert only.candidates[1].reason == "excluded by the policy"
    depthwise = replace(dense, weight=(64, 1, 3, 3), group=64)
    required = choose_weight_gradient(depthwise, TARGET, policy=Policy(require=("direct",)))
    assert (required.algorithm, required.reason) == ("direct", "asked for by the policy")


def test_sums_are_found_by_an_index_of_32_bits():
    large = ConvSpec.of((64, 4096, 64, 64), (4096, 4096, 3, 3), pads=(1, 1, 1, 1))
    most = max(k["split"] for k in weight_gradient.space(large, TARGET))
    assert 1 < most * 4096 * 4096 * 9 < 2**31


def test_a_compiled_module_has_them():
    b = GraphBuilder("gradients")
    x, dy = (b.input(n, TensorType(s)) for n, s in (("x", LONG.data), ("dy", LONG.output)))
    attributes = ConvWeightGradAttributes(LONG.kernel, LONG.strides, LONG.pads)
    graph = b.finish({"dw": b.add("conv_weight_grad", [x, dy], attributes, "dw")})
    rng = np.random.default_rng(0)
    data = {n: rng.integers(-4, 5, s).astype(np.float32) for n, s in (("x", LONG.data), ("dy", LONG.output))}  # fmt: skip
    options = {"target": "cuda -arch=sm_90", "algo_for": {"dw": "direct"}}
    outputs, _ = compile_and_run(graph, data, **options)
    assert_exact(outputs["dw"], convolve_weight_grad(data["x"].astype(np.float64), data["dy"].astype(np.float64), LONG))  # fmt: skip


@pytest.mark.skipif(nvcc.find_nvcc() is None, reason="there is no nvcc")
@pytest.mark.parametrize("sm", [90, pytest.param(80, marks=pytest.mark.slow)])
def test_default_kernels_spill_nothing(sm):
    specs = (
        ConvSpec.of((32, 3, 224, 224), (64, 3, 7, 7), strides=(2, 2), pads=(3, 3, 3, 3)),
        ConvSpec.of((32, 256, 14, 14), (256, 256, 3, 3), pads=(1, 1, 1, 1), dtype="float16"),
        ConvSpec.of((1, 512, 7, 7), (2048, 512, 1, 1), dtype="bfloat16"),
    )
    trials = by_default(specs)
    assert {min(k["split"], 2) for _, k in trials} == {1, 2}
    functions = {
        f"k{i}": scheduled(*t).with_attr("global_symbol", f"k{i}") for i, t in enumerate(trials)
    }
    source = compiler.source_of(compiler.build(tvm.IRModule(functions), TARGET))
    found = nvcc.resources(source, sm)
    assert len(found) == sum(min(k["split"], 2) for _, k in trials)
    assert {k: r for k, r in found.items() if r.spill_bytes or r.stack_bytes} == {}
    assert max(r.shared_bytes for r in found.values()) <= 48 << 10
