"""Operators that ONNX itself defines by others: written out where convc has no converter of its own.

The definition is the specification's: a function of older operators in the operator's schema, chosen by opset and operand types.

Rewrite:
    y = CenterCropPad(x, shape)
    -->
    ... = Shape(x) ...;  ... = Pad(x, ...);  y = Slice(..., ...)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

import onnx.inliner
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TypeProto, helper

from convc.errors import InvalidModelError
from convc.frontend.onnx.inference import skeleton
from convc.frontend.onnx.model_file import ModelSource, normal_domain, since_version
from convc.frontend.onnx.operators import find_converter
from convc.frontend.onnx.refusal import Unsupported
from convc.ir.types import TensorType

__all__ = ["expand_functions", "has_function"]

# A domain of our own for definitions made for one node; none is left after inlining.
WRITTEN_OUT: Final = "convc.definition"


def has_function(domain: str, op_type: str, opset: int) -> bool:
    """Return whether ONNX defines an operator by a function.

    Example:
        >>> has_function("", "CenterCropPad", 18), has_function("", "Conv", 18)
        (True, False)
    """
    try:
        schema = onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return False
    # In onnx 1.21 and later; its type stubs know neither.
    kinds = ("has_function", "has_context_dependent_function")
    return any(bool(getattr(schema, kind)) for kind in kinds)


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _without_converter(source: ModelSource) -> set[tuple[str, str]]:
    found = set()
    for node in _nodes(source.proto.graph):
        domain = normal_domain(node.domain)
        opset = source.opsets.get(domain)
        if opset is None or not has_function(domain, node.op_type, opset):
            continue
        version = since_version(domain, node.op_type, opset)
        if isinstance(find_converter(domain, node.op_type, version), Unsupported):
            found.add((domain, node.op_type))
    return found


def _complete(model: ModelProto, wanted: set[tuple[str, str]]) -> None:
    """Write down what onnx's inliner takes for granted: the types of initializers, and attributes left at their defaults."""
    declared = {info.name for info in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.name not in declared:
            info = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            model.graph.input.append(info)
    opsets = {normal_domain(o.domain): int(o.version) for o in model.opset_import}
    for node in _nodes(model.graph):
        domain = normal_domain(node.domain)
        if (domain, node.op_type) not in wanted:
            continue
        schema = onnx.defs.get_schema(node.op_type, opsets[domain], domain)
        given = {a.name for a in node.attribute}
        for name, attribute in schema.attributes.items():
            if name not in given and attribute.default_value.type:
                node.attribute.append(attribute.default_value)


def _definition(
    node: NodeProto, opset: int, types: Mapping[str, TypeProto]
) -> FunctionProto | None:
    """Return ONNX's definition of a node, if the types of its operands are known."""
    if any(name and name not in types for name in node.input):
        return None
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    operands = [(types[n] if n else TypeProto()).SerializeToString() for n in node.input]
    # In onnx 1.21 and later; its type stubs know neither.
    offered: list[int] = schema.context_dependent_function_opset_versions  # type: ignore[attr-defined]
    versions = [v for v in offered if v <= opset]
    if not versions:
        return None
    build = schema.get_context_dependent_function_with_opset_version  # type: ignore[attr-defined]
    function = FunctionProto()
    function.ParseFromString(build(max(versions), node.SerializeToString(), operands))
    return function


def _with_holes(model: ModelProto, wanted: set[tuple[str, str]]) -> ModelProto:
    """Return the model with the wanted nodes that leave out an operand written out: onnx's inliner asks for the type of each."""
    inferred = onnx.shape_inference.infer_shapes(model)
    infos = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    types = {i.name: i.type for i in infos}
    opsets = {normal_domain(o.domain): int(o.version) for o in model.opset_import}
    found = False
    for number, node in enumerate(model.graph.node):
        if (node.domain, node.op_type) not in wanted or all(node.input):
            continue
        function = _definition(node, opsets[node.domain], types)
        if function is None:
            continue
        del function.opset_import[:]
        for domain, version in opsets.items():
            function.opset_import.add(domain=domain, version=version)
        function.domain, function.name = WRITTEN_OUT, f"{node.op_type}_{number}"
        node.domain, node.op_type = WRITTEN_OUT, function.name
        model.functions.append(function)
        found = True
    if not found:
        return model
    model.opset_import.add(domain=WRITTEN_OUT, version=1)
    return onnx.inliner.inline_local_functions(model)


def expand_functions(source: ModelSource, inputs: Mapping[str, TensorType]) -> ModelSource:
    """Return the model with every operator that has no converter, but a definition by others, written out.

    onnx works on serialised models, so it is given the model without its large weights.

    Raises:
        InvalidModelError: if onnx cannot write it out.
    """
    wanted = _without_converter(source)
    if not wanted:
        return source
    bones = skeleton(source, inputs)
    _complete(bones, wanted)
    try:
        bones = _with_holes(bones, wanted)
        written = onnx.inliner.inline_selected_functions(
            bones, sorted(wanted), inline_schema_functions=True
        )
    except (RuntimeError, ValueError, TypeError) as error:
        names = ", ".join(op for _, op in sorted(wanted))
        raise InvalidModelError(
            f"{source.label} must use {names} as their definitions allow; onnx says: {error}"
        ) from error
    proto = ModelProto()
    proto.CopyFrom(source.proto)
    del proto.graph.node[:]
    proto.graph.node.extend(written.graph.node)
    opsets = {normal_domain(o.domain): int(o.version) for o in written.opset_import}
    return replace(source, proto=proto, opsets={**source.opsets, **opsets})
