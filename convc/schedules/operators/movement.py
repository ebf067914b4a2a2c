"""Ops that move elements."""

from __future__ import annotations

from typing import Any, Final

from tvm import te, topi

from convc.ir.channel_moves import picks_of
from convc.ir.graph import Node
from convc.schedules import channel_moves
from convc.schedules.operators.operator import Operator, Tensors, Types, is_image

__all__ = ["ROWS"]


def _concat(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    axis: int = node.attributes.axis  # type: ignore[attr-defined]
    return topi.concatenate(tuple(tensors), axis=axis)


def _joins_images(node: Node, types: Types, block: int) -> bool:
    # Along channels it is a move of those, see `channel_moves`.
    axis: int = node.attributes.axis  # type: ignore[attr-defined]
    return is_image(types) and axis >= 1


def _pad(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    a: Any = node.attributes
    n, tail = types[0].rank, [0] * bool(block)
    return topi.nn.pad(tensors[0], [*a.pads[:n], *tail], [*a.pads[n:], *tail], pad_value=a.value)


def _pads_in_plane(node: Node, types: Types, block: int) -> bool:
    a: Any = node.attributes
    n = types[0].rank
    whole = a.value == 0 or (is_image(types) and types[0].shape[1] % block == 0)
    return is_image(types) and whole and not any((*a.pads[:2], *a.pads[n : n + 2]))


def _slice(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    a: Any = node.attributes
    begins, steps, shape = list(a.begins), list(a.steps), list(node.type.shape)
    if block:
        begins[1] //= block
        shape[1] = -(-shape[1] // block)
        begins, steps, shape = [*begins, 0], [*steps, 1], [*shape, block]
    return te.compute(
        shape,
        lambda *i: tensors[0](*(b + s * p for b, s, p in zip(begins, steps, i, strict=True))),
        name="slice",
    )


def _slices_images(node: Node, types: Types, block: int) -> bool:
    a: Any = node.attributes
    if picks_of(node, types) is not None:
        return True
    if not is_image(types) or a.begins[1] % block or a.steps[1] != 1:
        return False
    return a.ends[1] % block == 0 or a.ends[1] == types[0].shape[1]


def _pick_channels(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    a: Any = node.attributes
    picks = tuple(zip(a.operands, a.channels, strict=True))
    return channel_moves.compute(tensors, picks, block)


def _resize(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    factors = [*node.attributes.factors, *[1] * bool(block)]  # type: ignore[attr-defined]
    x = tensors[0]
    shape = [int(d) * f for d, f in zip(x.shape, factors, strict=True)]
    return te.compute(
        shape, lambda *i: x(*(p // f for p, f in zip(i, factors, strict=True))), name="resize"
    )


def _resizes_in_plane(node: Node, types: Types, block: int) -> bool:
    factors: tuple[int, ...] = node.attributes.factors  # type: ignore[attr-defined]
    return is_image(types) and factors[1] == 1


def _flip(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    x, axes = tensors[0], node.attributes.axes  # type: ignore[attr-defined]
    last = [int(d) - 1 for d in x.shape]
    return te.compute(
        x.shape,
        lambda *i: x(*(last[a] - p if a in axes else p for a, p in enumerate(i))),
        name="flip",
    )


def _transpose(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    return topi.transpose(tensors[0], list(node.attributes.perm))  # type: ignore[attr-defined]


ROWS: Final[dict[str, Operator]] = {
    "transpose": Operator(_transpose),
    "flip": Operator(_flip),
    "concat": Operator(_concat, _joins_images),
    "pad": Operator(_pad, _pads_in_plane),
    "slice": Operator(_slice, _slices_images),
    "pick_channels": Operator(_pick_channels, lambda node, types, block: is_image(types)),
    "resize": Operator(_resize, _resizes_in_plane),
}
