"""Gradients: the backward graph of DSL tensors, in the same tensors and ops, so that it compiles, prints and differentiates again.

A rule is one row of its family's file. Rules say what a gradient is, never how it is computed: that is chosen per layer, as for
every other convolution.

Example:
    >>> from convc.frontend import dsl as cc
    >>> x, w = cc.input("x", (2, 3, 8, 8)), cc.input("w", (4, 3, 3, 3))
    >>> loss = cc.sum(cc.relu(cc.conv2d(x, w, pads=1)))
    >>> dx, dw = grad(loss, [x, w])
    >>> dx, dw
    (Tensor(conv_transpose: f32[2,3,8,8]), Tensor(conv_weight_grad: f32[4,3,3,3]))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, overload

import numpy as np

from convc.errors import DTypeError, ShapeError, UnsupportedModelError
from convc.frontend.dsl.arguments import listed
from convc.frontend.dsl.collect import collected
from convc.frontend.dsl.gradient import (
    convolution,
    elementwise,
    linear,
    local,
    movement,
    window,
)
from convc.frontend.dsl.gradient.rule import Call, Rule
from convc.frontend.dsl.tensor import Operand, Tensor, as_tensor, building, constant
from convc.ir.types import numpy_dtype

__all__ = ["RULES", "grad"]

RULES: Final[dict[str, Rule]] = {
    name: row
    for family in (
        convolution,
        elementwise,
        linear,
        local,
        movement,
        window,
    )
    for name, row in family.ROWS.items()
}


@overload
def grad(
    outputs: Tensor | Sequence[Tensor],
    wrt: Tensor,
    output_grads: Operand | Sequence[Operand] | None = None,
) -> Tensor: ...
@overload
def grad(
    outputs: Tensor | Sequence[Tensor],
    wrt: Sequence[Tensor],
    output_grads: Operand | Sequence[Operand] | None = None,
) -> list[Tensor]: ...
def grad(
    outputs: Tensor | Sequence[Tensor],
    wrt: Tensor | Sequence[Tensor],
    output_grads: Operand | Sequence[Operand] | None = None,
) -> Tensor | list[Tensor]:
    """Return the gradients of the sum over `outputs` of <output, its gradient> with respect to `wrt`.

    Args:
        outputs: one tensor or several.
        wrt: tensors of float type: inputs, constants or any value in between. What an output does not depend on has gradient 0.
        output_grads: the loss's gradient with respect to each output, each of its shape; left out, every output must have one
            element and is itself (a part of) the loss.

    Returns:
        A tensor for a tensor, a list for a list; each of the shape and element type of its `wrt`. They are ordinary tensors:
        `grad` of them is the second derivative.

    Raises:
        ShapeError: if `output_grads` do not fit the outputs, or are left out where an output has more than one element.
        DTypeError: if a tensor of `wrt` or `outputs` is not of a float type.
        UnsupportedModelError: if a gradient leads through an op that has none, as those that only ONNX models have.

    Kinks and ties: relu, abs: 0 at 0; clip: 1 on its bounds; maximum, minimum: half to each of two equal operands; max_pool,
    reduce_max, reduce_min: all to every element that equals the maximum (Theano's rule; PyTorch takes the first one).

    Source:
        Griewank, Walther: Evaluating Derivatives, 2nd ed., chapter 3 (reverse mode); the interface is Theano's `grad`.
    """
    return _grad(outputs, wrt, output_grads)


@building
def _grad(
    outputs: Tensor | Sequence[Tensor],
    wrt: Tensor | Sequence[Tensor],
    output_grads: Operand | Sequence[Operand] | None,
) -> Tensor | list[Tensor]:
    # What is neither is refused by _check_floats, as the one tensor that it is not.
    results, targets = _several(outputs), _several(wrt)
    _check_floats(results, "outputs")
    _check_floats(targets, "wrt")
    parts: dict[Tensor, list[Tensor]] = {}
    for result, seed in zip(results, _seeds(results, outputs, output_grads), strict=True):
        parts.setdefault(result, []).append(seed)
    order = collected(results)
    depends = _dependent(order, targets)
    sums: dict[Tensor, Tensor] = {}
    for tensor in reversed(order):
        if tensor not in parts or tensor not in depends:
            continue
        sums[tensor] = _sum(parts.pop(tensor))
        needed = tuple(p in depends for p in tensor.producers)
        if not any(needed):
            continue
        if tensor.node.op not in RULES:
            raise UnsupportedModelError(f"every op between outputs and wrt must be differentiable; got {tensor!r}.")  # fmt: skip
        gradients = RULES[tensor.node.op](Call(tensor, sums[tensor], needed))
        for producer, gradient, asked in zip(tensor.producers, gradients, needed, strict=True):
            if asked and gradient is not None:
                parts.setdefault(producer, []).append(gradient)
    found = [sums[t] if t in sums else _zeros(t) for t in targets]
    return found[0] if isinstance(wrt, Tensor) else found


_grad.__name__ = "grad"


def _several(given: Tensor | Sequence[Tensor]) -> list[Tensor]:
    entries = listed(given)
    return [given] if entries is None else entries  # type: ignore[list-item]


def _check_floats(tensors: Iterable[Tensor], argument: str) -> None:
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise DTypeError(f"{argument} must be a tensor or a list of them; got {tensor!r}.")
        if not tensor.node.type.is_float:
            raise DTypeError(f"{argument} must have a float type; got {tensor!r}.")


def _seeds(
    results: list[Tensor],
    outputs: Tensor | Sequence[Tensor],
    output_grads: Operand | Sequence[Operand] | None,
) -> list[Tensor]:
    """Return the gradient with respect to each output."""
    if output_grads is None:
        for result in results:
            if result.node.type.size != 1:
                raise ShapeError(
                    f"outputs must have one element each where output_grads are left out; got {result!r}. "
                    "Give output_grads, or differentiate a sum or mean."
                )
        return [_full(result, 1.0) for result in results]
    if isinstance(outputs, Tensor):
        given = [as_tensor(output_grads, outputs.dtype)]  # type: ignore[arg-type]
    else:
        if not isinstance(output_grads, Sequence):
            raise ShapeError(
                f"output_grads must be one for each of {len(results)} outputs; got {output_grads!r}."
            )
        given = [as_tensor(g, r.dtype) for g, r in zip(output_grads, results, strict=False)]
        if len(output_grads) != len(results):
            raise ShapeError(
                f"output_grads must be one for each of {len(results)} outputs; got {len(output_grads)}."
            )
    for result, seed in zip(results, given, strict=True):
        if seed.node.type != result.node.type:
            raise ShapeError(
                f"output_grads must be like their outputs; got {seed.node.type} for {result!r}."
            )
    return given


def _full(tensor: Tensor, value: float) -> Tensor:
    filled = np.full(tensor.shape, value, numpy_dtype(tensor.dtype))
    return constant(filled)


def _zeros(tensor: Tensor) -> Tensor:
    return _full(tensor, 0.0)


def _sum(parts: list[Tensor]) -> Tensor:
    """Return the sum, in the order in which the parts were found: always the same."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _dependent(order: list[Tensor], targets: list[Tensor]) -> set[Tensor]:
    """Return the tensors that depend on a target, targets included."""
    found = set(targets)
    for tensor in order:
        if any(p in found for p in tensor.producers):
            found.add(tensor)
    return found
