"""Import: walk the nodes of a checked model, fold what is constant, convert the rest, report all that is refused at once.

file -> ModelSource -> inputs bound -> skeleton: onnx.checker, onnx.shape_inference
     -> per node: fold | convert | refuse -> types cross-checked -> Graph
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from onnx import GraphProto, NodeProto

from convc.errors import ConvcError, DTypeError, InvalidModelError
from convc.frontend.onnx.attributes import AttributeReader
from convc.frontend.onnx.converter import Converter, Result, Value
from convc.frontend.onnx.counted import CountedValue
from convc.frontend.onnx.expansion import expand_functions
from convc.frontend.onnx.folding import ConstantFolder
from convc.frontend.onnx.inference import (
    check_model,
    check_type,
    infer_types,
    may_be_misinferred,
    skeleton,
)
from convc.frontend.onnx.input_shapes import bind_inputs
from convc.frontend.onnx.model_file import ModelSource, normal_domain, since_version
from convc.frontend.onnx.narrow import NARROW, NarrowValue, narrow_name, natural
from convc.frontend.onnx.operator_node import Operand, OperatorNode
from convc.frontend.onnx.operators import find_converter
from convc.frontend.onnx.origins import Origins
from convc.frontend.onnx.refusal import Unsupported
from convc.frontend.onnx.report import RefusalReport
from convc.frontend.onnx.row_wise import check_operator, counted_result
from convc.frontend.onnx.sequences import SequenceValue
from convc.frontend.onnx.values import BodyRefused, Refused, ValueTable
from convc.frontend.onnx.weights import check_weights
from convc.ir import Graph, GraphBuilder
from convc.ir.ops.definition import Array
from convc.ir.types import SHORT_NAMES, Shape

__all__ = ["Import"]

# Bodies within bodies; a file that nests deeper is made to exhaust the stack.
DEEPEST: Final = 16
# Nodes written out from bodies, all together: a body of a hundred may run a thousand times. Counted once for the model, as loops within
# loops multiply.
MOST_WRITTEN_OUT: Final = 100_000


class Import:
    """The state of one import."""

    def __init__(
        self,
        source: ModelSource,
        shapes: Mapping[str, Sequence[int]] | None,
        name: str | None,
        batch: Mapping[str, str],
        *,
        is_open: bool = False,
    ) -> None:
        self.inputs, self.batch = bind_inputs(source.proto.graph, shapes), batch
        source = expand_functions(source, self.inputs)
        self.source = source
        self.graph = source.proto.graph
        self.builder = GraphBuilder(name or source.stem)
        self.values = ValueTable(self.builder, source.tensors)
        self.folder = ConstantFolder(source.opsets)
        self.origins = Origins(source.opsets, self.values.constant) if is_open else None
        self.report = RefusalReport()
        self.read_names = set(_names_read(self.graph))
        bones = skeleton(source, self.inputs)
        if all(self._schema_version(n) for n in self.graph.node if not normal_domain(n.domain)):
            check_model(bones, source.label)
        # else: the checker would stop at the first operator that onnx lacks; the report lists them all.
        self.inferred = infer_types(bones, source.label)
        self.unchecked: set[str] = set()
        self.depth = 0
        self.written_out = 0

    def run(self) -> Graph:
        codes = {i.name: i.type.tensor_type.elem_type for i in self.graph.input}
        for name, type in self.inputs.items():
            value = self.builder.input(name, type, self.batch.get(name, ""))
            narrow = narrow_name(codes[name])
            self.values.define(name, NarrowValue(value, narrow) if narrow else value)
        for tensor in self.graph.initializer:
            self.values.define(tensor.name, tensor)
        self._import_nodes(self.graph)
        self.report.raise_if_any(self.source.label)
        if not self.graph.output:
            raise InvalidModelError(f"{self.source.label} must have an output; it has none.")
        return self.values.finish([o.name for o in self.graph.output])

    def _import_nodes(self, graph: GraphProto) -> None:
        for node in graph.node:
            try:
                self._import_node(node)
            except ConvcError as error:
                opset = self.source.opsets.get(normal_domain(node.domain))
                error.add_note(
                    f"while importing {node.op_type} node '{_node_name(node)}' (opset {opset}) from {self.source.label}"
                )
                raise

    def _import_body(self, graph: GraphProto, arguments: Sequence[Operand]) -> list[Operand]:
        """Write a body's nodes, its inputs bound to `arguments`, and return its outputs."""
        if self.depth >= DEEPEST:
            raise Unsupported(f"bodies within bodies, {DEEPEST} deep")
        self.written_out += max(1, len(graph.node))
        if self.written_out > MOST_WRITTEN_OUT:
            raise Unsupported(f"more than {MOST_WRITTEN_OUT} nodes when bodies are written out")
        if len(graph.input) != len(arguments):
            raise InvalidModelError(
                f"body '{graph.name}' must have {len(arguments)} inputs; got {len(graph.input)}."
            )
        for info, argument in zip(graph.input, arguments, strict=True):
            self.values.define(info.name, argument)
        for tensor in graph.initializer:
            self.values.define(tensor.name, tensor)
        self.depth += 1
        self._import_nodes(graph)
        self.depth -= 1
        return [self.values.meaning(o.name) for o in graph.output]

    def _schema_version(self, node: NodeProto) -> int | None:
        domain = normal_domain(node.domain)
        opset = self.source.opsets.get(domain)
        return None if opset is None else since_version(domain, node.op_type, opset)

    def _import_node(self, proto: NodeProto) -> None:
        domain = normal_domain(proto.domain)
        version = self._schema_version(proto)
        row = find_converter(domain, proto.op_type, version)
        if isinstance(row, Unsupported):
            shown = version or self.source.opsets.get(domain)
            self._refuse(proto, shown, row.reason, is_operator=True)
            return
        if any(self.values.is_refused(name) for name in proto.input if name):
            self._define(proto, [Refused() for _ in proto.output])
            return
        assert version is not None, "a row was found for it"
        try:
            results = self._results(proto, row, version)
            # Names of a body stand for something else each time that it is written out.
            if self.origins and not self.depth and all(isinstance(r, np.ndarray) for r in results):
                self.origins.follow(proto, self._shape_of)
            self._define(proto, results)
        except Unsupported as no:
            self._refuse(proto, version, no.reason, is_operator=False)
        except BodyRefused:
            self._define(proto, [Refused() for _ in proto.output])
        except DTypeError as error:
            self._refuse(proto, version, str(error).rstrip("."), is_operator=False)

    def _results(self, proto: NodeProto, row: Converter, version: int) -> Sequence[Value | None]:
        """Return an array or a value of the graph for each output that is read."""
        given = [name for name in proto.input if name]
        narrow = self.values.narrow(given[0]) if given else ""
        if row.folds and all(self.values.is_constant(name) for name in given):
            folded = self._fold(proto)
            if folded is not None:
                return folded
        for name in given:
            if self.values.narrow(name) and not row.narrow:
                raise Unsupported(f"operand '{name}' of type {self.values.narrow(name)}")
        attributes = AttributeReader(proto.op_type, proto.attribute, self.source.tensors)
        node = OperatorNode(
            proto, version, self.values, attributes, self._import_body, self.origins
        )
        counted = {i: c for i, n in enumerate(proto.input) if n and (c := self.values.counted(n))}
        check_operator(node, counted)
        check_weights(proto, self.values)
        converted = row.convert(node)
        attributes.finish()
        results = _all_of(converted)
        if counted:
            results = tuple(counted_result(node, counted, r) for r in results)
        if row.narrow == "moves" and narrow:
            results = tuple(
                NarrowValue(r, narrow)
                if isinstance(r, str)
                else natural(r, narrow)
                if isinstance(r, np.ndarray)
                else r
                for r in results
            )
        for index, name in enumerate(proto.output[len(results) :], len(results)):
            if name in self.read_names:
                raise Unsupported(f"output {index} ('{name}') is used")
        return results

    def _shape_of(self, name: str) -> tuple[str, Shape] | None:
        """Return name and shape of a value of the graph, None for a constant."""
        if self.values.is_constant(name):
            return None
        return self.values.operand(name), self.values.type(name).shape

    def _fold(self, proto: NodeProto) -> Sequence[Array | None] | None:
        operands = [self.values.natural(name) if name else None for name in proto.input]
        return self.folder.fold(proto, operands)

    def _define(
        self,
        proto: NodeProto,
        results: Sequence[Value | Refused | None],
    ) -> None:
        for name, result in zip(proto.output, results, strict=False):
            if not name or result is None:
                continue
            self.values.define(name, result)
            known = not isinstance(result, np.ndarray) or result.dtype.name in (
                *SHORT_NAMES,
                *NARROW,
            )
            if known and not isinstance(result, Refused | SequenceValue):
                self._cross_check(proto, name)

    def _cross_check(self, proto: NodeProto, name: str) -> None:
        """Compare a value's type with what onnx inferred, unless that follows from a mistake of onnx's."""
        version = self._schema_version(proto)
        if self.depth:  # onnx infers nothing of what is inside a body
            return
        if not self.unchecked.isdisjoint(proto.input):
            self.unchecked.add(name)
            return
        ours, theirs = self.values.type(name), self.inferred.get(name)
        try:
            check_type(name, ours, theirs, self.values.narrow(name))
        except InvalidModelError:
            if version is None or not may_be_misinferred(proto, version):
                raise
            self.unchecked.add(name)

    def _refuse(
        self, proto: NodeProto, version: int | None, reason: str, *, is_operator: bool
    ) -> None:
        self.report.add(
            proto.domain and normal_domain(proto.domain),
            proto.op_type,
            version,
            _node_name(proto),
            reason,
            is_operator=is_operator,
        )
        self._define(proto, [Refused() for _ in proto.output])


def _all_of(result: Result) -> tuple[Value, ...]:
    """Return what a converter answers as one value for each output."""
    # These are pairs with names.
    if isinstance(result, NarrowValue | CountedValue) or not isinstance(result, tuple):
        return (result,)
    return result


def _node_name(node: NodeProto) -> str:
    """Return a node's name, that of its first output if it has none."""
    return node.name or next((o for o in node.output if o), node.op_type)


def _names_read(graph: GraphProto) -> Iterator[str]:
    """Yield every value that a node, a subgraph or the graph's outputs read."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _names_read(attribute.g)
            for inner in attribute.graphs:
                yield from _names_read(inner)
    for output in graph.output:
        yield output.name
