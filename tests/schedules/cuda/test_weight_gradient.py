"""Weight gradients' CUDA kernels on the emulated device, their choice, and what nvcc makes of them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from convc.ir import ConvSpec, GraphBuilder, TensorType
from convc.ir.ops.conv_weight_grad import ConvWeightGradAttributes, convolve_weight_grad
from convc.schedules.algorithm import Problem
from convc.schedules.cuda import nvcc, weight_gradient, weight_gradient_tensor_core
from convc.schedules.cuda.backend import BACKEND
from convc.schedules.cuda.weight_products import tiles_refusal
from convc.schedules.policy import Policy
from convc.schedules.weight_gradient_choice import choose_weight_gradient
from convc.schedules.weight_gradients import gradient_seconds
from tests.cuda_emulation.emulation import compile_and_run
from tests.schedules.cuda.weight_gradients import (
    DEEP,
    GROUPS,
    LONG,
    ONE,
    PARTS,
    TARGET,
    Trial,
    by_default,
    check,
    grid,
    resources,
    sample,
)
from tests.tolerance import assert_exact

TYPES = ("float32", "float16", "bfloat16", "float64")


def test_a_sample_of_the_grid():
    specs = sample(TYPES, 0)
    assert {s.rank for s in specs} == {1, 2, 3}
    trials = by_default(weight_gradient, specs)
    check(trials, exact=True)
    # Each trial is compiled anew, so of every rank and type.
    some = trials[::3]
    assert {s.rank for _, s, _ in some} == {1, 2, 3}
    assert {s.dtype for _, s, _ in some} == set(TYPES)
    check(some, exact=False)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("dtype", TYPES)
def test_the_whole_grid(dtype, part):
    trials = by_default(weight_gradient, grid(dtype)[part::PARTS])
    check(trials, exact=True)
    check(trials, exact=False)


def test_tiles_over_edges_groups_and_parts():
    trials = by_default(weight_gradient, [LONG, replace(GROUPS, dtype="bfloat16"), DEEP, *ONE])
    assert {min(k["split"], 2) for *_, k in trials} == {1, 2}
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
            trials.append((weight_gradient, spec, fitting[len(fitting) // 2]))
    assert {(k["stages"], k["ahead"]) for *_, k in trials} == {(1, 0), (1, 1), (2, 0)}
    check(trials, exact=True)


def test_large_groups_are_products_and_depthwise_ones_are_sums_of_a_thread():
    dense = ConvSpec.of((32, 64, 56, 56), (64, 64, 3, 3), pads=(1, 1, 1, 1))
    chosen = choose_weight_gradient(dense, TARGET)
    assert [c.algorithm for c in chosen.candidates] == [
        "tensor_core_blocked",
        "tensor_core",
        "direct",
        "grouped",
        "cudnn",
        "plain",
    ]
    assert chosen.algorithm == "tensor_core"
    double = choose_weight_gradient(replace(dense, dtype="float64"), TARGET)
    assert double.algorithm == "direct"
    assert double.candidates[1].reason.startswith("element type must be float32, float16, bfloat16")
    depthwise = replace(dense, weight=(64, 1, 3, 3), group=64)
    assert choose_weight_gradient(depthwise, TARGET).algorithm == "grouped"
    wide = choose_weight_gradient(replace(dense, dtype="float16"), TARGET, accumulate="float16")
    assert wide.algorithm == "plain"
    assert wide.candidates[0].reason == "accumulate must be float32; got float16"


# Microseconds of plain sums on an H200 (2026-11-27): a thread a sum, a warp a sum, a block of threads a sum.
@pytest.mark.parametrize(
    ("data", "weight", "group", "dtype", "measured"),
    [
        ((1, 3, 5, 5), (6, 3, 3, 3), 1, "float32", 2.3),
        ((1, 3, 5, 5), (6, 3, 3, 3), 1, "float16", 3.2),
        ((1, 32, 14, 14), (9, 32, 3, 3), 1, "float32", 4.1),
        ((1, 32, 9, 9), (64, 16, 5, 5), 2, "float16", 18.6),
        ((32, 64, 56, 56), (64, 64, 3, 3), 1, "float16", 9091.0),
        ((32, 512, 7, 7), (512, 512, 3, 3), 1, "float32", 1740.9),
    ],
)
def test_the_model_of_plain_sums_is_what_a_device_took(data, weight, group, dtype, measured):
    spec = ConvSpec.of(data, weight, pads=(weight[-1] // 2,) * 4, group=group, dtype=dtype)
    assert 0.7 < gradient_seconds("plain", spec, {}, TARGET) * 1e6 / measured < 1.4


def test_plain_sums_are_taken_where_they_were_fastest():
    """Two groups of 16 channels and 5x5: 18.6 us in plain sums, 3.8 by blocks; 3x3 of 3 channels, 5 x 5, float32: 2.3, by `direct` 3.9."""
    groups = ConvSpec.of((1, 32, 9, 9), (64, 16, 5, 5), pads=(2, 2, 2, 2), group=2, dtype="float16")
    assert choose_weight_gradient(groups, TARGET).algorithm == "tensor_core_blocked"
    tiny = ConvSpec.of((1, 3, 5, 5), (6, 3, 3, 3), pads=(1, 1, 1, 1))
    assert choose_weight_gradient(tiny, TARGET).algorithm == "plain"


def test_a_grid_has_room_for_all_parts_and_groups():
    """No launch of more blocks than the third axis of a grid takes."""
    many = ConvSpec.of((8, 4096, 16, 16), (4096, 1, 3, 3), pads=(1, 1, 1, 1), group=4096)
    assert max(k["split"] for k in weight_gradient.space(many, TARGET)) * many.group <= 65535
    more = ConvSpec.of((1, 65536, 3, 3), (65536, 1, 3, 3), group=65536)
    assert choose_weight_gradient(more, TARGET).candidates[1].reason == "groups must be at most 65535; got 65536"  # fmt: skip


def test_an_empty_batch_is_left_to_plain_sums():
    chosen = choose_weight_gradient(ConvSpec.of((0, 4, 6, 6), (8, 4, 3, 3)), TARGET)
    assert chosen.algorithm == "plain"
    assert {c.reason for c in chosen.candidates[:3]} == {"data must not be empty"}


def test_a_policy_bounds_them():
    dense = ConvSpec.of((32, 64, 56, 56), (64, 64, 3, 3), pads=(1, 1, 1, 1))
    free = choose_weight_gradient(dense, TARGET)
    for index, row in enumerate((weight_gradient_tensor_core, weight_gradient), 1):
        own = free.candidates[index]
        needed = row.properties(dense, own.knobs).workspace
        assert needed >= own.knobs["split"] * 4 * 64 * 64 * 9
        bounded = choose_weight_gradient(dense, TARGET, policy=Policy(workspace_limit=needed // 2))
        fewer = bounded.candidates[index]
        assert row.properties(dense, fewer.knobs).workspace <= needed // 2
        assert fewer.seconds > own.seconds
        none = choose_weight_gradient(dense, TARGET, policy=Policy(workspace_limit=0))
        assert none.candidates[index].knobs["split"] == 1
        groups = choose_weight_gradient(GROUPS, TARGET, policy=Policy(workspace_limit=0))
        assert groups.algorithm == "plain"
        assert groups.candidates[index].reason.startswith("workspace must be at most 0 bytes; got ")
    without = choose_weight_gradient(dense, TARGET, policy=Policy(exclude=("direct", "tensor_core")))  # fmt: skip
    assert (without.algorithm, without.candidates[2].reason) == ("plain", "excluded by the policy")
    # A list that names no row is about convolutions.
    assert choose_weight_gradient(dense, TARGET, policy=Policy(include=("winograd",))).algorithm == "tensor_core"  # fmt: skip
    only = choose_weight_gradient(dense, TARGET, policy=Policy(include=("direct",)))
    assert only.candidates[1].reason == "excluded by the policy"
    depthwise = replace(dense, weight=(64, 1, 3, 3), group=64)
    required = choose_weight_gradient(depthwise, TARGET, policy=Policy(require=("direct",)))
    assert (required.algorithm, required.reason) == ("direct", "asked for by the policy")


def test_sums_are_found_by_an_index_of_32_bits():
    large = ConvSpec.of((64, 4096, 64, 64), (4096, 4096, 3, 3), pads=(1, 1, 1, 1))
    most = max(k["split"] for k in weight_gradient.space(large, TARGET))
    assert 1 < most * 4096 * 4096 * 9 < 2**31


def test_tensors_are_found_by_an_index_of_32_bits():
    """TVM counts their elements in an int32: 2^31 and more would be read elsewhere, silently."""
    large = ConvSpec.of((64, 64, 1024, 1024), (16, 64, 1, 1))
    reason = "a tensor must have fewer than 2147483648 elements; got 4294967296"
    for spec in (large, ConvSpec.of((16, 16, 1024, 1024), (128, 16, 1, 1))):
        for row in (weight_gradient, weight_gradient_tensor_core):
            refused = row.supports(spec, TARGET)
            assert refused is not None
            assert refused.reason.startswith(
                "a tensor must have fewer than 2147483648 elements; got"
            )
    assert (
        weight_gradient.supports(ConvSpec.of((31, 64, 1024, 1023), (16, 64, 1, 1)), TARGET) is None
    )
    kinds = [
        large,
        replace(large, dtype="float16"),
        ConvSpec.of((64, 64, 1024, 1024), (64, 1, 3, 3), group=64),
    ]
    kinds += [
        ConvSpec.of((64, 64, 1024, 1024), (64, 64, 3, 3)),
        ConvSpec.of((64, 64, 1024, 1024), (64, 16, 2, 2), strides=(2, 2), transposed=True),
    ]
    seen = set()
    for algorithm in BACKEND.algorithms:
        if algorithm.name in ("cudnn", "cutlass"):
            continue  # whose kernels are no TVM's
        refusals = [algorithm.supports(Problem(kind), TARGET) for kind in kinds]
        assert None not in refusals
        seen |= {algorithm.name for r in refusals if r is not None and r.reason == reason}
    assert seen >= {
        "generic",
        "direct",
        "tensor_core",
        "tf32",
        "winograd",
        "fft",
        "depthwise",
        "tensor_core_blocked",
    }


def test_why_no_tile_is_left():
    """Nothing of the sums where the device's memory is what none fits."""
    small = ConvSpec.of((1, 8, 5, 5), (8, 8, 3, 3))
    found = tiles_refusal(small, [], "1 byte")
    assert found is not None
    assert found.reason == "a tile must fit 1 byte; got none that does"
    tile = {"channels": 32768, "pixels": 65536, "step": 8}
    grouped = ConvSpec.of((1, 8, 5, 5), (8, 4, 3, 3), group=2)
    found = tiles_refusal(grouped, [{**tile, "channels": 65536}, tile], "1 byte")
    assert found is not None
    assert found.reason == "sums of tiles must be fewer than 2147483648; got 4294967296"
    assert tiles_refusal(small, [tile], "1 byte") is None


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
    trials = by_default(weight_gradient, specs)
    assert {min(k["split"], 2) for *_, k in trials} == {1, 2}
    found = resources(trials, sm)
    assert {k: r for k, r in found.items() if r.spill_bytes or r.stack_bytes} == {}
    assert max(r.shared_bytes for r in found.values()) <= 48 << 10
