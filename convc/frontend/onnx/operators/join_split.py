"""Concat, Slice, Split, Pad, Expand: operators that join, cut or repeat along axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from convc.errors import InvalidModelError, ShapeError
from convc.frontend.onnx.converter import Converter, Result
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.operators.gather import take
from convc.frontend.onnx.operators.reshape import normalized_axes
from convc.frontend.onnx.refusal import Unsupported
from convc.ir.ops.shape import (
    ConcatAttributes,
    PadAttributes,
    ReshapeAttributes,
    ResizeAttributes,
    SliceAttributes,
)

__all__ = ["ROWS"]


def concat(node: OperatorNode) -> str:
    """Write Concat."""
    (axis,) = normalized_axes(node, (node.attributes.integer("axis"),), node.type().rank)
    return node.emit(
        "concat", [node.value(i) for i in range(len(node.inputs))], ConcatAttributes(axis)
    )


def slice_(node: OperatorNode) -> str:
    """Write Slice: operands as attributes (Slice-1) or inputs (Slice-10 on), out-of-range bounds cut to the data."""
    shape = node.type().shape
    steps: tuple[int, ...] | None = None
    if node.version < 10:
        a = node.attributes
        starts, ends = a.integers("starts"), a.integers("ends")
        axes = a.integers("axes", tuple(range(len(starts))))
    else:
        starts, ends = node.constant_integers(1), node.constant_integers(2)
        axes = node.constant_integers(3) if node.has(3) else tuple(range(len(starts)))
        steps = node.constant_integers(4) if node.has(4) else None
    steps = steps or (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise InvalidModelError(
            f"Slice must have one start, end and step per axis; got {starts}, {ends}, {axes}, {steps}."
        )
    if 0 in steps:
        raise InvalidModelError(f"Slice steps must not be 0; got {list(steps)}.")
    x = node.value()
    begins, stops, strides = [0] * len(shape), list(shape), [1] * len(shape)
    for axis, start, end, step in zip(
        normalized_axes(node, axes, len(shape)), starts, ends, steps, strict=True
    ):
        n = shape[axis]
        if step < 0:
            first, stop = (v + n if v < 0 else v for v in (start, max(end, -n - 1)))
            places = np.arange(min(max(first, -1), n - 1), min(max(stop, -1), n - 1), step)
            x = take(node, x, places, axis)
            stops[axis] = len(places)
            continue
        begin = min(max(start + n if start < 0 else start, 0), n)
        stop = min(max(end + n if end < 0 else end, 0), n)
        begins[axis], stops[axis], strides[axis] = begin, max(begin, stop), step
    attributes = SliceAttributes(tuple(begins), tuple(stops), tuple(strides))
    return node.emit("slice", [x], attributes)


def _split_sizes(node: OperatorNode, extent: int) -> tuple[int, ...]:
    if node.version < 13 and "split" in node.attributes:
        return node.attributes.integers("split")
    if node.version >= 13 and node.has(1):
        return node.constant_integers(1)
    count = len(node.outputs)
    if node.version >= 18:
        count = node.attributes.integer("num_outputs", count)
        size = -(-extent // count)  # the last one may be smaller
        return tuple(max(0, min(size, extent - i * size)) for i in range(count))
    if extent % count:
        raise InvalidModelError(
            f"Split must divide the extent equally; got {extent} in {count} outputs for {node.type()}."
        )
    return (extent // count,) * count


def split(node: OperatorNode) -> tuple[str, ...]:
    """Write Split: one slice per output."""
    shape = node.type().shape
    (axis,) = normalized_axes(node, (node.attributes.integer("axis", 0),), len(shape))
    sizes = _split_sizes(node, shape[axis])
    if sum(sizes) != shape[axis] or len(sizes) != len(node.outputs):
        raise InvalidModelError(
            f"Split must have sizes of {len(node.outputs)} outputs that add up to {shape[axis]}; got {list(sizes)}."
        )
    results, begin = [], 0
    for index, size in enumerate(sizes):
        begins = tuple(begin if i == axis else 0 for i in range(len(shape)))
        ends = tuple(begin + size if i == axis else n for i, n in enumerate(shape))
        attributes = SliceAttributes(begins, ends, (1,) * len(shape))
        results.append(node.emit("slice", [node.value()], attributes, index))
        begin += size
    return tuple(results)


def _read_pads(node: OperatorNode) -> tuple[tuple[int, ...], float]:
    """Return pads for all axes, begins then ends, and the value."""
    rank, a = node.type().rank, node.attributes
    if node.version < 11:
        return a.integers("pads"), a.real("value", 0.0)
    given = node.constant_integers(1)
    value = float(node.constant_scalar(2)) if node.has(2) else 0.0
    if node.version >= 18 and node.has(3):
        axes = normalized_axes(node, node.constant_integers(3), rank)
    else:
        axes = tuple(range(rank))
    if len(given) != 2 * len(axes):
        raise InvalidModelError(
            f"Pad pads must have two values per axis, {2 * len(axes)}; got {list(given)}."
        )
    pads = [0] * (2 * rank)
    for i, axis in enumerate(axes):
        pads[axis], pads[rank + axis] = given[i], given[len(axes) + i]
    return tuple(pads), value


# (padded coordinates, extent) -> places in the data
_PLACES: Final[dict[str, Callable[[np.ndarray, int], np.ndarray]]] = {
    "edge": lambda i, n: np.clip(i, 0, n - 1),
    "wrap": lambda i, n: np.mod(i, n),
    "reflect": lambda i, n: n - 1 - np.abs(np.mod(i, 2 * (n - 1)) - (n - 1)) if n > 1 else 0 * i,
}


def pad(node: OperatorNode) -> str:
    """Write Pad; negative pads cut, so they become a slice, and a mode that repeats elements is a gather along each axis."""
    mode = node.attributes.text("mode", "constant", ("constant", *_PLACES))
    pads, value = _read_pads(node)
    rank = node.type().rank
    if mode == "constant" or not any(pads):
        return _pad_constant(node, pads, value)
    x = node.value()
    for axis, extent in enumerate(node.type().shape):
        before, after = pads[axis], pads[rank + axis]
        if (before or after) and extent:
            places = _PLACES[mode](np.arange(-before, extent + after), extent)
            x = take(node, x, places, axis)
    return x


def _pad_constant(node: OperatorNode, pads: tuple[int, ...], value: float) -> str:
    shape, x = node.type().shape, node.value()
    rank = len(shape)
    if len(pads) != 2 * rank:
        raise InvalidModelError(f"Pad pads must have {2 * rank} values; got {list(pads)}.")
    if min(pads, default=0) >= 0:
        return node.emit("pad", [x], PadAttributes(pads, value))
    begins = tuple(max(0, -p) for p in pads[:rank])
    ends = tuple(n - max(0, -p) for n, p in zip(shape, pads[rank:], strict=True))
    if any(b > e for b, e in zip(begins, ends, strict=True)):
        raise ShapeError(
            f"Pad must not cut more than there is; got {list(pads)} for {node.type()}."
        )
    cut = SliceAttributes(begins, ends, (1,) * rank)
    if max(pads) <= 0:
        return node.emit("slice", [x], cut)
    grown = PadAttributes(tuple(max(0, p) for p in pads), value)
    return node.emit("pad", [node.step("slice", [x], cut)], grown)


def expand(node: OperatorNode) -> Result:
    """Write Expand: a constant is repeated by strides of 0; at run time extents of 1 are repeated by resize."""
    wanted, data = node.constant_integers(1), node.type()
    try:
        shape = tuple(map(int, np.broadcast_shapes(data.shape, wanted)))
    except ValueError:
        raise ShapeError(f"Expand must broadcast {data} to {list(wanted)}; it does not.") from None
    if node.is_constant(0):
        return np.broadcast_to(node.constant(0), shape)
    x = node.value()
    if shape == data.shape:
        return x
    aligned = (*(1,) * (len(shape) - data.rank), *data.shape)
    if len(aligned) > data.rank:
        x = node.step("reshape", [x], ReshapeAttributes(aligned))
    if 0 in shape:
        raise Unsupported(f"expands to the empty shape {list(shape)}")
    factors = tuple(n // m for n, m in zip(shape, aligned, strict=True))
    return node.emit("resize", [x], ResizeAttributes(factors)) if shape != aligned else x


ROWS: Final = (
    Converter("Concat", (4, 11, 13), concat, folds=True),
    Converter("Slice", (1, 10, 11, 13), slice_, "constant bounds", folds=True),
    Converter("Split", (2, 11, 13, 18), split, "constant sizes", folds=True),
    Converter("Pad", (2, 11, 13, 18, 19, 21, 23, 24, 25), pad, "constant pads", folds=True),
    Converter("Expand", (8, 13), expand, "constant shape"),
)
