"""DFT as a matrix product with constant sines and cosines, STFT as one of its frames, Col2Im as a scatter that adds."""

from __future__ import annotations

import itertools
import math
from typing import Final

import numpy as np

from convc.errors import InvalidModelError
from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.operators.gather import take
from convc.frontend.onnx.operators.reshape import normalized_axes
from convc.frontend.onnx.refusal import Unsupported
from convc.ir.ops.gather import ScatterAttributes
from convc.ir.ops.linear import AxisAttributes
from convc.ir.ops.shape import (
    PadAttributes,
    ReshapeAttributes,
    ResizeAttributes,
    TransposeAttributes,
)

__all__ = ["ROWS"]

# A matrix of this many elements is 64 MiB; a longer transform is no sum of sines by hand.
_LARGEST: Final = 1 << 24


def _sized(node: OperatorNode, x: str, axis: int, count: int) -> str:
    """Return the first `count` elements along an axis, zeros beyond the last one."""
    shape = node.step_type(x).shape
    if count <= shape[axis]:
        return take(node, x, np.arange(count), axis)
    after = [count - shape[axis] if i == axis else 0 for i in range(len(shape))]
    return node.step("pad", [x], PadAttributes((*(0,) * len(shape), *after)))


def _transform(node: OperatorNode, x: str, count: int, results: int, *, inverse: bool) -> str:
    """Return the transform of (rows, count, 1 or 2) as (rows, results, 2): real and imaginary parts last."""
    rows, _, parts = node.step_type(x).shape
    if count * results * 2 * parts > _LARGEST:
        raise Unsupported(f"a transform of {count} points (at most {math.isqrt(_LARGEST // 4)})")
    angle = 2 * np.pi * np.outer(np.arange(count), np.arange(results)) / count
    cos, sin = np.cos(angle), np.sin(angle) * (1 if inverse else -1)
    # (count, parts, results, 2): (a + bi)(cos + i sin) = a cos - b sin + i (a sin + b cos)
    matrix = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1)[:, :parts]
    matrix = matrix / count if inverse else matrix
    flat = node.step("reshape", [x], ReshapeAttributes((rows, count * parts)))
    weight = matrix.reshape(count * parts, results * 2).T
    product = node.step("dense", [flat, node.literal(weight, node.type().dtype, "waves")])
    return node.step("reshape", [product], ReshapeAttributes((rows, results, 2)))


def _real_inverse(node: OperatorNode, x: str, count: int) -> str:
    """Return the real signal (rows, count) of the first half (rows, count / 2 + 1, 2) of its transform."""
    rows, half, parts = node.step_type(x).shape
    if count * half * parts > _LARGEST:
        raise Unsupported(f"a transform of {count} points (at most {math.isqrt(_LARGEST // 4)})")
    angle = 2 * np.pi * np.outer(np.arange(half), np.arange(count)) / count
    twice = np.full((half, 1), 2.0)
    twice[0] = 1
    if count % 2 == 0:
        twice[-1] = 1
    matrix = np.stack([np.cos(angle) * twice, -np.sin(angle) * twice], 1)[:, :parts] / count
    flat = node.step("reshape", [x], ReshapeAttributes((rows, half * parts)))
    weight = matrix.reshape(half * parts, count).T
    return node.step("dense", [flat, node.literal(weight, node.type().dtype, "waves")])


def dft(node: OperatorNode) -> str:
    """Write DFT: along one axis of (..., 1 or 2), real and imaginary parts last."""
    a, data = node.attributes, node.type()
    if node.version >= 20:
        axis = int(node.constant_scalar(2)) if node.has(2) else -2
    else:
        axis = a.integer("axis", 1)
    (axis,) = normalized_axes(node, (axis,), data.rank)
    inverse, onesided = a.flag("inverse", False), a.flag("onesided", False)
    if data.shape[-1] not in (1, 2) or axis == data.rank - 1:
        raise InvalidModelError(
            f"DFT data must be (..., 1 or 2) and axis another one; got {data} and {axis}."
        )
    halves = inverse and onesided  # the other half is the conjugate, and the result is real
    whole = 2 * (data.shape[axis] - 1) if halves else data.shape[axis]
    count = int(node.constant_scalar(1)) if node.has(1) else whole
    if count < 1:
        raise InvalidModelError(f"DFT dft_length must be positive; got {count}.")
    x = _sized(node, node.value(), axis, count // 2 + 1 if halves else count)
    order = (*(i for i in range(data.rank - 1) if i != axis), axis, data.rank - 1)
    x = node.step("transpose", [x], TransposeAttributes(order))
    outer = node.step_type(x).shape[:-2]
    x = node.step(
        "reshape", [x], ReshapeAttributes((math.prod(outer), *node.step_type(x).shape[-2:]))
    )
    if halves:
        y = _real_inverse(node, x, count)
        y = node.step("reshape", [y], ReshapeAttributes((*outer, count, 1)))
    else:
        results = count // 2 + 1 if onesided else count
        y = _transform(node, x, count, results, inverse=inverse)
        y = node.step("reshape", [y], ReshapeAttributes((*outer, results, 2)))
    back = tuple(order.index(i) for i in range(data.rank))
    return node.emit("transpose", [y], TransposeAttributes(back))


def stft(node: OperatorNode) -> str:
    """Write STFT: frames of the signal at constant places, times the window, transformed."""
    data = node.type()
    onesided = node.attributes.flag("onesided", True)
    step = int(node.constant_scalar(1))
    if data.rank == 3 and data.shape[-1] != 1:
        raise Unsupported(f"signal {data} (only real ones)")
    if node.has(3):
        size = int(node.constant_scalar(3))
    elif node.has(2):
        size = node.type(2).shape[0]
    else:
        raise InvalidModelError("STFT must have a window or a frame_length; both are missing.")
    batch, length = data.shape[:2]
    frames = (length - size) // step + 1 if step > 0 else 0
    if frames < 1 or size < 1:
        raise InvalidModelError(
            f"STFT frames of {size} every {step} points must fit the signal; got {data}."
        )
    places = np.arange(frames)[:, None] * step + np.arange(size)
    x = node.step("reshape", [node.value()], ReshapeAttributes((batch, length)))
    x = node.step("gather", [x, node.literal(places, "int64", "frames")], AxisAttributes(1))
    if node.has(2):
        x = node.step("mul", [x, node.value(2)])
    x = node.step("reshape", [x], ReshapeAttributes((batch * frames, size, 1)))
    results = size // 2 + 1 if onesided else size
    y = _transform(node, x, size, results, inverse=False)
    return node.emit("reshape", [y], ReshapeAttributes((batch, frames, results, 2)))


def col2im(node: OperatorNode) -> str:
    """Write Col2Im: every column element is added to the pixel that it came from; the padding is cut off by the scatter itself."""
    a, data = node.attributes, node.type()
    image, kernel = node.constant_integers(1), node.constant_integers(2)
    n = len(image)
    strides, dilations = a.integers("strides", (1,) * n), a.integers("dilations", (1,) * n)
    pads = a.integers("pads", (0,) * (2 * n))
    if data.rank != 3 or not len(kernel) == len(strides) == len(dilations) == len(pads) // 2 == n:
        raise InvalidModelError(
            f"Col2Im must have data (N, C taps, L) and one value per image axis; got {data}."
        )
    counts = [
        (e + pads[i] + pads[n + i] - dilations[i] * (k - 1) - 1) // strides[i] + 1
        for i, (e, k) in enumerate(zip(image, kernel, strict=True))
    ]
    taps, columns, pixels = math.prod(kernel), math.prod(counts), math.prod(image)
    batch, rows, length = data.shape
    if taps < 1 or rows % taps or length != columns:
        raise InvalidModelError(
            f"Col2Im data must have C times {taps} rows and {columns} columns; got {data}."
        )
    places = np.full((taps, columns), pixels, np.int64)  # out of range: written nowhere
    for t, tap in enumerate(itertools.product(*map(range, kernel))):
        for c, column in enumerate(itertools.product(*map(range, counts))):
            at = [
                p * s - pads[i] + r * d
                for i, (p, s, r, d) in enumerate(zip(column, strides, tap, dilations, strict=True))
            ]
            if all(0 <= i < e for i, e in zip(at, image, strict=True)):
                places[t, c] = np.ravel_multi_index(at, image)
    channels = rows // taps
    index = node.literal(places.reshape(1, 1, -1), "int64", "pixels")
    if batch * channels > 1:
        index = node.step("resize", [index], ResizeAttributes((batch, channels, 1)))
    updates = node.step(
        "reshape", [node.value()], ReshapeAttributes((batch, channels, taps * columns))
    )
    zeros = np.broadcast_to(np.zeros((), data.dtype), (batch, channels, pixels))
    base = node.literal(zeros, data.dtype, "zeros")
    summed = node.step("scatter_elements", [base, index, updates], ScatterAttributes(2, "add"))
    return node.emit("reshape", [summed], ReshapeAttributes((batch, channels, *image)))


ROWS: Final = (
    Converter("DFT", (17, 20), dft, "constant length"),
    Converter("STFT", (17,), stft, "real signals"),
    Converter("Col2Im", (18,), col2im, "constant shapes"),
)
