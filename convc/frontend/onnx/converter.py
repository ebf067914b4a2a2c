"""Converter rows: which ONNX operator versions convc takes, and the "no with a reason" that a converter answers otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from convc.frontend.onnx.counted import CountedValue
from convc.frontend.onnx.narrow import NarrowValue
from convc.frontend.onnx.sequences import SequenceValue
from convc.ir.ops.definition import Array

if TYPE_CHECKING:
    from convc.frontend.onnx.operator_node import OperatorNode

__all__ = ["Converter", "Result", "Value", "display_domain"]


Value: TypeAlias = "str | Array | NarrowValue | CountedValue | SequenceValue"
Result: TypeAlias = "Value | tuple[Value, ...]"


@dataclass(frozen=True, slots=True)
class Converter:
    """One row: an operator at exactly the listed versions, and the function that writes it as IR ops.

    Attributes:
        op_type: ONNX's name.
        since: every `since_version` whose meaning `convert` implements; a version in no row is reported as unsupported.
        convert: (node) -> an IR value or a constant array for each output that is used; raises Unsupported.
        folds: whether onnx.reference computes exactly these versions, so that a node of constants is evaluated at import.
        note: what is left out, for `convc ops`.
        domain: "" is ai.onnx.
        narrow: what it does with values of the narrow types (see narrow.py): "" refuses them, "reads" knows what they stand for,
            "moves" only moves them, so that the result is of operand 0's type.
    """

    op_type: str
    since: tuple[int, ...]
    convert: Callable[[OperatorNode], Result]
    note: str = ""
    folds: bool = False
    domain: str = ""
    narrow: str = ""


def display_domain(domain: str) -> str:
    """Return a domain as people write it.

    Example:
        >>> display_domain(""), display_domain("acme")
        ('ai.onnx', 'acme')
    """
    return domain or "ai.onnx"
