"""Weight gradients on tensor cores from blocks of 8 channels, on the emulated device, and what nvcc makes of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from convc.ir import ConvSpec
from convc.schedules.cuda import nvcc, weight_gradient_blocked
from convc.target import parse_target
from tests.schedules.cuda.weight_gradients import (
    DEEP,
    LONG,
    ONE,
    PARTS,
    TARGET,
    Trial,
    by_default,
    check,
    check_compiled,
    grid,
    ptxas_words,
    sample,
    without_spills,
)

TYPES = ("float16", "bfloat16")
# Two groups of two and three blocks.
GROUPS = ConvSpec.of((2, 32, 7, 6), (48, 16, 3, 2), dilations=(2, 1), pads=(2, 0, 2, 1), group=2, dtype="bfloat16")  # fmt: skip


def taken(specs: list[ConvSpec]) -> list[ConvSpec]:
    return [s for s in specs if weight_gradient_blocked.supports(s, TARGET) is None]


def test_a_sample_of_the_grid():
    """Channels that fill no block, and points that fill no step."""
    specs = taken(sample(TYPES, 1))[::3]
    assert {s.rank for s in specs} == {1, 2, 3}
    trials = by_default(weight_gradient_blocked, specs)
    check(trials, exact=True)
    check(trials[:1], exact=False)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("dtype", TYPES)
def test_the_whole_grid(dtype, part):
    trials = by_default(weight_gradient_blocked, taken(grid(dtype))[part::PARTS])
    check(trials, exact=True)
    check(trials, exact=False)


def test_groups_parts_and_every_depth_of_the_pipeline():
    """Of one channel, one part and several, a step in which nothing is left of the sum; several warps along both sides."""
    long = replace(LONG, dtype="float16")
    trials: list[Trial] = by_default(weight_gradient_blocked, [GROUPS, replace(ONE[1], dtype="float16")])  # fmt: skip
    space = list(weight_gradient_blocked.space(long, TARGET))
    for stages, step, split in ((2, 64, 1), (3, 32, 4), (4, 32, 2)):
        fitting = [k for k in space if (k["stages"], k["step"], k["split"]) == (stages, step, split) and k["pixels"] > k["warp_pixels"] and k["channels"] > k["warp_channels"]]  # fmt: skip
        # A large tile takes g++ 5 s.
        trials.append((weight_gradient_blocked, long, min(fitting, key=lambda k: k["channels"] * k["pixels"])))  # fmt: skip
    check(trials, exact=True)


def test_warpgroups():
    """One along the pixels and two, every depth of the pipeline, groups of channels, a step in which nothing is left of the sum."""
    long, trials = replace(LONG, dtype="bfloat16"), []
    for spec, stages, step, split, pixels in (
        (long, 2, 64, 1, 64), (long, 3, 64, 2, 64), (long, 5, 64, 1, 64), (replace(GROUPS, data=(5, 32, 7, 6)), 2, 128, 1, 128),
    ):  # fmt: skip
        space = weight_gradient_blocked.space(spec, TARGET)
        fitting = [k for k in space if k["group"] == 4 and (k["stages"], k["step"], k["split"], k["pixels"]) == (stages, step, split, pixels)]  # fmt: skip
        trials.append((weight_gradient_blocked, spec, min(fitting, key=lambda k: k["channels"])))
    check(trials, exact=True)


def test_warpgroups_are_offered_for_sm_90_alone():
    """And taken where a device was fastest by them: 3x3, 256 channels, 14 x 14, batch 32, 37 us, by mma.sync 48 (H200, 2026-11-27)."""
    half = replace(DEEP, dtype="float16")
    assert any(k["group"] == 4 for k in weight_gradient_blocked.space(half, TARGET))
    wide = ConvSpec.of((32, 256, 14, 14), (256, 256, 3, 3), pads=(1, 1, 1, 1), dtype="float16")
    assert weight_gradient_blocked.knobs(wide, TARGET)["group"] == 4
    for other in ("cuda -arch=sm_90 -ptx", "cuda -arch=sm_90,sm_80", "cuda -arch=sm_80"):
        space = weight_gradient_blocked.space(half, parse_target(other))
        assert all("group" not in k for k in space)


def test_what_it_does_not_take_has_a_reason():
    half = replace(LONG, dtype="float16")
    old = parse_target("cuda -arch=sm_75")
    for spec, target, reason in (
        (half, old, "sm must be at least 80 for tensor cores; got 75"),
        (LONG, TARGET, "element type must be float16, bfloat16; got float32"),
        (replace(GROUPS, weight=(40, 16, 3, 2)), TARGET, "channels of a group must be multiples of 8; got 16 and 20"),
    ):  # fmt: skip
        refused = weight_gradient_blocked.supports(spec, target)
        assert refused is not None
        assert refused.reason == reason


def test_a_compiled_module_has_it_whatever_the_order_of_its_operands():
    check_compiled(LONG, "tensor_core_blocked")


@pytest.mark.skipif(nvcc.find_nvcc() is None, reason="there is no nvcc")
@pytest.mark.parametrize("sm", [90, pytest.param(80, marks=pytest.mark.slow)])
def test_default_kernels_spill_nothing(sm):
    layers = (
        ConvSpec.of((32, 64, 56, 56), (64, 64, 3, 3), pads=(1, 1, 1, 1), dtype="float16"),
        ConvSpec.of((32, 512, 7, 7), (2048, 512, 1, 1), dtype="bfloat16"),
        ConvSpec.of((8, 256, 28, 28), (256, 8, 3, 3), pads=(1, 1, 1, 1), group=32, dtype="float16"),
    )
    without_spills(weight_gradient_blocked, layers, sm)


@pytest.mark.skipif(nvcc.find_nvcc() is None, reason="there is no nvcc")
def test_products_of_warpgroups_are_not_serialised():
    """ptxas says so where it waits for each instruction instead."""
    spec = ConvSpec.of((32, 256, 14, 14), (256, 256, 3, 3), pads=(1, 1, 1, 1), dtype="float16")
    asked = ({"stages": 2, "step": 128}, {"stages": 4, "step": 64})
    space = [k for k in weight_gradient_blocked.space(spec, TARGET) if k["group"] == 4 and k["pixels"] == k["channels"] == 128]  # fmt: skip
    chosen = [next(k for k in space if a.items() <= k.items()) for a in asked]
    words = ptxas_words([(weight_gradient_blocked, spec, k) for k in chosen])
    assert "serializ" not in words
    found = nvcc.parse_resources(words)
    assert len(found) == 2 * len(chosen)
    assert all(r.spill_bytes == r.stack_bytes == 0 for r in found.values())
