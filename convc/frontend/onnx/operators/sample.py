"""GridSample, RoiAlign, DeformConv, and MaxUnpool."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from convc.errors import InvalidModelError
from convc.frontend.onnx.auto_pad import read_window
from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.refusal import Unsupported
from convc.ir import Step
from convc.ir.ops.conv import ConvAttributes
from convc.ir.ops.gather import ScatterAttributes
from convc.ir.ops.sample import DeformAttributes, GridAttributes, RoiAttributes
from convc.ir.ops.shape import ReshapeAttributes

__all__ = ["ROWS"]

# GridSample-16's names of the modes, and GridSample-20's.
MODES: Final = {
    "bilinear": "linear",
    "bicubic": "cubic",
    "nearest": "nearest",
    "linear": "linear",
    "cubic": "cubic",
}


def grid_sample(node: OperatorNode) -> str:
    """Write GridSample."""
    a = node.attributes
    mode = a.text("mode", "linear", tuple(MODES))
    padding = a.text("padding_mode", "zeros", ("zeros", "border", "reflection"))
    attributes = GridAttributes(MODES[mode], padding, a.flag("align_corners", False))
    grid = node.cast(node.value(1), node.type().dtype)
    return node.emit("grid_sample", [node.value(0), grid], attributes)


def roi_align(node: OperatorNode) -> str:
    """Write RoiAlign; before version 16 boxes are not moved by half a point."""
    a = node.attributes
    transform = a.text(
        "coordinate_transformation_mode",
        "half_pixel" if node.version >= 16 else "output_half_pixel",
        ("half_pixel", "output_half_pixel"),
    )
    attributes = RoiAttributes(
        (a.integer("output_height", 1), a.integer("output_width", 1)),
        a.real("spatial_scale", 1.0),
        a.integer("sampling_ratio", 0),
        a.text("mode", "avg", ("avg", "max")),
        transform == "half_pixel",
    )
    return node.emit("roi_align", [node.value(i) for i in range(3)], attributes)


def deform_conv(node: OperatorNode) -> str:
    """Write DeformConv: the columns under the shifted taps, then a convolution of one tap over them."""
    a, data, weight = node.attributes, node.type(0), node.type(1)
    if data.rank != 4:
        raise Unsupported(f"data {data} (only images)")
    window = read_window(node, weight.shape[2:])
    group, offset_group = a.integer("group", 1), a.integer("offset_group", 1)
    attributes = DeformAttributes(
        window.kernel, window.strides, window.pads, window.dilations, offset_group
    )
    shifts = [node.value(2), *([node.value(4)] if node.has(4) else [])]
    columns = node.step("deform_columns", [node.value(0), *shifts], attributes)
    k, c, *kernel = weight.shape
    flat = node.step(
        "reshape", [node.value(1)], ReshapeAttributes((k, c * math.prod(kernel), 1, 1))
    )
    operands, epilogue = [columns, flat], ()
    if node.has(3):
        operands, epilogue = [*operands, node.value(3)], (Step("bias"),)
    return node.emit("conv", operands, ConvAttributes(group=group, epilogue=epilogue))


def max_unpool(node: OperatorNode) -> str:
    """Write MaxUnpool: zeros, and every element where its index says, counted in the default or the given output."""
    a, data = node.attributes, node.type()
    n = data.rank - 2
    kernel = a.integers("kernel_shape")
    strides, pads = a.integers("strides", (1,) * n), a.integers("pads", (0,) * (2 * n))
    if not len(kernel) == len(strides) == len(pads) // 2 == n:
        raise InvalidModelError(
            f"MaxUnpool must have a window of {n} axes; got {kernel}, {strides}, {pads}."
        )
    inferred = (
        *data.shape[:2],
        *(
            (e - 1) * s - pads[i] - pads[n + i] + k
            for i, (e, s, k) in enumerate(zip(data.shape[2:], strides, kernel, strict=True))
        ),
    )
    shape = node.constant_integers(2) if node.has(2) else inferred
    indices = node.cast(node.value(1), "int64")
    if tuple(shape) != inferred:
        # Indices count in the inferred output: find their places in the larger one.
        indices = _moved(node, indices, inferred, shape)
    count = math.prod(shape)
    zeros = node.literal(np.broadcast_to(np.zeros((), data.dtype), (count,)), data.dtype, "zeros")
    flat = [
        node.step("reshape", [v], ReshapeAttributes((data.size,))) for v in (indices, node.value(0))
    ]
    filled = node.step("scatter_elements", [zeros, *flat], ScatterAttributes(0))
    return node.emit("reshape", [filled], ReshapeAttributes(tuple(shape)))


def _moved(
    node: OperatorNode, indices: str, source: tuple[int, ...], result: tuple[int, ...]
) -> str:
    """Return flat indices of one shape as flat indices of another one."""
    total = node.literal(0, "int64", "zero")
    for axis in range(len(source)):
        inner, outer = math.prod(source[axis + 1 :]), math.prod(result[axis + 1 :])
        digit = node.step("div", [indices, node.literal(inner, "int64", "stride")])
        digit = node.step("mod", [digit, node.literal(source[axis], "int64", "extent")])
        part = node.step("mul", [digit, node.literal(outer, "int64", "stride")])
        total = node.step("add", [part, total])
    return total


ROWS: Final = (
    Converter("GridSample", (16, 20, 22), grid_sample),
    Converter("RoiAlign", (10, 16, 22), roi_align),
    Converter("DeformConv", (19, 22), deform_conv, "images"),
    Converter("MaxUnpool", (9, 11, 22), max_unpool, "constant output shape"),
)
