"""Every algorithm's CUDA kernels on the emulated device: the meaning of what runs on a GPU, tested without one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from convc.ir import ConvSpec, Step
from convc.schedules.algorithm import Problem
from convc.schedules.cuda.backend import ALGORITHMS, BACKEND, SCHEDULES
from convc.schedules.cuda.compiler import SHIMS
from tests.conv_grid import CONV_GRID
from tests.schedules.cuda.cuda_convolutions import TARGET, Trial, check, sample, taken
from tests.tolerance import INEXACT

# Libraries have tests of their own, with doubles: tests/cudnn, tests/cutlass.
NAMES = [a.name for a in ALGORITHMS if a.name not in SHIMS and taken(a.name)]
SAMPLE = 10

# The types that an algorithm takes beside float32.
NARROW = [
    ("direct", "float16"),
    ("direct", "float64"),
    ("tensor_core", "float16"),
    ("tensor_core", "bfloat16"),
    ("depthwise_blocked", "float16"),
    ("depthwise_blocked", "bfloat16"),
    ("tensor_core_blocked", "float16"),
    ("tensor_core_blocked", "bfloat16"),
    ("tensor_core_folded", "float16"),
    ("tensor_core_folded", "bfloat16"),
]

# Steps of one tap and several steps; a step of several taps; pixels that lie together, in a padded tile.
TOGETHER = ConvSpec.of((3, 40, 2, 6), (40, 40, 1, 1))
FEW = ConvSpec.of((1, 3, 9, 11), (20, 3, 5, 3), strides=(2, 1), pads=(2, 0, 1, 1))
SEVERAL = ConvSpec.of((2, 64, 7, 6), (48, 64, 3, 3), pads=(1, 1, 1, 1))

# The grid in parts, each less than a minute of one core.
PARTS = 10
GRID = [pytest.param(slice(i, None, PARTS), marks=pytest.mark.slow, id=f"part{i}") for i in range(PARTS)]  # fmt: skip


def test_every_kind_of_convolution_has_an_algorithm_of_its_own():
    specs = [row.spec for row in CONV_GRID]
    forward = [s for s in specs if not s.transposed]
    assert taken("generic") == specs
    assert taken("direct") == forward
    assert taken("depthwise") == [s for s in forward if s.group == s.in_channels]
    assert set(taken("subpixel")) < {s for s in specs if s.transposed and max(s.dilations) == 1}


def test_every_algorithm_has_a_schedule():
    gradients = {f"weight_gradient_{row.NAME}" for row in BACKEND.weight_gradients}
    of_bytes = {row.name for row in BACKEND.quantized}
    names = {*(a.name for a in ALGORITHMS), "dense", "packing", *gradients, *of_bytes}
    assert set(SCHEDULES) == names


@pytest.mark.parametrize("chosen", [pytest.param(slice(SAMPLE), id="sample"), *GRID])
@pytest.mark.parametrize("name", [n for n in NAMES if n not in INEXACT])
def test_whole_numbers_are_exact(name, chosen):
    check(sample(name, len(CONV_GRID))[chosen], exact=True)


@pytest.mark.parametrize("chosen", [pytest.param(slice(SAMPLE), id="sample"), *GRID])
@pytest.mark.parametrize("name", NAMES)
def test_normal_data_stay_within_the_bound(name, chosen):
    check(sample(name, len(CONV_GRID))[chosen], exact=False)


@pytest.mark.parametrize("chosen", [pytest.param(slice(6), id="sample"), *GRID])
@pytest.mark.parametrize(("name", "dtype"), NARROW)
def test_other_float_types(name, dtype, chosen):
    """Whole numbers are exact until they are rounded to the type; normal data within the bound of sums in float32."""
    trials = sample(name, len(CONV_GRID), dtype)[chosen]
    check(trials, exact=True)
    check(trials, exact=False)


@pytest.mark.parametrize("name", ["direct", "tensor_core"])
def test_loads_ahead_of_the_product_change_nothing(name):
    """The overlaps of loads and products that the space has, on steps of one tap and of several, and on vectors."""
    trials = []
    for spec in (SEVERAL, FEW, TOGETHER):
        space = list(BACKEND.algorithm(name).space(Problem(spec), TARGET))
        for overlap in ((1, 0), (1, 1), (2, 0)):
            fitting = [k for k in space if (k["stages"], k["ahead"]) == overlap]
            trials += [Trial(name, spec, knobs=fitting[i * len(fitting) // 2]) for i in range(2)]
    assert {t.knobs["vector"] for t in trials if t.knobs} == {1, 4}
    check(trials, exact=True)


def test_depthwise_of_half_precision_by_every_setting():
    """Rows that are no whole tiles, strides and dilations, channels that fill no block, every epilogue."""
    specs = (
        ConvSpec.of((2, 20, 9, 7), (20, 1, 3, 3), group=20, pads=(1, 1, 1, 1), dtype="float16"),
        ConvSpec.of((1, 8, 11, 9), (8, 1, 5, 3), group=8, strides=(2, 1), pads=(2, 0, 1, 2), dtype="float16"),
        ConvSpec.of((1, 16, 12), (16, 1, 3), group=16, dilations=(2,), pads=(2, 2), dtype="float16"),
    )  # fmt: skip
    epilogues = ((), (Step("bias"), Step("add"), Step("relu")), (Step("bias"), Step("clip", (0.0, 6.0))))  # fmt: skip
    trials = [
        Trial("depthwise_blocked", spec, epilogue, knobs)
        for spec in specs
        for epilogue, knobs in zip(
            epilogues, _apart(BACKEND.algorithm("depthwise_blocked").space(Problem(spec), TARGET), 3), strict=True
        )
    ]  # fmt: skip
    check(trials, exact=True)


def _apart(settings, count: int) -> list:
    """Return so many settings, far from each other."""
    rows = list(settings)
    return [rows[i * (len(rows) - 1) // (count - 1)] for i in range(count)]


def test_rows_of_half_precision_by_every_depth_of_the_pipeline():
    """Epilogues in the order of the sums, channels that fill no block, sums in parts, groups, phases; 2 to 4 steps in shared memory."""
    specs = (
        ConvSpec.of((2, 58, 7, 6), (42, 58, 3, 3), pads=(1, 1, 1, 1), dtype="float16"),
        ConvSpec.of(
            (1, 32, 6, 5),
            (32, 16, 3, 2),
            group=2,
            strides=(2, 1),
            dilations=(1, 2),
            dtype="float16",
        ),
        ConvSpec.of(
            (1, 24, 5, 4), (24, 16, 4, 2), strides=(2, 2), transposed=True, dtype="float16"
        ),
    )
    epilogues = (
        (),
        (Step("bias"), Step("add"), Step("relu")),
        (Step("bias"), Step("clip", (0.0, 6.0)), Step("add")),
    )
    trials = []
    for spec, epilogue, stages in zip(specs, epilogues, (2, 3, 4), strict=True):
        space = BACKEND.algorithm("tensor_core_blocked").space(Problem(spec), TARGET)
        deep = [k for k in space if k["stages"] == stages]
        parts = {k["split"]: k for k in deep if k["split"] in (1, 4)}
        trials += [Trial("tensor_core_blocked", spec, e, k) for k in parts.values() for e in ((), epilogue, epilogues[1])]  # fmt: skip
    assert {t.setting["split"] for t in trials} == {1, 4}
    check(trials, exact=True)


def test_warpgroups_by_every_depth_of_pipeline():
    """One step to nine in shared memory two to five deep; a group, padded tiles, pads that differ, a residual, sums in parts."""
    few = ConvSpec.of((2, 40, 9, 8), (24, 40, 1, 1), dtype="float16")
    many = ConvSpec.of((1, 64, 9, 8), (40, 64, 3, 3), pads=(1, 0, 1, 2), dtype="bfloat16")
    grouped = ConvSpec.of((1, 128, 8, 9), (64, 64, 3, 3), group=2, strides=(1, 2), dtype="float16")
    epilogue = (Step("bias"), Step("add"), Step("relu"))
    trials = []
    for spec in (few, many, grouped):
        space = BACKEND.algorithm("tensor_core_blocked").space(Problem(spec), TARGET)
        groups = [k for k in space if k["group"] == 4 and k["split"] in (1, 2)]
        kinds = {(k["stages"], k["split"], k["pixels"]): k for k in groups if k["pixels"] < 256}
        trials += [Trial("tensor_core_blocked", spec, epilogue, k) for k in kinds.values()]
    assert {t.setting["stages"] for t in trials} == {2, 3, 4, 5}
    assert {t.setting["split"] for t in trials} == {1, 2}
    check(trials, exact=True)


def test_operands_through_a_cache():
    """Sums that take the channels of a step through all taps before the next ones: in parts, of a group, of phases; one tap; by warps."""
    deep = ConvSpec.of((1, 128, 9, 8), (40, 128, 3, 3), strides=(2, 2), pads=(1, 0, 1, 2), dtype="float16")  # fmt: skip
    grouped = ConvSpec.of(
        (1, 256, 8, 9), (64, 128, 3, 3), group=2, strides=(1, 2), dtype="bfloat16"
    )
    phases = ConvSpec.of((1, 128, 5, 4), (128, 16, 4, 2), strides=(2, 2), transposed=True, dtype="float16")  # fmt: skip
    epilogue = (Step("bias"), Step("add"), Step("relu"))
    trials = []
    for spec in (deep, grouped, phases):
        space = BACKEND.algorithm("tensor_core_blocked").space(Problem(spec), TARGET)
        cached = [k for k in space if k.get("cached") and k["split"] in (1, 3) and k["step"] == 64]
        kinds = {(k["group"], k["stages"] > 2, k["split"]): k for k in cached}
        trials += [Trial("tensor_core_blocked", spec, epilogue, k) for k in kinds.values()]
    check(trials, exact=True)
    # Of one tap there is nothing that another one needs again.
    one = ConvSpec.of((2, 136, 9, 8), (24, 136, 1, 1), dtype="float16")
    assert not any(
        "cached" in k for k in BACKEND.algorithm("tensor_core_blocked").space(Problem(one), TARGET)
    )


def test_winograd_by_every_tile():
    """Planes that are no whole tiles, more channels than a tile, pads that differ, filters of one tap on an axis."""
    specs = (
        ConvSpec.of((2, 20, 9, 7), (40, 20, 3, 3), pads=(1, 0, 1, 2)),
        ConvSpec.of((1, 16, 5, 12), (16, 16, 1, 3), pads=(0, 1, 0, 1)),
        ConvSpec.of((1, 8, 8, 8), (16, 8, 2, 3)),
    )
    trials = []
    for spec in specs:
        space = list(BACKEND.algorithm("winograd").space(Problem(spec), TARGET))
        for m in (2, 4):
            fitting = [k for k in space if k["m"] == m]
            chosen = (fitting[0], fitting[len(fitting) // 2])
            trials += [Trial("winograd", spec, knobs=k) for k in chosen]
    check(trials, exact=False)


def test_fft_by_every_kind_of_tile():
    """Tiles over all edges, images in one row of tiles, lines, filters in parts, three and four products, long transforms, depthwise."""
    specs = (
        (ConvSpec.of((2, 5, 11, 9), (6, 5, 5, 3), pads=(1, 2, 0, 1)), 12, 8),
        (ConvSpec.of((1, 18, 40), (20, 18, 7), pads=(3, 3)), 1, 16),
        (ConvSpec.of((1, 2, 3, 90), (3, 2, 1, 70), pads=(0, 9, 0, 9)), 1, 64),
        (ConvSpec.of((1, 3, 20, 33), (2, 3, 13, 13), pads=(6, 6, 6, 6)), 32, 20),
        (ConvSpec.of((2, 6, 17, 23), (6, 1, 5, 7), pads=(2, 3, 2, 3), group=6), 12, 16),
        (ConvSpec.of((1, 2, 9, 40), (2, 1, 3, 31), pads=(1, 15, 1, 15), group=2), 8, 48),
    )
    trials = []
    for spec, t_h, t_w in specs:
        space = list(BACKEND.algorithm("fft").space(Problem(spec), TARGET))
        fitting = [k for k in space if (k["t_h"], k["t_w"]) == (t_h, t_w)]
        by_products = {k.get("products", 0): k for k in fitting}
        trials += [Trial("fft", spec, (Step("bias"), Step("relu")), k) for k in by_products.values()]  # fmt: skip
    assert [t.setting.get("products") for t in trials] == [3, 4] * 4 + [None] * 2
    check(trials, exact=False)


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (Problem(replace(SEVERAL, dtype="float16")), "element type must be float32; got float16"),
        (Problem(FEW), "strides must be 1; got (2, 1)"),
        (Problem(replace(SEVERAL, dilations=(2, 1))), "dilations must be 1; got (2, 1)"),
        (Problem(TOGETHER), "filter must have more than one tap; got (1, 1)"),
        (Problem(ConvSpec.of((1, 8, 9, 9), (8, 4, 3, 3), group=2)), "group must be 1, or as many"),
        (Problem(ConvSpec.of((1, 2, 9, 90), (2, 1, 1, 65), group=2)), "depthwise, the filter must have at most 64 taps"),
    ],
)  # fmt: skip
def test_what_fft_does_not_take_has_a_reason(problem, reason):
    answer = BACKEND.algorithm("fft").supports(problem, TARGET)
    assert answer is not None
    assert answer.reason.startswith(reason)


def test_fft_is_for_large_filters_by_estimate():
    """No device has run it: 3 x 3 stays with what was measured; dense 7 x 7 and more, and the largest depthwise filters, are its own."""

    def best(n: int, channels: int, taps: int, group: int) -> str:
        spec = ConvSpec.of((n, channels, 56, 56), (channels, channels // group, taps, taps), pads=(taps // 2,) * 4, group=group)  # fmt: skip
        problem = Problem(spec)
        own = [a for a in ALGORITHMS if a.name not in ("cudnn", "tf32") and a.supports(problem, TARGET) is None]  # fmt: skip
        return min(own, key=lambda a: a.cycles(problem, TARGET, a.knobs(problem, TARGET))).name

    assert [best(32, 64, taps, 1) for taps in (3, 5, 7, 11)] == ["winograd", "fft", "fft", "fft"]
    assert [best(32, 96, taps, 96) for taps in (3, 7, 31)] == ["depthwise", "depthwise", "fft"]


@pytest.mark.parametrize("name", NAMES)
def test_epilogues_are_part_of_the_kernel(name):
    epilogue = (Step("bias"), Step("add"), Step("relu"))
    check([Trial(name, t.spec, epilogue) for t in sample(name, 3)], exact=True)
