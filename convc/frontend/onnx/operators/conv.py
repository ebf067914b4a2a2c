"""Conv and ConvTranspose -> conv, conv_transpose, the bias as an epilogue step."""

from __future__ import annotations

from typing import Final

from convc.errors import InvalidModelError
from convc.frontend.onnx.auto_pad import Window, read_window, same_pads, split_padding
from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.refusal import Unsupported
from convc.ir import Step
from convc.ir.ops.conv import ConvAttributes, ConvTransposeAttributes
from convc.ir.ops.shape import PadAttributes, ReshapeAttributes
from convc.ir.types import Shape

__all__ = ["ROWS", "conv"]


def _operands(node: OperatorNode) -> tuple[list[str], tuple[Step, ...]]:
    operands = [node.value(0), node.value(1)]
    return ([*operands, node.value(2)], (Step("bias"),)) if node.has(2) else (operands, ())


def conv(node: OperatorNode, added: tuple[str, ...] = (), behind: tuple[Step, ...] = ()) -> str:
    """Write Conv with its padding resolved; `behind` are steps behind the bias, `added` their operands."""
    window = read_window(node, node.type(1).shape[2:])
    pads = same_pads(node.type().shape[2:], window) if window.is_same else window.pads
    operands, epilogue = _operands(node)
    group = node.attributes.integer("group", 1)
    steps = (*epilogue, *behind)
    attributes = ConvAttributes(window.strides, pads, window.dilations, group, steps)
    return node.emit("conv", [*operands, *added], attributes)


def conv_transpose(node: OperatorNode) -> str:
    """Write ConvTranspose with output_shape and auto_pad resolved to pads.

    Source:
        ONNX ConvTranspose-11: total_padding = stride (in - 1) + output_padding + covered - output_shape.
    """
    window = read_window(node, node.type(1).shape[2:])
    extents = node.type().shape[2:]
    n = len(extents)
    a = node.attributes
    output_padding = a.integers("output_padding", (0,) * n)
    wanted = a.integers("output_shape", ())
    if len(output_padding) != n:
        raise InvalidModelError(
            f"ConvTranspose output_padding must have {n} values; got {list(output_padding)}."
        )
    pads = _transposed_pads(node, window, extents, output_padding, wanted)
    # Negative pads: the output reaches beyond the filter, where nothing but the bias is.
    kept, beyond = tuple(max(0, p) for p in pads), tuple(max(0, -p) for p in pads)
    operands, epilogue = _operands(node)
    group = a.integer("group", 1)
    if any(beyond):
        bare = ConvTransposeAttributes(
            window.strides, kept, window.dilations, group, output_padding
        )
        y = node.step("conv_transpose", operands[:2], bare)
        border = PadAttributes((0, 0, *beyond[:n], 0, 0, *beyond[n:]))
        if not epilogue:
            return node.emit("pad", [y], border)
        y = node.step("pad", [y], border)
        column = ReshapeAttributes((1, node.type(2).size, *(1,) * n))
        return node.emit("add", [y, node.step("reshape", [operands[2]], column)])
    attributes = ConvTransposeAttributes(
        window.strides, kept, window.dilations, group, output_padding, epilogue
    )
    return node.emit("conv_transpose", operands, attributes)


def _transposed_pads(
    node: OperatorNode, window: Window, extents: Shape, output_padding: Shape, wanted: Shape
) -> Shape:
    if not wanted and not window.is_same:
        return window.pads
    n = len(extents)
    if wanted and len(wanted) == n + 2:
        wanted = wanted[2:]  # some exporters write batch and channels too
    if wanted and len(wanted) != n:
        raise InvalidModelError(
            f"ConvTranspose output_shape must have {n} values; got {list(wanted)}."
        )
    target = wanted or tuple(e * s for e, s in zip(extents, window.strides, strict=True))
    rows = zip(extents, window.strides, window.covered, output_padding, target, strict=True)
    totals = tuple(s * (e - 1) + extra + covered - t for e, s, covered, extra, t in rows)
    if wanted and node.version == 1 and any(t % 2 for t in totals):
        # ConvTranspose-1 gives the odd point to one side in the text of auto_pad and to the other in its equation.
        raise Unsupported(
            f"attribute output_shape={list(wanted)} with an odd total padding (before opset 11)"
        )
    return split_padding(totals, more_at_end=window.auto_pad == "SAME_UPPER")


ROWS: Final = (
    Converter("Conv", (1, 11, 22), conv),
    Converter("ConvTranspose", (1, 11, 22), conv_transpose),
)
