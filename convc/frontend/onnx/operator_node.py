"""OperatorNode: what a converter sees of one ONNX node, and the tape it writes IR ops on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from onnx import GraphProto, NodeProto

from convc.errors import InvalidModelError
from convc.frontend.onnx.attributes import AttributeReader
from convc.frontend.onnx.origins import Origin, Origins
from convc.frontend.onnx.refusal import Unsupported
from convc.frontend.onnx.sequences import SequenceValue
from convc.frontend.onnx.values import ValueTable
from convc.ir import TensorType
from convc.ir.ops import Attributes
from convc.ir.ops.definition import Array
from convc.ir.ops.logic import CastAttributes
from convc.ir.types import numpy_dtype

__all__ = ["BodyImporter", "Operand", "OperatorNode"]

# An array that is known at import, a value of the graph, or a list of both.
Operand: TypeAlias = "str | Array | SequenceValue"
BodyImporter: TypeAlias = "Callable[[GraphProto, Sequence[Operand]], list[Operand]]"


class OperatorNode:
    """One ONNX node.

    Attributes:
        op_type: ONNX's name.
        version: the operator's `since_version` at the model's opset.
        inputs: ONNX names, trailing omitted ones dropped; "" is an omitted one in the middle.
        outputs: ONNX names.
        attributes: to be read by the converter, all of them.
    """

    def __init__(
        self,
        proto: NodeProto,
        version: int,
        values: ValueTable,
        attributes: AttributeReader,
        bodies: BodyImporter,
        origins: Origins | None = None,
    ) -> None:
        self.op_type = proto.op_type
        self.version = version
        self.inputs = list(proto.input)
        while self.inputs and not self.inputs[-1]:
            self.inputs.pop()
        self.outputs = list(proto.output)
        if not self.outputs:
            raise InvalidModelError(f"{self.op_type} must have an output; it has none.")
        self.attributes = attributes
        self._values = values
        self._bodies = bodies
        self._origins = origins

    # ---- operands -----------------------------------------------------------------------------------------------

    def has(self, index: int) -> bool:
        """Return whether an optional input is given."""
        return index < len(self.inputs) and bool(self.inputs[index])

    def _name(self, index: int) -> str:
        """Return the name of an input that the operator cannot do without.

        onnx's checker counts inputs by the operator's own versions, so that too few are rare: a body's, or one left out by "".
        """
        if not self.has(index):
            raise InvalidModelError(
                f"{self.op_type} must be given input {index}; got {', '.join(map(repr, self.inputs)) or 'none'}."
            )
        return self.inputs[index]

    def value(self, index: int = 0) -> str:
        """Return an input as a value of the graph."""
        return self._values.operand(self._name(index))

    def operand(self, index: int) -> str | Array:
        """Return an input: its array if it is known at import, else a value of the graph."""
        return self.constant(index) if self.is_constant(index) else self.value(index)

    def sequence(self, index: int) -> tuple[str | Array, ...]:
        """Return what is in an input that is a sequence."""
        value = self.argument(index)
        if not isinstance(value, SequenceValue):
            raise InvalidModelError(f"{self.op_type} input {index} must be a sequence; got {self.type(index)}.")  # fmt: skip
        return value.elements

    def argument(self, index: int) -> Operand:
        """Return an input as what a body is given: as `operand`, or a sequence."""
        held = self._values.sequence(self._name(index))
        return self.operand(index) if held is None else held

    def type(self, index: int = 0) -> TensorType:
        """Return an input's shape and element type."""
        return self._values.type(self._name(index))

    def narrow(self, index: int = 0) -> str:
        """Return the narrow type that an input carries, "" if it is what it seems."""
        return self._values.narrow(self._name(index))

    def is_constant(self, index: int) -> bool:
        """Return whether an input is given and known at import."""
        return self.has(index) and self._values.is_constant(self.inputs[index])

    def is_counted(self, index: int) -> bool:
        """Return whether only a part of an input is there; see `counted`."""
        return self._values.counted(self._name(index)) is not None

    def constant(self, index: int) -> Array:
        """Return an input's contents; Unsupported if they are only known at run time."""
        return self._values.constant(self._name(index))

    def constant_integers(self, index: int) -> tuple[int, ...]:
        """Return the contents of an input of integers, such as axes or a shape."""
        return tuple(int(v) for v in self.constant(index).reshape(-1))

    def constant_scalar(self, index: int) -> int | float | bool:
        """Return the contents of an input of one element."""
        array = self.constant(index)
        if array.size != 1:
            raise Unsupported(
                f"input '{self.inputs[index]}' of shape {list(array.shape)} (only a scalar)"
            )
        return array.reshape(()).item()

    @property
    def is_open(self) -> bool:
        """Whether height and width are open: extents follow from others, see `origins`."""
        return self._origins is not None

    def origins(self, index: int) -> tuple[Origin | None, ...]:
        """Return which extent each element of a constant input follows from; None where it is written in the model."""
        assert self._origins is not None, "asked for where height and width are open only"
        return self._origins.of(self._name(index))

    # ---- writing ------------------------------------------------------------------------------------------------

    def emit(
        self, op: str, inputs: Sequence[str], attributes: Attributes | None = None, output: int = 0
    ) -> str:
        """Add the op that produces an output, under the output's ONNX name."""
        return self._values.builder.add(op, inputs, attributes, self.outputs[output])

    def inner(self, stem: str) -> OperatorNode:
        """Return the node as one whose only output is on the way to this one's: another operator's converter writes its part."""
        part = copy.copy(self)
        part.outputs = [f"{self.outputs[0]}/{stem}"]
        return part

    def step(self, op: str, inputs: Sequence[str], attributes: Attributes | None = None) -> str:
        """Add an op on the way to the output."""
        return self._values.builder.add(op, inputs, attributes, f"{self.outputs[0]}/{op}")

    def cast(self, value: str, dtype: str) -> str:
        """Return the value in another element type; itself if it has it."""
        if self.step_type(value).dtype == dtype:
            return value
        return self.step("cast", [value], CastAttributes(dtype))

    def literal(self, value: Array | float, dtype: str, stem: str) -> str:
        """Add a constant that is not in the file."""
        array = np.asarray(value, numpy_dtype(dtype))
        return self._values.emit_constant(array, f"{self.outputs[0]}/{stem}")

    def as_value(self, value: Operand) -> str:
        """Return a value of the graph for an array, too."""
        if isinstance(value, str):
            return value
        if isinstance(value, SequenceValue):
            raise Unsupported("a sequence of tensors that only a run would choose")
        return self._values.emit_constant(value, f"{self.outputs[0]}/constant")

    def body(self, name: str, arguments: Sequence[Operand]) -> list[Operand]:
        """Write a body's nodes into the graph, its inputs bound to `arguments`, and return its outputs."""
        return self._bodies(self.attributes.graph(name), arguments)

    def step_type(self, value: str) -> TensorType:
        """Return the type of a value of the graph."""
        return self._values.builder.type(value)
