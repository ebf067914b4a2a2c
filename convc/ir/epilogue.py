"""Epilogue: the elementwise steps that run on the accumulators of a convolution, dense layer or matrix product before they are stored.

Each step is either an operand step, which takes the node's next extra operand, or a scalar function of `ops.elementwise.UNARY`:

    bias            + b[k], b of shape (K,)
    add             + r, r of the result's shape (a residual); a matrix product's may broadcast to it (a mask of attention)
    mul             * f, a matrix product's alone, likewise (attention's scale)
    relu, silu, clip(0, 6), leaky_relu(0.1) ...

    Rewrite:
        %y = conv(%x, %w);  %z = add(%y, %r);  %o = relu(%z)
        -->
        %o = conv(%x, %w, %r) {epilogue = [add, relu]}
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from convc.errors import ShapeError, unknown_name
from convc.ir.ops.definition import Array
from convc.ir.ops.elementwise import UNARY
from convc.ir.types import HALVES, Shape, TensorType

__all__ = [
    "OPERAND_STEPS",
    "POLYNOMIALS",
    "PRODUCT_STEPS",
    "Step",
    "apply_epilogue",
    "check_epilogue",
    "is_small",
]

OPERAND_STEPS: Final = ("bias", "add")
# What a matrix product takes beside them.
PRODUCT_STEPS: Final = ("mul",)
_TAKING: Final = (*OPERAND_STEPS, *PRODUCT_STEPS)

# Functions that a compiler writes out as a polynomial, which reads its argument about 20 times; two comparisons read it 4 times; other
# functions at most 3 times.
POLYNOMIALS: Final = frozenset({"elu", "erf", "exp", "gelu", "sigmoid", "silu", "softplus", "tanh"})
_CLIPS: Final = frozenset({"clip", "hard_sigmoid", "hard_swish"})
# softplus, then tanh in one kernel: 400 copies of the argument, and 7 s to compile it; one more function: minutes. Three clips: 64, 25 s.
_COPIES: Final = 63


def is_small(functions: Iterable[str]) -> bool:
    """Whether a chain of scalar functions, each written out inside the next, stays small enough for one kernel.

    Example:
        >>> is_small(["relu", "silu"]), is_small(["softplus", "tanh"]), is_small(["clip"] * 3)
        (True, False, False)
    """
    copies = (20 if name in POLYNOMIALS else 4 if name in _CLIPS else 3 for name in functions)
    return math.prod(copies) <= _COPIES


@dataclass(frozen=True, slots=True)
class Step:
    """One elementwise step; `arguments` are the scalar function's parameters, in order, all of them.

    Example:
        >>> print(Step("clip", (0.0, 6.0)), Step.parse("relu"))
        clip(0.0, 6.0) relu
    """

    name: str
    arguments: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in _TAKING and self.name not in UNARY:
            raise unknown_name("epilogue step", self.name, (*_TAKING, *UNARY))
        wanted = 0 if self.takes_operand else len(UNARY[self.name].attributes.__dataclass_fields__)
        if len(self.arguments) != wanted:
            raise ShapeError(
                f"epilogue step {self.name} must have {wanted} arguments; got {self.arguments}."
            )

    @property
    def takes_operand(self) -> bool:
        return self.name in _TAKING

    def __str__(self) -> str:
        return (
            f"{self.name}({', '.join(map(repr, self.arguments))})" if self.arguments else self.name
        )

    @staticmethod
    def parse(text: str) -> Step:
        """Return the step that `str` printed."""
        found = re.fullmatch(r"\s*(\w+)\s*(?:\(([^)]*)\))?\s*", text)
        if not found:
            raise ShapeError(f"epilogue step must look like 'clip(0.0, 6.0)'; got '{text}'.")
        try:
            arguments = tuple(float(a) for a in found[2].split(",")) if found[2] else ()
        except ValueError:
            raise ShapeError(
                f"epilogue step must have numbers, as 'clip(0.0, 6.0)'; got '{text}'."
            ) from None
        return Step(found[1], arguments)


def check_epilogue(
    op: str,
    steps: Sequence[Step],
    extras: Sequence[TensorType],
    result: TensorType,
    channel_axis: int,
    *,
    spreads: bool = False,
) -> None:
    """Raise ShapeError unless `extras` are exactly the operands that `steps` take from a result of type `result`.

    `spreads`: the op is a matrix product, whose operands may broadcast to its result and be factors.
    """
    wanted = [s.name for s in steps if s.takes_operand]
    if not spreads and any(name in PRODUCT_STEPS for name in wanted):
        raise ShapeError(
            f"{op} epilogue must have operands of steps {' and '.join(OPERAND_STEPS)} alone; got {', '.join(wanted)}."
        )
    if len(wanted) != len(extras):
        raise ShapeError(
            f"{op} must have one extra operand per operand step of its epilogue; got {len(extras)} for {wanted}."
        )
    for name, extra in zip(wanted, extras, strict=True):
        shape = (result.shape[channel_axis],) if name == "bias" else result.shape
        if spreads and name != "bias" and _broadcasts(extra.shape, shape):
            shape = extra.shape
        # A bias is added to sums in float32: there is nothing to gain from rounding it.
        exact = name == "bias" and result.dtype in HALVES and extra == TensorType(shape)
        if extra != TensorType(shape, result.dtype) and not exact:
            raise ShapeError(
                f"{op} {name} operand must be {TensorType(shape, result.dtype)}; got {extra}."
            )


def _broadcasts(shape: Shape, result: Shape) -> bool:
    """Whether an operand broadcasts to a result without making it larger."""
    pairs = zip(reversed(shape), reversed(result), strict=False)
    return len(shape) <= len(result) and all(n in (1, m) for n, m in pairs)


def apply_epilogue(
    y: Array, steps: Sequence[Step], extras: Sequence[Array], channel_axis: int
) -> Array:
    """Return `y` after all steps: the reference."""
    operands = iter(extras)
    for step in steps:
        if step.name == "bias":
            shape = [1] * y.ndim
            shape[channel_axis] = -1
            y = y + np.reshape(next(operands), shape)
        elif step.name == "add":
            y = y + next(operands)
        elif step.name == "mul":
            y = y * next(operands)
        else:
            y = UNARY[step.name].function(y, *step.arguments)
    return y
