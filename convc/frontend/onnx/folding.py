"""ConstantFolder: evaluate a node of constants with onnx.reference, if its result is not too large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from convc.errors import InvalidModelError
from convc.frontend.onnx.inference import SMALL_ELEMENTS
from convc.frontend.onnx.values import is_splat
from convc.ir.ops.definition import Array

__all__ = ["LIMIT_BYTES", "ConstantFolder"]

# A folded constant is stored in the compiled module; a larger result is left to the graph.
LIMIT_BYTES: Final = 2**30


class ConstantFolder:
    """Evaluates nodes; one evaluator per distinct operator, attributes and operand types serves all alike.

    Example:
        >>> node = helper.make_node("Gather", ["shape", "index"], ["h"])
        >>> ConstantFolder({"": 18}).fold(node, [np.array([1, 3, 224, 224]), np.array(2)])
        [array(224)]
    """

    def __init__(self, opsets: Mapping[str, int], limit_bytes: int = LIMIT_BYTES) -> None:
        self._opset = opsets.get("", int(onnx.defs.onnx_opset_version()))
        self._limit = limit_bytes
        self._evaluators: dict[bytes, ReferenceEvaluator] = {}

    def fold(self, node: NodeProto, inputs: Sequence[Array | None]) -> list[Array | None] | None:
        """Return the node's outputs, None for an omitted one; None in all if they would be too large.

        Raises:
            InvalidModelError: if the node cannot be computed from these operands.
        """
        canonical = NodeProto(op_type=node.op_type)
        canonical.attribute.extend(node.attribute)
        canonical.input.extend("" if a is None else f"i{i}" for i, a in enumerate(inputs))
        canonical.output.extend(f"o{i}" if name else "" for i, name in enumerate(node.output))
        if self._predicted_bytes(canonical, inputs) > self._limit:
            return None
        types = [(a.dtype, a.ndim) for a in inputs if a is not None]
        key = canonical.SerializeToString(deterministic=True) + repr(types).encode()
        feeds = {f"i{i}": a for i, a in enumerate(inputs) if a is not None}
        try:
            if key not in self._evaluators:
                model = self._model(canonical, inputs, small=False)
                self._evaluators[key] = ReferenceEvaluator(model)
            with np.errstate(all="ignore"):
                results = self._evaluators[key].run(None, feeds)
        except (
            ValueError,
            TypeError,
            IndexError,
            RuntimeError,
            ArithmeticError,
            AssertionError,
        ) as error:
            shapes = ", ".join("-" if a is None else f"{a.dtype}{list(a.shape)}" for a in inputs)
            raise InvalidModelError(
                f"{node.op_type} of constants must be computable; got {shapes}: {error}"
            ) from error
        arrays = [np.asarray(r) for r in results]
        if sum(map(_stored_bytes, arrays)) > self._limit:
            return None
        named = iter(arrays)
        return [next(named) if name else None for name in node.output]

    def _model(self, node: NodeProto, inputs: Sequence[Array | None], *, small: bool) -> ModelProto:
        """Return a model of one node; with `small`, the contents of small operands are in it."""
        infos, initializers = [], []
        for i, array in enumerate(inputs):
            if array is None:
                continue
            if small and array.size <= SMALL_ELEMENTS:
                initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), f"i{i}"))
            else:
                code = helper.np_dtype_to_tensor_dtype(array.dtype)
                infos.append(helper.make_tensor_value_info(f"i{i}", code, array.shape))
        outputs = [helper.make_empty_tensor_value_info(o) for o in node.output if o]
        graph = helper.make_graph([node], "fold", infos, outputs, initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self._opset)])

    def _predicted_bytes(self, node: NodeProto, inputs: Sequence[Array | None]) -> int:
        """Return how large onnx expects the outputs to be; 0 where it cannot tell, as for NonZero."""
        try:
            inferred = onnx.shape_inference.infer_shapes(
                self._model(node, inputs, small=True), data_prop=True
            )
        except onnx.shape_inference.InferenceError:
            return 0  # the evaluation says what is wrong, in better words
        total = 0
        for output in inferred.graph.output:
            tensor = output.type.tensor_type
            if all(d.HasField("dim_value") for d in tensor.shape.dim) and tensor.elem_type:
                item = helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
                total += item * int(np.prod([d.dim_value for d in tensor.shape.dim], dtype=object))
        return total


def _stored_bytes(array: Array) -> int:
    return array.itemsize if is_splat(array) else array.nbytes
