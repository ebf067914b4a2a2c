"""Gather as tensor expressions, scatter as loops; an index that is out of range never leaves the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from tvm import te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T  # noqa: N812  # TVM's own name for it

from convc.ir.graph import Node
from convc.schedules.operators.operator import Operator, Tensors, Types

__all__ = ["ROWS"]


def _wrapped(index: Any, extent: int) -> Any:
    """Return the index counted from the front, moved to the nearest end if it is out of range."""
    i = index.astype("int64")
    i = tirx.Select(i < 0, i + extent, i)
    return tirx.max(tirx.min(i, tirx.const(extent - 1, "int64")), tirx.const(0, "int64"))


def _gather(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    axis: int = node.attributes.axis  # type: ignore[attr-defined]
    (x, indices), middle = tensors, types[1].rank

    def value(*i: Any) -> Any:
        place = _wrapped(indices(*i[axis : axis + middle]), types[0].shape[axis])
        return x(*i[:axis], place, *i[axis + middle :])

    return te.compute(node.type.shape, value, name="gather")


def _gather_elements(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    axis: int = node.attributes.axis  # type: ignore[attr-defined]
    x, indices = tensors

    def value(*i: Any) -> Any:
        return x(*i[:axis], _wrapped(indices(*i), types[0].shape[axis]), *i[axis + 1 :])

    return te.compute(node.type.shape, value, name="gather_elements")


def _gather_nd(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    b: int = node.attributes.batch  # type: ignore[attr-defined]
    x, indices = tensors
    front, depth = types[1].rank - 1, types[1].shape[-1]

    def value(*i: Any) -> Any:
        places = [_wrapped(indices(*i[:front], d), types[0].shape[b + d]) for d in range(depth)]
        return x(*i[:b], *places, *i[front:])

    return te.compute(node.type.shape, value, name="gather_nd")


# ---- scatter --------------------------------------------------------------------------------------------------------

_COMBINE: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "none": lambda old, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "max": tirx.max,
    "min": tirx.min,
}


def _strides(shape: Sequence[int]) -> list[int]:
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


def _digits(flat: Any, shape: Sequence[int]) -> list[Any]:
    """Return the multi-index of a flat one."""
    return [(flat // s) % n for s, n in zip(_strides(shape), shape, strict=True)]


def _flat(index: Sequence[Any], shape: Sequence[int]) -> Any:
    total: Any = tirx.const(0, "int64")
    for i, s in zip(index, _strides(shape), strict=True):
        total = total + i * s
    return total


def _scattered(
    tensors: Tensors,
    node: Node,
    types: Types,
    places: Callable[[Any, Any], list[Any]],
) -> te.Tensor:
    """Return the data with every update written in turn; `places(indices, flat index of an update)` is where."""
    shape, dtype, count = types[0].shape, types[0].dtype, types[2].size
    combine = _COMBINE[node.attributes.reduction]  # type: ignore[attr-defined]

    def loops(data: Any, indices: Any, updates: Any, result: Any) -> Any:
        with IRBuilder() as builder:
            x, at, u, y = map(T.buffer_proxy, (data, indices, updates, result))
            with T.serial(
                0, 1
            ):  # several statements need one around them; T.seq_scope makes LLVM warn
                with T.serial(0, math.prod(shape)) as i:
                    y[i] = x[i]
                with T.serial(0, count) as j:
                    wrapped = []
                    for p, n in zip(places(at, j), shape, strict=True):
                        wide = p.astype("int64")
                        wrapped.append(tirx.Select(wide < 0, wide + n, wide))
                    inside = [tirx.all(p >= 0, p < n) for p, n in zip(wrapped, shape, strict=True)]
                    target = _flat(wrapped, shape)
                    with T.If(tirx.all(*inside) if inside else tirx.const(1, "bool")), T.Then():
                        y[target] = combine(y[target], u[j])
            return builder.get()

    buffer = tirx.decl_buffer(shape, dtype, "result")
    return te.extern(
        [shape],
        list(tensors),
        lambda ins, outs: loops(ins[0], ins[1], ins[2], outs[0]),
        dtype=dtype,
        out_buffers=[buffer],
        name="scatter",
    )


def _scatter_elements(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    axis: int = node.attributes.axis  # type: ignore[attr-defined]

    def places(indices: Any, flat: Any) -> list[Any]:
        digits = _digits(flat, types[1].shape)
        digits[axis] = indices[flat]
        return digits

    return _scattered(tensors, node, types, places)


def _scatter_nd(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    data, indices = types[:2]
    depth = indices.shape[-1]
    row = math.prod(data.shape[depth:])

    def places(at: Any, flat: Any) -> list[Any]:
        first = (flat // row) * depth
        return [*(at[first + d] for d in range(depth)), *_digits(flat % row, data.shape[depth:])]

    return _scattered(tensors, node, types, places)


ROWS: Final[dict[str, Operator]] = {
    "gather": Operator(_gather),
    "gather_elements": Operator(_gather_elements),
    "gather_nd": Operator(_gather_nd),
    "scatter_elements": Operator(_scatter_elements),
    "scatter_nd": Operator(_scatter_nd),
}
