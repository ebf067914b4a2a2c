"""What onnx itself infers about the values of a model, to check convc's shape rules against.

onnx works on serialised models (2 GiB at most), so it is given a skeleton: large weights become inputs of the same type.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, external_data_helper, helper, numpy_helper

from convc.errors import InvalidModelError
from convc.frontend.onnx.input_shapes import Dimension, dimensions
from convc.frontend.onnx.model_file import ModelSource, normal_domain
from convc.frontend.onnx.narrow import NARROW
from convc.ir.types import TensorType, numpy_dtype

__all__ = [
    "InferredType",
    "check_model",
    "check_type",
    "infer_types",
    "may_be_misinferred",
    "skeleton",
]

logger = logging.getLogger(__name__)

# Shape operands (a Reshape's, a Slice's) are far smaller; weights are far larger.
SMALL_ELEMENTS: Final = 1024


@dataclass(frozen=True, slots=True)
class InferredType:
    """Element type and the dimensions that onnx knows; None for an unknown rank."""

    code: int
    dims: tuple[Dimension, ...] | None


def _is_small(tensor: TensorProto) -> bool:
    return int(
        np.prod(tensor.dims)
    ) <= SMALL_ELEMENTS and not external_data_helper.uses_external_data(tensor)


def skeleton(source: ModelSource, inputs: Mapping[str, TensorType]) -> ModelProto:
    """Return a small copy of the model: inputs bound, large weights replaced by inputs, ai.onnx written as ""."""
    graph, result = source.proto.graph, ModelProto()
    result.ir_version = source.proto.ir_version
    for domain, version in source.opsets.items():
        result.opset_import.add(domain=domain, version=version)
    result.graph.name = graph.name or "graph"
    declared = {i.name for i in graph.input}
    for info in graph.input:
        bound = inputs.get(info.name)
        if bound is None:
            result.graph.input.append(info)
        else:
            code = info.type.tensor_type.elem_type  # a narrow type is bound to its carrier
            result.graph.input.append(helper.make_tensor_value_info(info.name, code, bound.shape))
    for tensor in graph.initializer:
        if _is_small(tensor):
            result.graph.initializer.append(tensor)
        elif tensor.name not in declared:
            result.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    for node in graph.node:
        copy = result.graph.node.add()
        copy.CopyFrom(node)
        copy.domain = normal_domain(node.domain)
        for attribute in copy.attribute:
            if attribute.HasField("t") and external_data_helper.uses_external_data(attribute.t):
                loaded = numpy_helper.from_array(
                    source.tensors.array(attribute.t), attribute.t.name
                )
                attribute.t.CopyFrom(loaded)
    result.graph.output.extend(graph.output)
    for output in result.graph.output:
        # Many files leave it out; the checker wants it there, and nobody reads it.
        if not output.type.HasField("sequence_type"):
            output.type.tensor_type.shape.SetInParent()
    return result


def check_model(model: ModelProto, label: str) -> None:
    """Run onnx's checker.

    Raises:
        InvalidModelError: with the checker's own words.
    """
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise InvalidModelError(
            f"{label} must be a valid ONNX model; onnx says: {error}"
        ) from error


def infer_types(model: ModelProto, label: str) -> dict[str, InferredType]:
    """Return what onnx infers of the values of `model`, and nothing that the file claims of them.

    Where onnx's strict inference fails, the lenient one is asked instead, and a warning is logged.

    Raises:
        InvalidModelError: if the file names an element type that does not exist.
    """
    bare = ModelProto()
    bare.CopyFrom(model)
    for output in bare.graph.output:
        # A stale shape in the file would be merged into the inferred one.
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(
            bare, check_type=True, strict_mode=True, data_prop=True
        )
    except onnx.shape_inference.InferenceError as error:
        logger.warning("onnx cannot infer the shapes of %s strictly: %s", label, error)
        try:
            inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True)
        except onnx.shape_inference.InferenceError as again:
            logger.warning(
                "onnx cannot infer the shapes of %s; they stay unchecked: %s", label, again
            )
            return {}
    except ValueError as error:
        # An element type in an attribute or a declaration that no version of ONNX has.
        raise InvalidModelError(
            f"{label} must use ONNX's element types; onnx says: {error}"
        ) from error
    return {
        info.name: InferredType(info.type.tensor_type.elem_type, dimensions(info.type))
        for info in (*inferred.graph.value_info, *inferred.graph.output)
        if info.type.HasField("tensor_type")
    }


def may_be_misinferred(node: NodeProto, version: int) -> bool:
    """Return whether onnx's inference may contradict the specification for a node.

    Before version 22, onnx counts a last pooling window that would start in the end padding; the specification, onnx.reference
    and onnxruntime leave it out in all versions. It also takes STFT for two-sided, whose default is one-sided.

    Source:
        github.com/onnx/onnx/issues/5711.
    """
    if node.op_type == "STFT":
        return True
    return (
        node.op_type in ("MaxPool", "AveragePool")
        and version < 22
        and any(a.name == "ceil_mode" and a.i for a in node.attribute)
    )


def check_type(
    name: str, ours: TensorType, inferred: InferredType | None, narrow: str = ""
) -> None:
    """Raise InvalidModelError if onnx knows another type or extent for a value than convc does, whose type is `narrow` if given."""
    if inferred is None:
        return
    code = helper.np_dtype_to_tensor_dtype(NARROW[narrow][0] if narrow else numpy_dtype(ours.dtype))
    dims = inferred.dims
    agrees = inferred.code in (0, code) and (
        dims is None
        or (
            len(dims) == ours.rank
            and all(isinstance(d, str) or d == n for d, n in zip(dims, ours.shape, strict=True))
        )
    )
    if not agrees:
        kind = TensorProto.DataType.Name(inferred.code).lower()  # type: ignore[arg-type]
        shape = "any shape" if dims is None else f"[{', '.join(map(str, dims))}]"
        raise InvalidModelError(
            f"value '{name}' must have one type; onnx infers {kind} {shape}, convc infers {ours}."
        )
