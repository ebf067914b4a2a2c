"""Layer normalisation in two passes over the data for its statistics and one for the result.

The sums along the axis run in vectors: across the lanes of a block of channels, or across as many elements of the last axis as divide it.
"""

from __future__ import annotations

from typing import Any, Final

from tvm import te, tirx

from convc.ir.graph import Node
from convc.schedules import layer_norm
from convc.schedules.divisors import greatest_divisor
from convc.schedules.operators.by_rows import LONGEST_ROW, row_knobs
from convc.schedules.operators.operator import OpAlgorithm, Operator, Tensors, Types
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.scalar import once
from convc.target import Target

__all__ = ["ROWS"]

# Partial sums side by side: a vector of the widest unit.
_LANES: Final = 16


def _follows(node: Node, types: Types, block: int) -> bool:
    return types[0].is_image and node.attributes.axis == 1  # type: ignore[attr-defined]


def _compute(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    a: Any = node.attributes
    x, scale, bias = tensors
    dtype, count = x.dtype, types[0].shape[a.axis]
    rank = len(x.shape)
    in_lanes = bool(block) or a.axis == rank - 1
    lanes = block or (greatest_divisor(count, _LANES) if in_lanes else 1)
    steps = -(-count // lanes)
    kept = [int(n) for i, n in enumerate(x.shape) if i != a.axis and not (block and i == rank - 1)]

    def element(at: Any, step: Any, lane: Any) -> Any:
        """Return one element: `at` are the indices of the other axes."""
        if block:
            return x(*at[: a.axis], step, *at[a.axis :], lane)
        return x(*at[: a.axis], step * lanes + lane, *at[a.axis :])

    def summed(term: Any, name: str) -> te.Tensor:
        """Return the sum along the axis of a function of the other indices, the step and the lane."""
        step = te.reduce_axis((0, steps), "step")
        if not in_lanes:
            return te.compute(kept, lambda *at: te.sum(term(at, step, 0), axis=step), name=name)
        parts = te.compute((*kept, lanes), lambda *i: te.sum(term(i[:-1], step, i[-1]), axis=step), name=f"{name}_parts")  # fmt: skip

        def total(*at: Any) -> Any:
            terms = [parts(*at, lane) for lane in range(lanes)]
            while len(terms) > 1:
                pairs = zip(terms[::2], terms[1::2], strict=False)
                terms = [p + q for p, q in pairs] + terms[len(terms) // 2 * 2 :]
            return terms[0]

        return once(kept, total, name)

    def over(value: Any) -> Any:
        return value * tirx.const(1.0 / count, dtype)

    total = summed(element, "total")

    def square(at: Any, step: Any, lane: Any) -> Any:
        centred = element(at, step, lane) - over(total(*at))
        if block and count % block:  # beyond the last channel there are zeros, not data
            centred = tirx.Select(step * lanes + lane < count, centred, tirx.const(0, dtype))
        return centred * centred

    squares = summed(square, "squares")
    factor = once(
        kept,
        lambda *at: tirx.const(1, dtype) / tirx.sqrt(over(squares(*at)) + tirx.const(a.epsilon, dtype)),
        "factor",
    )  # fmt: skip

    def value(*i: Any) -> Any:
        at = (*i[: a.axis], *i[a.axis + 1 :])[: len(kept)]
        along = [0] * len(i)
        along[a.axis] = i[a.axis]
        if block:
            along[-1] = i[-1]
        return (x(*i) - over(total(*at))) * factor(*at) * scale(*along) + bias(*along)

    return te.compute(x.shape, value, name="layer_norm")


def _row(tensors: Tensors, node: Node, types: Types, block: int, target: Target) -> te.Tensor:
    a: Any = node.attributes
    x, scale, bias = tensors
    return layer_norm.compute(x, scale, bias, _knobs(node, types, target)["lanes"], a.epsilon)


def _knobs(node: Node, types: Types, target: Target) -> Knobs:
    a: Any = node.attributes
    return row_knobs(types[0], a.axis, target)


def _refusal(node: Node, types: Types) -> Unsupported | None:
    a: Any = node.attributes
    x = types[0]
    if x.dtype == "float64":
        return Unsupported("its sums are of float32")
    if a.axis != x.rank - 1:
        return Unsupported(f"the axis must be the last, {x.rank - 1}; got {a.axis}")
    if x.shape[-1] > LONGEST_ROW or not x.size:
        return Unsupported(
            f"rows must have from 1 to {LONGEST_ROW} elements; got {x.shape[-1]} of {x.size}"
        )
    return None


_BY_ROWS: Final = OpAlgorithm("rows", "rows", _row, _knobs, _refusal)

ROWS: Final = {"layer_norm": Operator(_compute, _follows, (_BY_ROWS,))}
