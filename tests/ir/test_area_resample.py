"""Resampling with an open height and width: for every smaller size, the tables and extents of that size's own graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from convc.errors import ShapeError
from convc.ir import Graph, GraphBuilder, TensorType
from convc.ir.area import open_area
from convc.ir.ops.conv import ConvAttributes
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.pool import MaxPoolAttributes
from convc.ir.ops.resample import ResampleAttributes
from convc.ir.ops.shape import ConcatAttributes
from convc.ir.reference import interpret
from convc.ir.resampling import COORDINATES, Rules, table
from tests.ir.test_area import LARGEST, SIZES, run


def resampled(
    b: GraphBuilder, data: str, axis: int, result: int, a: ResampleAttributes, name: str
) -> str:
    extent = b.type(data).shape[axis]
    places, weights = table(a.rules, a.scale, extent, result)
    tables = [b.constant(places), b.constant(weights.astype(np.float32))]
    return b.add("resample", [data, *tables], replace(a, axis=axis), name)


def graph_of(rules: Rules, size: tuple[int, int], scale: float) -> Graph:
    """Half of the data resampled by a scale, or to the extents of the data; beside them their mean, resized from one point."""
    b = GraphBuilder("g")
    x = b.input("x", TensorType((1, 4, *size)))
    w = b.input("w", TensorType((4, 4, 3, 3)))
    half = b.add("conv", [x, w], ConvAttributes(strides=(2, 2), pads=(1, 1, 1, 1)), "half")
    mean = b.add("reduce_mean", [x], ReduceAttributes((2, 3)), "mean")
    a = replace(ResampleAttributes.of(0, rules), scale=scale, like="" if scale else "x")
    # Of the mean every point is the same, whatever the rule: but to as many as the other has.
    wide = replace(
        ResampleAttributes.of(0, Rules("asymmetric", "nearest")), like="y3" if scale else "x"
    )
    parts = []
    for data, attributes, stem in ((half, a, "y"), (mean, wide, "m")):
        for axis in (2, 3):
            extent = b.type(half).shape[axis] if stem == "y" else 0
            if stem == "m":
                extent = b.type("y3").shape[axis]
            else:
                extent = int(extent * scale) if scale else size[axis - 2]
            data = resampled(b, data, axis, extent, attributes, f"{stem}{axis}")
        parts.append(data)
    joined = b.add("concat", parts, ConcatAttributes(1), "joined")
    return b.finish(
        {"y": b.add("max_pool", [joined], MaxPoolAttributes((3, 3), (1, 1), (1, 1, 1, 1)), "y")}
    )


RULES = [
    *(Rules(c, "linear") for c in COORDINATES if c != "tf_crop_and_resize"),
    Rules("half_pixel", "cubic"),
    Rules("half_pixel", "cubic", exclude_outside=True),
    Rules("align_corners", "cubic", cubic=-0.5),
    Rules("half_pixel", "linear", antialias=True),
    Rules("half_pixel", "nearest", "round_prefer_floor"),
    Rules("asymmetric", "nearest", "floor"),
]


@pytest.mark.parametrize("scale", [0.0, 0.4, 1.5, 2.0])
@pytest.mark.parametrize("rules", RULES, ids=str)
def test_every_size_is_its_own_graph(rules: Rules, scale: float) -> None:
    opened = open_area(graph_of(rules, LARGEST, scale), ["x"])
    assert len(opened.taps) == 4
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, 4, 3, 3))}
    for size in SIZES:
        x = rng.uniform(-2.0, 2.0, (1, 4, *size))
        expected = interpret(graph_of(rules, size, scale), {"x": x, **weights})["y"]
        # The graph's own tables are float32.
        np.testing.assert_allclose(run(opened, x, weights), expected, rtol=1e-5, atol=1e-5, err_msg=str(size))  # fmt: skip


def test_what_is_always_resized_to_one_size_is_open_no_more() -> None:
    b = GraphBuilder("g")
    x = b.input("x", TensorType((1, 4, *LARGEST)))
    for axis in (2, 3):
        x = resampled(
            b, x, axis, 6, ResampleAttributes.of(0, Rules("half_pixel", "linear")), f"r{axis}"
        )
    opened = open_area(b.finish({"y": x}), ["x"])
    assert "r2" in opened.values
    assert "r3" not in opened.values
    image = np.random.default_rng(0).normal(size=(1, 4, 7, 9))
    y = run(opened, image, {})
    assert y.shape == (1, 4, 6, 6)
    rows, cols = (table(Rules("half_pixel", "linear"), 0.0, n, 6) for n in (7, 9))
    between = [
        sum(image[:, :, p] * w for p, w in zip(*row, strict=True))
        for row in zip(*rows, strict=True)
    ]
    expected = [
        sum(np.stack(between, 2)[..., p] * w for p, w in zip(*col, strict=True))
        for col in zip(*cols, strict=True)
    ]
    np.testing.assert_allclose(y, np.stack(expected, 3), rtol=1e-6)


def test_a_resampling_without_a_rule_is_refused() -> None:
    b = GraphBuilder("g")
    x = b.input("x", TensorType((1, 4, *LARGEST)))
    tables = [b.constant(np.zeros((5, 1), np.int32)), b.constant(np.ones((5, 1), np.float32))]
    y = b.add("resample", [x, *tables], ResampleAttributes(2), "y")
    with pytest.raises(ShapeError, match=r"%y .* does not follow from one height or width"):
        open_area(b.finish({"y": y}), ["x"])


def resized_like(extents: tuple[int, ...], axis: int = 2) -> Graph:
    """One axis resized to what `extents` gives for the data's own."""
    b = GraphBuilder("g")
    x = b.input("x", TensorType((1, 4, *LARGEST)))
    a = replace(ResampleAttributes.of(axis, RULES[0]), like="x", extents=extents)
    return b.finish({"y": resampled(b, x, axis, extents[-1], a, "y")})


def test_a_size_for_which_nothing_is_left_is_below_the_least() -> None:
    opened = open_area(resized_like(tuple(n - 3 for n in range(1, LARGEST[0] + 1))), ["x"])
    assert opened.least == (4, 1)
    assert opened.values["y"].rows[:5] == (0, 0, 0, 1, 2)


def test_a_result_that_is_larger_for_a_smaller_size_is_refused() -> None:
    n = LARGEST[0]
    with pytest.raises(ShapeError, match=rf"%y .* has 2 points along axis 2 .* and {n} for a smaller one"):  # fmt: skip
        open_area(resized_like((*range(2, n + 1), 2)), ["x"])
