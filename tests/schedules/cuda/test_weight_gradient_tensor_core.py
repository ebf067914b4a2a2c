"""Weight gradients on tensor cores on the emulated device, and what nvcc makes of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from convc.ir import ConvSpec
from convc.schedules.cuda import nvcc, weight_gradient_tensor_core
from convc.schedules.weight_gradient_choice import choose_weight_gradient
from convc.target import parse_target
from tests.schedules.cuda.weight_gradients import (
    GROUPS,
    LONG,
    ONE,
    PARTS,
    TARGET,
    Trial,
    by_default,
    check,
    grid,
    sample,
    without_spills,
)

TYPES = ("float32", "float16", "bfloat16")


def test_a_sample_of_the_grid():
    """Every other kind that the float units' test leaves out: both look up the same operands."""
    trials = by_default(weight_gradient_tensor_core, sample(TYPES, 1)[::2])
    assert {s.rank for _, s, _ in trials} == {1, 2, 3}
    assert {s.dtype for _, s, _ in trials} == set(TYPES)
    check(trials, exact=True)
    check(trials[:2], exact=False)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("dtype", TYPES)
def test_the_whole_grid(dtype, part):
    trials = by_default(weight_gradient_tensor_core, grid(dtype)[part::PARTS])
    check(trials, exact=True)
    check(trials, exact=False)


def test_tiles_over_edges_groups_and_parts_by_every_overlap():
    """Sums in one part and in several, groups that fill no tile, two steps in shared memory and loads that wait in registers."""
    trials: list[Trial] = by_default(weight_gradient_tensor_core, [ONE[0], ONE[2]])
    for spec, overlap, split in (
        (LONG, (1, 0), 1),
        (LONG, (1, 1), 4),
        (replace(LONG, dtype="float16"), (1, 0), 4),
        (replace(GROUPS, dtype="bfloat16"), (1, 1), 1),
    ):
        space = weight_gradient_tensor_core.space(spec, TARGET)
        fitting = [k for k in space if (k["stages"], k["ahead"], k["split"]) == (*overlap, split)]
        # A large tile takes g++ 5 s.
        small = min(fitting, key=lambda k: k["channels"] * k["pixels"] * k["step"])
        trials.append((weight_gradient_tensor_core, spec, small))
    assert {(k["stages"], k["ahead"]) for *_, k in trials} == {(1, 0), (1, 1), (2, 0)}
    check(trials, exact=True)


def test_what_has_no_tensor_cores_has_a_reason():
    old = parse_target("cuda -arch=sm_75")
    assert choose_weight_gradient(LONG, old).candidates[1].reason == "sm must be at least 80 for tensor cores; got 75"  # fmt: skip


@pytest.mark.skipif(nvcc.find_nvcc() is None, reason="there is no nvcc")
@pytest.mark.parametrize("sm", [80, pytest.param(90, marks=pytest.mark.slow)])
def test_default_kernels_spill_nothing(sm):
    layers = (
        ConvSpec.of((32, 64, 56, 56), (64, 64, 3, 3), pads=(1, 1, 1, 1)),
        ConvSpec.of((32, 64, 56, 56), (64, 64, 3, 3), pads=(1, 1, 1, 1), dtype="float16"),
        ConvSpec.of((32, 3, 224, 224), (64, 3, 7, 7), strides=(2, 2), pads=(3,) * 4, dtype="bfloat16"),
        ConvSpec.of((32, 512, 7, 7), (512, 512, 3, 3), pads=(1, 1, 1, 1), dtype="bfloat16"),
        ConvSpec.of((8, 256, 28, 28), (256, 8, 3, 3), pads=(1, 1, 1, 1), group=32, dtype="float16"),
    )  # fmt: skip
    found = without_spills(weight_gradient_tensor_core, layers, sm)
    assert max(r.shared_bytes for r in found.values()) <= 48 << 10
