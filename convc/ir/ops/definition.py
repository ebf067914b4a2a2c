"""What an op is: one row with its name, attributes, shape rule and NumPy reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeAlias

import numpy as np

from convc.errors import ShapeError
from convc.ir.types import TensorType

__all__ = ["Array", "Attributes", "Floats", "OpDef", "check_arity"]

Array: TypeAlias = np.ndarray


@dataclass(frozen=True, slots=True)
class Attributes:
    """Base of every op's attributes: a frozen dataclass of ints, floats, strings, booleans and tuples of them.

    The text form prints and parses these by their field names and annotations; a field at its default is not printed.
    """


class Floats(Enum):
    """What an op computes in where a graph's floats are made narrower, see `ir.passes.convert_floats`.

    WIDE      norms, means, sums, softmax, exp ...       float32 at least, whatever its operands are
    NEUTRAL   moves, choices, + - x, relu ...            as its operands are
    PRODUCT   conv, dense, matmul                        operands and result narrow, sums, bias and epilogue in float32
    FIXED     floats are scales, or bits                 as the model has them
    """

    WIDE = auto()
    NEUTRAL = auto()
    PRODUCT = auto()
    FIXED = auto()


@dataclass(frozen=True, slots=True)
class OpDef:
    """One op of the IR.

    Attributes:
        name: as in the text form.
        attributes: the dataclass of its attributes.
        arity: least and greatest number of operands; a greatest of None means any number.
        infer: (operand types, attributes) -> result type; raises ShapeError or DTypeError when they do not fit.
        reference: (operand arrays, attributes) -> result; floats arrive as float64 and stay so. This is the oracle.
        elementwise: result element i depends on operand elements i alone (after broadcasting).
        floats: what it computes in where floats are made narrower.
    """

    name: str
    attributes: type[Attributes]
    arity: tuple[int, int | None]
    # Any stands for `attributes`, the row's own class, which a table of rows cannot express.
    infer: Callable[[Sequence[TensorType], Any], TensorType]
    reference: Callable[[Sequence[Array], Any], Array]
    elementwise: bool = False
    floats: Floats = Floats.WIDE

    def keeps_zero(self, attributes: Attributes) -> bool:
        """Return whether this is a function of one operand, element by element, that gives 0 for 0: its reference says.

        Example:
            >>> from convc.ir.ops import OPS
            >>> from convc.ir.ops.elementwise import ClipAttributes, NoAttributes
            >>> OPS["relu"].keeps_zero(NoAttributes()), OPS["exp"].keeps_zero(NoAttributes())
            (True, False)
            >>> OPS["clip"].keeps_zero(ClipAttributes(0.0, 6.0)), OPS["clip"].keeps_zero(ClipAttributes(1.0))
            (True, False)
        """
        if not self.elementwise or self.arity != (1, 1):
            return False
        with np.errstate(all="ignore"):
            return not np.any(self.reference([np.zeros(1, np.int64)], attributes))


def check_arity(op: OpDef, count: int) -> None:
    """Raise ShapeError if `op` does not take `count` operands."""
    least, greatest = op.arity
    if count < least or (greatest is not None and count > greatest):
        wanted = (
            str(least)
            if least == greatest
            else f"at least {least}"
            if greatest is None
            else f"{least} to {greatest}"
        )
        raise ShapeError(f"{op.name} must have {wanted} operands; got {count}.")
