"""OperatorNode: what a converter sees of one ONNX node, and the tape it writes IR ops on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto

from convc.frontend.onnx.attributes import AttributeReader
from convc.frontend.onnx.refusal import Unsupported
from convc.frontend.onnx.values import ValueTable
from convc.ir import TensorType
from convc.ir.ops import Attributes
from convc.ir.ops.definition import Array
from convc.ir.types import numpy_dtype

__all__ = ["OperatorNode"]


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
        self, proto: NodeProto, version: int, values: ValueTable, attributes: AttributeReader
    ) -> None:
        self.op_type = proto.op_type
        self.version = version
        self.inputs = list(proto.input)
        while self.inputs and not self.inputs[-1]:
            self.inputs.pop()
        self.outputs = list(proto.output)
        self.attributes = attributes
        self._values = values

    # ---- operands -----------------------------------------------------------------------------------------------

    def has(self, index: int) -> bool:
        """Return whether an optional input is given."""
        return index < len(self.inputs) and bool(self.inputs[index])

    def value(self, index: int = 0) -> str:
        """Return an input as a value of the graph."""
        return self._values.operand(self.inputs[index])

    def type(self, index: int = 0) -> TensorType:
        """Return an input's shape and element type."""
        return self._values.type(self.inputs[index])

    def is_constant(self, index: int) -> bool:
        """Return whether an input is given and known at import."""
        return self.has(index) and self._values.is_constant(self.inputs[index])

    def constant(self, index: int) -> Array:
        """Return an input's contents; Unsupported if they are only known at run time."""
        return self._values.constant(self.inputs[index])

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

    def require_float(self, *indices: int) -> None:
        """Refuse integer arithmetic at run time: convc computes on floats, and folds integers that are constant."""
        for index in indices:
            if not self.type(index).is_float:
                raise Unsupported(f"depends on runtime values of '{self.inputs[index]}'")

    # ---- writing ------------------------------------------------------------------------------------------------

    def emit(
        self, op: str, inputs: Sequence[str], attributes: Attributes | None = None, output: int = 0
    ) -> str:
        """Add the op that produces an output, under the output's ONNX name."""
        return self._values.builder.add(op, inputs, attributes, self.outputs[output])

    def step(self, op: str, inputs: Sequence[str], attributes: Attributes | None = None) -> str:
        """Add an op on the way to the output."""
        return self._values.builder.add(op, inputs, attributes, f"{self.outputs[0]}/{op}")

    def literal(self, value: Array | float, dtype: str, stem: str) -> str:
        """Add a constant that is not in the file."""
        array = np.asarray(value, numpy_dtype(dtype))
        return self._values.emit_constant(array, f"{self.outputs[0]}/{stem}")

    def step_type(self, value: str) -> TensorType:
        """Return the type of a value of the graph."""
        return self._values.builder.type(value)
