"""Operators that read or write at places which are data, and what is made of them: OneHot, ReverseSequence, Trilu ..."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from convc.errors import InvalidModelError
from convc.frontend.onnx.converter import Converter, Result
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.operators.reshape import normalized_axes
from convc.frontend.onnx.refusal import Unsupported
from convc.ir.ops.gather import BatchAttributes, ScatterAttributes, ScatterNDAttributes
from convc.ir.ops.linear import AxisAttributes
from convc.ir.ops.shape import ReshapeAttributes, ResizeAttributes, SliceAttributes

__all__ = ["ROWS", "take"]

REDUCTIONS: Final = ("none", "add", "mul", "max", "min")


def take(node: OperatorNode, value: str, places: np.ndarray, axis: int) -> str:
    """Return the elements of `value` at constant places along an axis; a slice where they follow each other."""
    shape = node.step_type(value).shape
    rank, count = len(shape), len(places)
    if count and np.array_equal(places, np.arange(places[0], places[0] + count)):
        if count == shape[axis]:
            return value
        begins = tuple(int(places[0]) if i == axis else 0 for i in range(rank))
        ends = tuple(int(places[0]) + count if i == axis else n for i, n in enumerate(shape))
        return node.step("slice", [value], SliceAttributes(begins, ends, (1,) * rank))
    index = node.literal(places, "int64", "places")
    return node.step("gather", [value, index], AxisAttributes(axis))


def _axis(node: OperatorNode, default: int | None, operand: int = 0) -> int:
    rank = node.type(operand).rank
    (axis,) = normalized_axes(node, (node.attributes.integer("axis", default),), rank)
    return axis


def gather(node: OperatorNode) -> str:
    """Write Gather; constant places that follow each other are a slice."""
    axis = _axis(node, 0)
    if node.is_constant(1) and node.type(1).size == 1 and node.type(1).rank <= 1:
        extent = node.type().shape[axis]
        place = int(node.constant(1).reshape(-1)[0])
        place += extent if place < 0 else 0
        if not 0 <= place < extent:
            raise InvalidModelError(
                f"Gather indices must be in [{-extent}, {extent}); got {place} for {node.type()}."
            )
        cut = take(node, node.value(), np.array([place]), axis)
        shape = node.type().shape
        wanted = (*shape[:axis], *node.type(1).shape, *shape[axis + 1 :])
        return node.emit("reshape", [cut], ReshapeAttributes(wanted))
    return node.emit("gather", [node.value(0), node.value(1)], AxisAttributes(axis))


def gather_elements(node: OperatorNode) -> str:
    """Write GatherElements."""
    attributes = AxisAttributes(_axis(node, 0))
    return node.emit("gather_elements", [node.value(0), node.value(1)], attributes)


def gather_nd(node: OperatorNode) -> str:
    """Write GatherND."""
    attributes = BatchAttributes(node.attributes.integer("batch_dims", 0))
    return node.emit("gather_nd", [node.value(0), node.value(1)], attributes)


def scatter_elements(node: OperatorNode) -> str:
    """Write ScatterElements, and Scatter, its old name."""
    reduction = node.attributes.text("reduction", "none", REDUCTIONS)
    operands = [node.value(i) for i in range(3)]
    return node.emit("scatter_elements", operands, ScatterAttributes(_axis(node, 0), reduction))


def scatter_nd(node: OperatorNode) -> str:
    """Write ScatterND."""
    reduction = node.attributes.text("reduction", "none", REDUCTIONS)
    operands = [node.value(i) for i in range(3)]
    return node.emit("scatter_nd", operands, ScatterNDAttributes(reduction))


def one_hot(node: OperatorNode) -> str:
    """Write OneHot: on where the class is the index, off elsewhere; a negative index counts from the end."""
    depth = int(node.constant_scalar(1))
    rank = node.type(0).rank + 1
    (axis,) = normalized_axes(node, (node.attributes.integer("axis", -1),), rank)
    indices = node.cast(node.value(0), "int64")
    shape = list(node.type(0).shape)
    shape.insert(axis, 1)
    column = node.step("reshape", [indices], ReshapeAttributes(tuple(shape)))
    zero, count = node.literal(0, "int64", "zero"), node.literal(depth, "int64", "depth")
    wrapped = node.step(
        "where", [node.step("less", [column, zero]), node.step("add", [column, count]), column]
    )
    along = [1] * rank
    along[axis] = depth
    classes = node.literal(np.arange(depth).reshape(along), "int64", "classes")
    values = node.value(2)
    off, on = (
        node.step("reshape", [take(node, values, np.array([i]), 0)], ReshapeAttributes(()))
        for i in (0, 1)
    )
    return node.emit("where", [node.step("equal", [wrapped, classes]), on, off])


def reverse_sequence(node: OperatorNode) -> str:
    """Write ReverseSequence: place t of a sequence of n is its place n - 1 - t, and t itself beyond it."""
    a, shape = node.attributes, node.type().shape
    time, batch = a.integer("time_axis", 0), a.integer("batch_axis", 1)
    if {time, batch} != {0, 1} or len(shape) < 2:
        raise InvalidModelError(
            f"ReverseSequence time_axis and batch_axis must be 0 and 1; got {time} and {batch} for {node.type()}."
        )
    steps, count = shape[time], shape[batch]
    t = np.arange(steps).reshape((steps, 1) if time == 0 else (1, steps))
    lengths = node.step(
        "reshape",
        [node.cast(node.value(1), "int64")],
        ReshapeAttributes((1, count) if time == 0 else (count, 1)),
    )
    clock = node.literal(t, "int64", "clock")
    one = node.literal(1, "int64", "one")
    mirrored = node.step("sub", [node.step("sub", [lengths, one]), clock])
    inside = node.step("less", [clock, lengths])
    places = node.step("where", [inside, mirrored, clock])
    rest = (1,) * (len(shape) - 2)
    index = node.step(
        "reshape", [places], ReshapeAttributes((*node.step_type(places).shape, *rest))
    )
    if math.prod(shape[2:]) > 1:
        index = node.step("resize", [index], ResizeAttributes((1, 1, *shape[2:])))
    return node.emit("gather_elements", [node.value(), index], AxisAttributes(time))


def trilu(node: OperatorNode) -> str:
    """Write Trilu: the triangle from diagonal k, 0 elsewhere."""
    upper = node.attributes.flag("upper", True)
    k = int(node.constant_scalar(1)) if node.has(1) else 0
    if node.type().rank < 2:
        raise InvalidModelError(f"Trilu data must be matrices; got {node.type()}.")
    rows, columns = node.type().shape[-2:]
    offset = np.arange(columns)[None, :] - np.arange(rows)[:, None]
    mask = node.literal(offset >= k if upper else offset <= k, "bool", "triangle")
    zero = node.literal(0, node.type().dtype, "zero")
    return node.emit("where", [mask, node.value(), zero])


def eye_like(node: OperatorNode) -> Result:
    """Return the constant matrix with ones on diagonal k."""
    from convc.frontend.onnx.input_shapes import element_type

    a, data = node.attributes, node.type()
    dtype = element_type(a.integer("dtype"), "EyeLike") if "dtype" in a else data.dtype
    if data.rank != 2:
        raise InvalidModelError(f"EyeLike data must be a matrix; got {data}.")
    return np.eye(data.shape[0], data.shape[1], a.integer("k", 0)).astype(dtype)


def tile(node: OperatorNode) -> str:
    """Write Tile: an axis of 1 in front of each repeated one is enlarged, then joined with it."""
    repeats, shape = node.constant_integers(1), node.type().shape
    if len(repeats) != len(shape) or min(repeats, default=0) < 0:
        raise InvalidModelError(
            f"Tile repeats must be one count per axis of {node.type()}; got {list(repeats)}."
        )
    if 0 in repeats:
        raise Unsupported(f"repeats {list(repeats)} (an empty result)")
    split = tuple(n for extent in shape for n in (1, extent))
    factors = tuple(n for count in repeats for n in (count, 1))
    parts = node.step("reshape", [node.value()], ReshapeAttributes(split))
    grown = node.step("resize", [parts], ResizeAttributes(factors))
    joined = tuple(n * r for n, r in zip(shape, repeats, strict=True))
    return node.emit("reshape", [grown], ReshapeAttributes(joined))


def tensor_scatter(node: OperatorNode) -> str:
    """Write TensorScatter: each sequence's update is written from its own place on, in mode circular around the end."""
    mode = node.attributes.text("mode", "linear", ("linear", "circular"))
    cache, update = node.type(0), node.type(1)
    (axis,) = normalized_axes(node, (node.attributes.integer("axis", -2),), cache.rank)
    steps, extent = update.shape[axis], cache.shape[axis]
    along = [1] * cache.rank
    along[axis] = steps
    places = node.literal(np.arange(steps).reshape(along), "int64", "steps")
    if node.has(2):
        begins = node.cast(node.value(2), "int64")
        column = (cache.shape[0], *(1,) * (cache.rank - 1))
        places = node.step(
            "add", [places, node.step("reshape", [begins], ReshapeAttributes(column))]
        )
    if mode == "circular":
        places = node.step("mod", [places, node.literal(extent, "int64", "extent")])
    have = node.step_type(places).shape
    factors = tuple(n // m for n, m in zip(update.shape, have, strict=True))
    if max(factors) > 1:
        places = node.step("resize", [places], ResizeAttributes(factors))
    return node.emit(
        "scatter_elements", [node.value(0), places, node.value(1)], ScatterAttributes(axis)
    )


ROWS: Final = (
    Converter("Gather", (1, 11, 13), gather, folds=True),
    Converter("GatherElements", (11, 13), gather_elements, folds=True),
    Converter("GatherND", (11, 12, 13), gather_nd, folds=True),
    Converter("Scatter", (9,), scatter_elements),
    Converter("ScatterElements", (11, 13, 16, 18), scatter_elements, folds=True),
    Converter("ScatterND", (11, 13, 16, 18), scatter_nd, folds=True),
    Converter("OneHot", (9, 11, 28), one_hot, "constant depth", folds=True),
    Converter("ReverseSequence", (10, 28), reverse_sequence, folds=True),
    Converter("Trilu", (14,), trilu, "constant k", folds=True),
    Converter("EyeLike", (9, 22), eye_like),
    Converter("Tile", (6, 13), tile, "constant repeats", folds=True),
    Converter("TensorScatter", (24,), tensor_scatter),
)
