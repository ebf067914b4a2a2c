"""A node's attributes, read by name and type; whatever no converter read is reported, never dropped in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto

from convc.errors import InvalidModelError
from convc.frontend.onnx.refusal import Unsupported
from convc.frontend.onnx.tensors import TensorReader

__all__ = ["AttributeReader"]

T = TypeVar("T")

TYPE_NAMES: Final = {
    AttributeProto.INT: "an int",
    AttributeProto.INTS: "a list of ints",
    AttributeProto.FLOAT: "a float",
    AttributeProto.FLOATS: "a list of floats",
    AttributeProto.STRING: "a string",
    AttributeProto.STRINGS: "a list of strings",
    AttributeProto.GRAPH: "a graph",
    AttributeProto.TENSOR: "a tensor",
}


class AttributeReader:
    """Reads each attribute once, with ONNX's default; `finish` refuses the ones nobody asked for.

    Example:
        >>> node = onnx.helper.make_node("LRN", ["x"], ["y"], size=5, alpha=0.5)
        >>> reader = AttributeReader("LRN", node.attribute)
        >>> reader.integer("size"), reader.real("alpha", 0.0001), reader.real("beta", 0.75)
        (5, 0.5, 0.75)
        >>> reader.finish()
    """

    def __init__(
        self,
        op_type: str,
        attributes: Iterable[AttributeProto],
        tensors: TensorReader | None = None,
    ) -> None:
        self._op_type = op_type
        self._attributes = {a.name: a for a in attributes}
        self._unread = dict.fromkeys(self._attributes)
        self._tensors = tensors or TensorReader(None)

    def _read(
        self,
        name: str,
        kind: AttributeProto.AttributeType,
        default: T | None,
        value: Callable[[AttributeProto], T],
    ) -> T:
        self._unread.pop(name, None)
        attribute = self._attributes.get(name)
        if attribute is None:
            if default is None:
                raise InvalidModelError(
                    f"{self._op_type} must have attribute {name}; it is missing."
                )
            return default
        if attribute.type != kind:
            got = AttributeProto.AttributeType.Name(attribute.type)
            raise InvalidModelError(
                f"{self._op_type} attribute {name} must be {TYPE_NAMES[kind]}; got {got}."
            )
        return value(attribute)

    def __contains__(self, name: str) -> bool:
        return name in self._attributes

    def integer(self, name: str, default: int | None = None) -> int:
        """Return an int; without a default it is required."""
        return self._read(name, AttributeProto.INT, default, lambda a: int(a.i))

    def flag(self, name: str, default: bool) -> bool:
        """Return an int that stands for a truth value."""
        return bool(self.integer(name, int(default)))

    def integers(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """Return a list of ints; without a default it is required."""
        return self._read(name, AttributeProto.INTS, default, lambda a: tuple(map(int, a.ints)))

    def real(self, name: str, default: float | None = None) -> float:
        """Return a float: the shortest decimal that is the float32 in the file, so that 0.1 prints as 0.1."""
        value = self._read(name, AttributeProto.FLOAT, default, lambda a: float(a.f))
        return _shortest(value)

    def reals(self, name: str, default: tuple[float, ...] | None = None) -> tuple[float, ...]:
        """Return a list of floats, each as `real`; without a default it is required."""
        return self._read(
            name, AttributeProto.FLOATS, default, lambda a: tuple(map(_shortest, a.floats))
        )

    def text(self, name: str, default: str | None = None, choices: tuple[str, ...] = ()) -> str:
        """Return a string; one outside `choices` (if any are given) is not supported."""
        value = self._read(
            name, AttributeProto.STRING, default, lambda a: a.s.decode("utf-8", "replace")
        )
        if choices and value not in choices:
            raise Unsupported(f"attribute {name}={value} (only {', '.join(choices)})")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of strings; it is required."""
        return self._read(
            name,
            AttributeProto.STRINGS,
            None,
            lambda a: tuple(s.decode("utf-8", "replace") for s in a.strings),
        )

    def graph(self, name: str) -> GraphProto:
        """Return a body; it is required."""
        return self._read(name, AttributeProto.GRAPH, None, lambda a: a.g)

    def tensor(self, name: str) -> np.ndarray:
        """Return a tensor's array; it is required."""
        return self._read(name, AttributeProto.TENSOR, None, lambda a: self._tensors.array(a.t))

    def only(self, name: str, value: int | float | str) -> None:
        """Refuse an attribute that is present with another value than the one that convc takes."""
        attribute = self._attributes.get(name)
        self._unread.pop(name, None)
        if attribute is None:
            return
        got = onnx.helper.get_attribute_value(attribute)
        got = got.decode("utf-8", "replace") if isinstance(got, bytes) else got
        if got != value:
            raise Unsupported(f"attribute {name}={got} (only {value})")

    def ignore(self, *names: str) -> None:
        """Count attributes as read that cannot change the result; the caller says why."""
        for name in names:
            self._unread.pop(name, None)

    def finish(self) -> None:
        """Refuse the node if an attribute was never read."""
        if self._unread:
            raise Unsupported(f"attribute {', '.join(self._unread)}")


def _shortest(value: float) -> float:
    """Return the shortest decimal that is the same float32: 0.1, not 0.10000000149011612."""
    with np.errstate(over="ignore"):
        return float(str(np.float32(value)))
