"""What each ONNX name stands for during an import: a constant, a value of the graph, or nothing because its node was refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from convc.errors import InvalidModelError
from convc.frontend.onnx.counted import Counted, CountedValue
from convc.frontend.onnx.narrow import NARROW, NarrowValue, carried, narrow_name, natural
from convc.frontend.onnx.refusal import Unsupported
from convc.frontend.onnx.sequences import SequenceValue
from convc.frontend.onnx.tensors import TensorReader
from convc.ir import Graph, GraphBuilder, TensorType
from convc.ir.ops.definition import Array
from convc.ir.types import dtype_name

__all__ = ["BodyRefused", "Refused", "ValueTable", "is_splat"]


@dataclass(frozen=True, slots=True)
class Refused:
    """The value of a node that could not be imported; what depends on it is skipped, not reported again."""


class BodyRefused(Exception):  # noqa: N818  # no error: what was refused is in the report already
    """An output of a body could not be imported, and so neither can the node that holds the body."""


def is_splat(array: Array) -> bool:
    """Return whether an array is one stored element, repeated by strides of 0."""
    return array.size > 0 and not any(array.strides)


class ValueTable:
    """ONNX name -> value. A constant becomes a node only when an op reads it."""

    def __init__(self, builder: GraphBuilder, tensors: TensorReader) -> None:
        self.builder = builder
        self._tensors = tensors
        self._known: dict[str, Array | TensorProto | str | SequenceValue | Refused] = {}
        self._emitted: dict[str, str] = {}
        self._narrow: dict[str, str] = {}
        self._counted: dict[str, Counted] = {}

    def define(
        self,
        name: str,
        value: Array | TensorProto | str | NarrowValue | CountedValue | SequenceValue | Refused,
    ) -> None:
        """Give a name its meaning: an array, a tensor not read yet, a value of the builder, or a sequence of them."""
        self._narrow.pop(name, None)
        self._counted.pop(name, None)
        if isinstance(value, CountedValue):
            value, self._counted[name] = value
        if isinstance(value, NarrowValue):
            value, self._narrow[name] = value
        elif isinstance(value, TensorProto) and narrow_name(value.data_type):
            self._narrow[name] = narrow_name(value.data_type)
        elif isinstance(value, np.ndarray) and value.dtype.name in NARROW:
            self._narrow[name] = value.dtype.name
            value = carried(value)
        self._known[name] = value
        self._emitted.pop(name, None)  # a body that is written out again defines its names anew

    def _look_up(self, name: str) -> Array | TensorProto | str | SequenceValue | Refused:
        if name not in self._known:
            raise InvalidModelError(f"value '{name}' must be defined before its use; it is not.")
        return self._known[name]

    def sequence(self, name: str) -> SequenceValue | None:
        """Return the tensors of a sequence; None of what is none."""
        value = self._look_up(name)
        return value if isinstance(value, SequenceValue) else None

    def meaning(self, name: str) -> Array | str | SequenceValue:
        """Return the array of a constant, the builder's value, or a sequence of them.

        Raises:
            BodyRefused: if the node that makes it was refused.
        """
        value = self._look_up(name)
        if isinstance(value, Refused):
            raise BodyRefused
        if name in self._narrow:
            raise Unsupported(f"a body's result '{name}' of type {self._narrow[name]}")
        if name in self._counted:
            raise Unsupported(f"a body's result '{name}' whose size is known at run time only")
        return value if isinstance(value, str | SequenceValue) else self.constant(name)

    def narrow(self, name: str) -> str:
        """Return the narrow type that a value carries, "" if it is what it seems."""
        return self._narrow.get(name, "")

    def counted(self, name: str) -> Counted | None:
        """Return how much of a value is there; None if all of it is."""
        return self._counted.get(name)

    def natural(self, name: str) -> Array:
        """Return a constant's array in the type that it has in ONNX."""
        array = self.constant(name)
        return natural(array, self._narrow[name]) if name in self._narrow else array

    def is_refused(self, name: str) -> bool:
        return isinstance(self._look_up(name), Refused)

    def is_constant(self, name: str) -> bool:
        return isinstance(self._look_up(name), np.ndarray | TensorProto)

    def constant(self, name: str) -> Array:
        """Return a constant's array; Unsupported if the value is only known at run time."""
        value = self._look_up(name)
        if isinstance(value, TensorProto):
            array = self._tensors.array(value)
            value = self._known[name] = carried(array) if name in self._narrow else array
        if isinstance(value, SequenceValue):
            raise Unsupported(f"'{name}' is a sequence of tensors")
        if not isinstance(value, np.ndarray):
            raise Unsupported(f"depends on runtime values of '{name}'")
        return value

    def type(self, name: str) -> TensorType:
        """Return a value's shape and element type."""
        value = self._look_up(name)
        if isinstance(value, str):
            return self.builder.type(value)
        array = self.constant(name)
        return TensorType(array.shape, dtype_name(array.dtype))

    def operand(self, name: str) -> str:
        """Return the builder's value, adding a constant node under its ONNX name at first use."""
        value = self._look_up(name)
        if isinstance(value, str):
            return value
        if name not in self._emitted:
            self._emitted[name] = self.emit_constant(self.constant(name), name)
        return self._emitted[name]

    def emit_constant(self, array: Array, name: str) -> str:
        """Add a constant node; a splat stays one stored element, anything else is made contiguous."""
        if not is_splat(array) and not array.flags.c_contiguous:
            array = np.ascontiguousarray(array)
        return self.builder.constant(array, name)

    def finish(self, names: Sequence[str]) -> Graph:
        """Return the graph with these outputs; after them those that count outputs whose size is data."""
        for name in names:
            if self.sequence(name) is not None:
                raise InvalidModelError(f"output '{name}' must be a tensor; got a sequence. Make its tensors outputs of their own.")  # fmt: skip
        outputs = {name: self.operand(name) for name in names}
        counters: dict[str, str] = {}  # the value that counts -> its public name
        counts = {}
        for name in names:
            counted = self.counted(name)
            if counted is not None:
                public = f"{name}.count"
                while public in outputs:  # one of the model's own
                    public += "_"
                counts[name] = counters.setdefault(counted.counter, public), counted.axis
        outputs |= {public: value for value, public in counters.items()}
        return self.builder.finish(outputs, counts)
