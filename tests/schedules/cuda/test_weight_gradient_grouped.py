"""Weight gradients of depthwise convolutions and small groups on the emulated device, their choice, and what nvcc makes of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from convc.ir import ConvSpec
from convc.schedules.cuda import nvcc, weight_gradient_grouped
from convc.schedules.policy import Policy
from convc.schedules.weight_gradient_choice import choose_weight_gradient
from tests.schedules.cuda.weight_gradients import (
    PARTS,
    TARGET,
    Trial,
    by_default,
    check,
    check_compiled,
    grid,
    without_spills,
)

TYPES = ("float32", "float16", "bfloat16", "float64")
# Of mobile networks, more columns than a block has threads.
DEPTHWISE = ConvSpec.of((2, 12, 16, 14), (12, 1, 3, 3), pads=(1, 1, 1, 1), group=12)
STRIDED = ConvSpec.of((2, 16, 17, 16), (16, 1, 5, 5), strides=(2, 2), pads=(2, 1, 2, 2), group=16)
# Groups of four in blocks of eight, the last block half full; of four filters and two channels; of one channel and three filters.
QUADS = ConvSpec.of((2, 12, 8, 8), (12, 4, 3, 3), pads=(1, 1, 1, 1), group=3)
UNEVEN = ConvSpec.of((2, 6, 9, 8), (12, 2, 3, 2), dilations=(2, 1), group=3)
MULTIPLIER = ConvSpec.of((1, 5, 20), (15, 1, 4), strides=(2,), dilations=(2,), pads=(3, 2), group=5)
SOLID = ConvSpec.of((1, 10, 4, 6, 5), (10, 1, 3, 2, 3), pads=(1, 0, 1, 1, 1, 1), group=10)
# Taps that no thread holds: rows of a filter in tiles of their own, the last one shorter.
WIDE = ConvSpec.of((1, 8, 4, 21), (8, 1, 2, 17), pads=(0, 8, 1, 8), group=8)


def taken(dtype: str) -> list[ConvSpec]:
    return [s for s in grid(dtype) if weight_gradient_grouped.supports(s, TARGET) is None]


def one_of(spec: ConvSpec, **asked: int) -> Trial:
    space = weight_gradient_grouped.space(spec, TARGET)
    return weight_gradient_grouped, spec, next(k for k in space if asked.items() <= k.items())


def test_groups_of_every_kind():
    """Of every rank and type, by plain memory and by blocks."""
    kinds = (DEPTHWISE, STRIDED, QUADS, UNEVEN, MULTIPLIER, SOLID, WIDE)
    trials = by_default(weight_gradient_grouped, [replace(s, dtype=TYPES[i % 4]) for i, s in enumerate(kinds)])  # fmt: skip
    trials += by_default(weight_gradient_grouped, [replace(s, dtype=d) for s, d in ((DEPTHWISE, "bfloat16"), (QUADS, "float16"), (WIDE, "float16"), (SOLID, "bfloat16"))])  # fmt: skip
    assert {k["block"] for *_, k in trials} == {0, 8}
    assert any(k["tap_rows"] < s.kernel[-2] or k["tap_columns"] < s.kernel[-1] for _, s, k in trials if s.rank > 1)  # fmt: skip
    check(trials, exact=True)
    check(trials[::3], exact=False)


def test_parts_columns_of_several_points_and_tiles_of_taps():
    half, full = replace(DEPTHWISE, dtype="float16"), DEPTHWISE
    trials = [
        one_of(half, rows=4, tap_rows=2, threads=64, split=1),
        one_of(half, rows=1, tap_rows=3, threads=128, split=2),
        one_of(full, rows=2, tap_rows=3, threads=64, split=2),
        one_of(full, rows=1, tap_rows=1, tap_columns=2, threads=256, split=1),
        one_of(replace(STRIDED, dtype="float16"), rows=1, tap_rows=1, tap_columns=3, threads=64),
    ]
    check(trials, exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("dtype", TYPES)
def test_the_whole_grid(dtype, part):
    trials = by_default(weight_gradient_grouped, taken(dtype)[part::PARTS])
    check(trials, exact=True)
    check(trials, exact=False)


def test_what_it_does_not_take_has_a_reason():
    for spec, reason in (
        (ConvSpec.of((1, 8, 5, 5), (8, 8, 3, 3)), "groups must be several; got 1"),
        (ConvSpec.of((1, 32, 5, 5), (32, 16, 3, 3), group=2), "sums of one tap must be at most 96; got 256"),
        (replace(DEPTHWISE, data=(0, 12, 16, 14)), "data must not be empty"),
    ):  # fmt: skip
        refused = weight_gradient_grouped.supports(spec, TARGET)
        assert refused is not None
        assert refused.reason == reason


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_depthwise_gradients_are_taken_from_it(dtype):
    layer = ConvSpec.of((32, 144, 56, 56), (144, 1, 3, 3), pads=(1, 1, 1, 1), group=144, dtype=dtype)  # fmt: skip
    chosen = choose_weight_gradient(layer, TARGET)
    assert chosen.algorithm == "grouped"
    needed = weight_gradient_grouped.properties(layer, chosen.knobs).workspace
    bounded = choose_weight_gradient(layer, TARGET, policy=Policy(workspace_limit=needed // 4))
    assert bounded.algorithm == "grouped"
    assert bounded.knobs["split"] < chosen.knobs["split"]


def test_a_compiled_module_has_it_whatever_the_order_of_its_operands():
    check_compiled(QUADS, "grouped")


@pytest.mark.skipif(nvcc.find_nvcc() is None, reason="there is no nvcc")
@pytest.mark.parametrize("sm", [90, pytest.param(80, marks=pytest.mark.slow)])
def test_default_kernels_spill_nothing(sm):
    layers = (
        ConvSpec.of((32, 144, 56, 56), (144, 1, 3, 3), pads=(1, 1, 1, 1), group=144, dtype="float16"),
        ConvSpec.of((32, 960, 7, 7), (960, 1, 3, 3), pads=(1, 1, 1, 1), group=960),
        ConvSpec.of((32, 96, 56, 56), (96, 1, 7, 7), pads=(3, 3, 3, 3), group=96, dtype="bfloat16"),
        ConvSpec.of((32, 128, 56, 56), (128, 4, 3, 3), pads=(1, 1, 1, 1), group=32, dtype="float16"),
    )  # fmt: skip
    found = without_spills(weight_gradient_grouped, layers, sm)
    assert max(r.shared_bytes for r in found.values()) <= 48 << 10
