"""Knobs change the speed, never the numbers: random settings of every algorithm on convolutions with tails everywhere."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from convc.ir import ConvSpec, Step
from convc.schedules.register_tile import Tile
from convc.target import parse_target
from tests.schedules.conv_module import Case, ConvModule
from tests.tolerance import assert_bounded, assert_exact, error_bound

TARGET = parse_target(cores=1)
few = settings(deadline=None, max_examples=2, derandomize=True)

CONV = ConvSpec.of((2, 19, 7, 11), (37, 19, 3, 3), pads=(1, 1, 1, 1))
STRIDED = ConvSpec.of((2, 19, 8, 13), (37, 19, 1, 1), strides=(3, 2), pads=(1, 0, 0, 1))
STRIDED_LINE = ConvSpec.of((1, 20, 23), (17, 20, 1), strides=(2,))
GROUPED = ConvSpec.of((1, 64, 5, 7), (128, 32, 1, 1), group=2)
FOURS = ConvSpec.of((2, 20, 5, 13), (20, 4, 3, 3), pads=(1, 1, 1, 1), group=5)
MULTIPLIED = ConvSpec.of((1, 19, 5, 13), (38, 1, 3, 3), pads=(1, 0, 1, 2), strides=(1, 2), group=19)
DEPTHWISE = ConvSpec.of((2, 19, 7, 11), (19, 1, 3, 3), pads=(1, 1, 1, 1), group=19)
UP = ConvSpec.of((2, 19, 4, 5), (19, 37, 4, 4), strides=(2, 2), pads=(1, 1, 1, 1), transposed=True)
FEW = ConvSpec.of((2, 19, 7, 11), (5, 19, 3, 3), pads=(1, 1, 1, 1))
FEW_UP = ConvSpec.of((2, 19, 4, 5), (19, 3, 3, 3), strides=(2, 2), transposed=True)
WIDE = ConvSpec.of(
    (2, 6, 9, 21), (10, 3, 3, 3), group=2, strides=(1, 2), pads=(0, 1, 2, 1), dilations=(2, 1)
)
BLOCKS = st.sampled_from([8, 16])


@st.composite
def tiles(draw, vectors: int = 4):
    """Return a register tile that fits; one that does not would spill, which is slow, not wrong."""
    v = draw(st.integers(1, vectors))
    cols = draw(st.integers(1, 14))
    rows = draw(st.integers(1, 4))
    while not Tile(rows, cols, v).fits(TARGET):
        rows, cols = max(1, rows - 1), max(1, cols - 2)
    return {"rows": rows, "cols": cols, "vectors": v}


@st.composite
def direct(draw) -> Case:
    data = draw(st.sampled_from([1, 4, 8, 16]))
    knobs = {"data_block": data, "block": draw(BLOCKS), **draw(tiles())}
    return Case("direct", CONV, (Step("bias"), Step("add")), tuple(knobs.items()))


@st.composite
def gathered(draw) -> Case:
    """One tap with strides, its data where they are or gathered before; a pad is read like any other point."""
    spec = draw(st.sampled_from([STRIDED, STRIDED_LINE]))
    knobs = {"data_block": draw(BLOCKS), "block": draw(BLOCKS), **draw(tiles()), "gather": draw(st.integers(0, 1))}  # fmt: skip
    if spec is STRIDED_LINE:
        knobs["rows"] = 1
    return Case("direct", spec, (Step("bias"), Step("add")), tuple(knobs.items()))


@st.composite
def grouped(draw) -> Case:
    data, block = draw(st.sampled_from([4, 8, 16, 32])), draw(BLOCKS)
    tile = draw(tiles())
    # A tile's vectors must lie in one group of 64 channels.
    tile["vectors"] = draw(st.sampled_from([1, 2, 4]))
    tile["cols"] = min(tile["cols"], 6)
    return Case("direct", GROUPED, (), (("data_block", data), ("block", block), *tile.items()))


@st.composite
def many_groups(draw) -> Case:
    spec = draw(st.sampled_from([FOURS, MULTIPLIED]))
    # A block of results must read from one block of data.
    blocks = [8, 16] if spec is FOURS else [16]
    block = draw(st.sampled_from(blocks))
    data_block = draw(st.sampled_from([b for b in (8, 16) if spec is MULTIPLIED or b >= block]))
    knobs = {"data_block": data_block, "block": block, "cols": draw(st.integers(1, 13))}
    return Case("grouped", spec, (Step("bias"), Step("add")), tuple(knobs.items()))


@st.composite
def depthwise(draw) -> Case:
    knobs = {
        "block": draw(BLOCKS),
        "rows": draw(st.integers(1, 3)),
        "cols": draw(st.integers(1, 12)),
    }
    return Case("depthwise", DEPTHWISE, (Step("bias"), Step("add")), tuple(knobs.items()))


@st.composite
def subpixel(draw) -> Case:
    knobs = {"data_block": draw(BLOCKS), "block": draw(BLOCKS), **draw(tiles())}
    return Case("subpixel", UP, (Step("bias"), Step("add")), tuple(knobs.items()))


@st.composite
def inner_product(draw) -> Case:
    knobs = {
        "data_block": draw(st.sampled_from([4, 8, 16])),
        "rows": draw(st.integers(1, 3)),
        "cols": draw(st.integers(1, 9)),
        "channels": draw(st.integers(1, 4)),
    }
    spec = draw(st.sampled_from([FEW, FEW_UP]))
    return Case("inner_product", spec, (Step("bias"), Step("add")), tuple(knobs.items()))


@st.composite
def generic(draw) -> Case:
    channels = draw(st.sampled_from([1, 2, 4, 8]))
    spec = draw(st.sampled_from([GROUPED, ConvSpec.of((1, 3, 6, 9), (16, 3, 3, 3))]))
    return Case("generic", spec, (), (("channels", channels),))


@st.composite
def im2col(draw) -> Case:
    spec = draw(st.sampled_from([WIDE, CONV]))
    knobs = {
        "rows": draw(st.integers(1, spec.output[2])),
        "cols": draw(st.integers(1, spec.output[3])),
        "panel": draw(st.integers(0, 1)),
        "channels": draw(st.integers(1, 8)),
        "vectors": draw(st.integers(1, 3)),
        "lanes": TARGET.lanes,
    }
    return Case("im2col", spec, (Step("bias"), Step("add")), tuple(knobs.items()))


@few
@given(
    st.tuples(
        direct(),
        direct(),
        gathered(),
        gathered(),
        grouped(),
        many_groups(),
        depthwise(),
        depthwise(),
        subpixel(),
        inner_product(),
        inner_product(),
        im2col(),
        im2col(),
        generic(),
    )
)
def test_any_knobs_give_the_same_numbers(cases):
    for result in ConvModule(cases, TARGET).run(exact=True):
        assert_exact(result.actual, result.expected)


@settings(few, max_examples=2)
@given(
    st.sampled_from([2, 3, 4, 5, 6]),
    st.sampled_from([1, 2, 3]),
    st.integers(1, 12),
    st.integers(1, 2),
    BLOCKS,
    BLOCKS,
    st.integers(0, 1),
)
def test_any_winograd_knobs_stay_within_the_bound(
    m, divisor, points, vectors, data_block, block, planes
):
    tile_rows = -(-CONV.output[2] // m)
    rows = max(d for d in range(1, divisor + 1) if tile_rows % d == 0)
    knobs = {
        "data_block": data_block,
        "block": block,
        "m": m,
        "rows": rows,
        "points": points,
        "vectors": vectors,
        "planes": planes,
    }
    case = Case("winograd", CONV, (), tuple(knobs.items()))
    (result,) = ConvModule([case], TARGET).run(exact=False)
    bound = error_bound("winograd", result.data, result.weight, CONV, result.knobs)
    assert_bounded(result.actual, result.expected, bound)
