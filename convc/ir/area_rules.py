"""How each op goes with an open height and width: one rule for each, which writes the node and the extents of its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeAlias

import numpy as np

from convc.ir.area_graph import Extents, Taps
from convc.ir.area_walk import Walk
from convc.ir.graph import Node, constant
from convc.ir.ops import OPS
from convc.ir.ops.logic import CastAttributes
from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.ir.types import TensorType, numpy_dtype

__all__ = ["RULES"]

# What an op's windows read beyond the valid part.
_ZERO: Final = 0.0
_SAME: Final = frozenset(
    {"lrn", "softmax", "log_softmax", "topk", "argmax", "layer_norm", "lookup"}
)


def _end(type: TensorType, sign: int) -> float:
    """Return the greatest value of a type, the least one for a sign of -1."""
    if type.is_float:
        return sign * float("inf")
    info = np.iinfo(numpy_dtype(type.dtype))
    return int(info.max if sign > 0 else info.min)


def _elementwise(walk: Walk, node: Node) -> None:
    spatial = [i for i in node.inputs if i in walk.extents]
    found = {walk.extents[i] for i in spatial}
    if len(found) > 1:
        raise walk.refusal(node, "its operands have other heights or widths for other sizes")
    for i in node.inputs:
        shape = walk.nodes[i].type.shape
        if i not in walk.extents and any(n > 1 for n in shape[-2:] if node.type.rank == 4 and len(shape) >= 2):  # fmt: skip
            raise walk.refusal(node, f"%{i} holds a value for each place of the largest area")
    if node.type.rank != 4:
        raise walk.refusal(node, f"its result is {node.type}")
    zero = spatial[0] in walk.zero_beyond and OPS[node.op].keeps_zero(node.attributes)
    walk.put(node, found.pop(), zero=zero)


def _conv(walk: Walk, node: Node) -> None:
    data = walk.data(node)
    pads: Any = node.attributes.pads  # type: ignore[attr-defined]
    reaches = node.op == "conv_transpose" or any(pads[len(pads) // 2 :])
    # Winograd and fft read whole tiles and count on what is outside a window to cancel, which infinities (of a pool over nothing) do not.
    in_tiles = max(walk.nodes[node.inputs[1]].type.shape[2:]) > 1
    extents = walk.windowed(node)
    source = walk.within(data, _ZERO) if reaches or in_tiles else data
    walk.put(node, extents, [source, *node.inputs[1:]])


def _conv_quantized(walk: Walk, node: Node) -> None:
    a = node.attributes
    assert isinstance(a, QuantizedConvAttributes)
    added = node.inputs[4:] if a.added else ()
    own = len(node.inputs) - len(added)
    operands = [(i, walk.nodes[i].type) for i in node.inputs[:own]]
    layer = Node.of(node.name, node.op, operands, replace(a, added=()))
    data, extents = walk.data(layer), walk.windowed(layer)
    if any(walk.extents.get(i) != extents for i in added):
        raise walk.refusal(node, "what is added to it has another height or width for other sizes")
    reaches = a.transposed or any(a.pads[len(a.pads) // 2 :])
    source = walk.within(data, a.pad) if reaches else data
    walk.put(node, extents, [source, *node.inputs[1:]])


def _max_pool(walk: Walk, node: Node) -> None:
    data, a = walk.data(node), node.attributes
    reaches = any(a.pads[len(a.pads) // 2 :]) or a.ceil_mode  # type: ignore[attr-defined]
    extents = walk.windowed(node)
    source = walk.within(data, _end(walk.nodes[data].type, -1)) if reaches else data
    walk.put(node, extents, [source])


def _average_pool(walk: Walk, node: Node) -> None:
    data, a, extents = walk.data(node), node.attributes, walk.windowed(node)
    reaches = any(a.pads[len(a.pads) // 2 :]) or a.ceil_mode  # type: ignore[attr-defined]
    if not reaches:
        walk.put(node, extents)
    elif not a.count_include_pad:  # type: ignore[attr-defined]
        _share(walk, node, extents)
    elif a.ceil_mode:  # type: ignore[attr-defined]
        raise walk.refusal(node, "its last windows count padding by the size of the data")
    else:
        walk.put(node, extents, [walk.within(data, _ZERO)])


def _share(walk: Walk, node: Node, extents: Extents | None) -> None:
    """Write a mean as that of the value, zero where it is not valid, over that of the mask: the divisors cancel."""
    data = node.inputs[0]
    dtype = walk.nodes[data].type.dtype
    mask, name = walk.mask(walk.extents[data]), node.name
    ones = walk.add(f"{name}.ones", "cast", [mask], CastAttributes(dtype))
    total = walk.add(f"{name}.total", node.op, [walk.within(data, _ZERO)], node.attributes)
    share = walk.add(f"{name}.share", node.op, [ones], node.attributes)
    # Beyond the valid part there is nothing to divide by.
    some = constant(f"{name}.some", np.asarray(1e-12, dtype))
    walk.nodes[some.name] = some
    divisor = walk.add(f"{name}.divisor", "maximum", [share, some.name])
    walk.add(name, "div", [total, divisor])
    if extents is not None:
        walk.extents[name] = extents


def _reduce(walk: Walk, node: Node) -> None:
    data, a = walk.data(node), node.attributes
    axes: set[int] = {axis % 4 for axis in a.axes}  # type: ignore[attr-defined]
    if not axes & {2, 3}:
        if not a.keepdims:  # type: ignore[attr-defined]
            raise walk.refusal(node, f"its result is {node.type}")
        walk.put(node, walk.extents[data])
    elif not axes >= {2, 3}:
        raise walk.refusal(node, "it works along height or width alone")
    elif node.op == "reduce_mean":
        _share(walk, node, None)
    elif node.op in ("reduce_sum", "reduce_max", "reduce_min"):
        sign = {"reduce_sum": 0, "reduce_max": -1, "reduce_min": 1}[node.op]
        beyond = _end(walk.nodes[data].type, sign) if sign else _ZERO
        walk.put(node, None, [walk.within(data, beyond)])
    else:
        raise walk.refusal(node, "it is not known to")


def _along_channels(walk: Walk, node: Node) -> None:
    data = walk.data(node)
    axis: int = getattr(node.attributes, "axis", 1)
    if axis % 4 not in (0, 1) or node.type.rank != 4:
        raise walk.refusal(node, "it works along height or width, or leaves no N, C, H, W")
    walk.put(node, walk.extents[data])


def _concat(walk: Walk, node: Node) -> None:
    found = {walk.extents.get(i) for i in node.inputs}
    if node.attributes.axis != 1 or len(found) != 1:  # type: ignore[attr-defined]
        raise walk.refusal(node, "it must join values of one height and width along channels")
    zero = all(i in walk.zero_beyond for i in node.inputs)
    walk.put(node, found.pop(), zero=zero)


def _pad(walk: Walk, node: Node) -> None:
    data, a = walk.data(node), node.attributes
    at_the_end = a.pads[6:]  # type: ignore[attr-defined]
    extents = walk.windowed(node)
    source = walk.within(data, a.value) if any(at_the_end) else data  # type: ignore[attr-defined]
    walk.put(node, extents, [source])


def _slice(walk: Walk, node: Node) -> None:
    data, a = walk.data(node), node.attributes
    box = [(a.begins[i], a.ends[i], a.steps[i]) for i in (2, 3)]  # type: ignore[attr-defined]
    if box != [(0, n, 1) for n in walk.nodes[data].type.shape[2:]]:
        raise walk.refusal(node, "it cuts out rows or columns of the largest area")
    walk.put(node, walk.extents[data], zero=data in walk.zero_beyond)


def _resize(walk: Walk, node: Node) -> None:
    data = walk.data(node)
    walk.put(node, walk.windowed(node), zero=data in walk.zero_beyond)


def _resample(walk: Walk, node: Node) -> None:
    a: Any = node.attributes
    data, fixed = node.inputs[0], walk.nodes[node.inputs[0]].type
    if fixed.rank != 4 or any(i in walk.extents for i in node.inputs[1:]):
        raise walk.refusal(node, "it is not known to")
    if a.axis not in (2, 3):
        walk.put(node, walk.extents[data])
        return
    if not a.coordinate:
        raise walk.refusal(node, "what it is resized to does not follow from one height or width")
    old = walk.extents.get(data) or walk.constant_extents(*fixed.shape[2:])
    like = walk.extents.get(a.like) or walk.constant_extents(*walk.height_and_width(node, a.like))
    own, other = (old.rows, like.rows) if a.axis == 2 else (old.cols, like.cols)
    results = tuple(a.result(n, m, node.type.shape[a.axis]) for n, m in zip(own, other, strict=True))  # fmt: skip
    if max(results) > node.type.shape[a.axis]:
        largest = f"its result has {node.type.shape[a.axis]} points along axis {a.axis} for the largest area and {max(results)} for a smaller one"
        raise walk.refusal(node, largest)
    new = Extents(results, old.cols) if a.axis == 2 else Extents(old.rows, results)
    key = Taps(a.axis, a.rules, a.scale, own, results)
    shape = (node.type.shape[a.axis], key.count)
    places, weights = TensorType(shape, "int32"), TensorType(shape, fixed.dtype)
    if (key, places, weights) not in walk.taps:
        number = len(walk.taps)
        names = walk.add_input(f"places_{number}", places), walk.add_input(f"weights_{number}", weights)  # fmt: skip
        walk.taps[key, places, weights] = names
    whole = walk.constant_extents(*node.type.shape[2:])
    walk.put(node, None if new == whole else new, [data, *walk.taps[key, places, weights]])


Rule: TypeAlias = Callable[[Walk, Node], None]
RULES: Final[dict[str, Rule]] = {
    **{n: _elementwise for n, op in OPS.items() if op.elementwise},
    "conv": _conv,
    "conv_transpose": _conv,
    "conv_quantized": _conv_quantized,
    "max_pool": _max_pool,
    "average_pool": _average_pool,
    **{n: _reduce for n in OPS if n.startswith("reduce_")},
    **dict.fromkeys(_SAME, _along_channels),
    "concat": _concat,
    "pad": _pad,
    "slice": _slice,
    "resize": _resize,
    "resample": _resample,
}
