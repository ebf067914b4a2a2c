"""Graph: immutable, single assignment, one result per node, in topological order.

A node's name is its value's name. Inputs and constants are nodes too, so that every value has exactly one definition.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np

from convc.errors import ConvcError, VerifyError
from convc.ir.ops import Attributes, op_named
from convc.ir.ops.definition import Array, check_arity
from convc.ir.output import Output, check_counts
from convc.ir.types import TensorType, dtype_name

__all__ = [
    "CONSTANT",
    "INPUT",
    "ConstantAttributes",
    "Graph",
    "InputAttributes",
    "Node",
    "Output",
    "constant",
    "placeholder",
]

INPUT: Final = "input"
CONSTANT: Final = "constant"


@dataclass(frozen=True, slots=True)
class InputAttributes(Attributes):
    """The name of the symbolic dimension that the leading axis is; empty where the shape is fixed. See `ir.batch`."""

    batch: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class ConstantAttributes(Attributes):
    """A constant's value: a read-only array. A broadcast scalar (all strides 0) takes no memory and prints as a splat."""

    value: Array

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConstantAttributes):
            return NotImplemented
        a, b = self.value, other.value
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        if self.is_splat and other.is_splat:
            # Bits, as the digest compares them, but without writing a splat out.
            first = (0,) * a.ndim
            return a[first].tobytes() == b[first].tobytes()
        return a is b or self.digest == other.digest

    def __hash__(self) -> int:
        return hash((self.value.shape, str(self.value.dtype)))

    @property
    def is_splat(self) -> bool:
        """Whether all elements are one stored element."""
        return self.value.size > 0 and not any(self.value.strides)

    @property
    def digest(self) -> str:
        """SHA-256 of the contents."""
        return hashlib.sha256(np.ascontiguousarray(self.value).view(np.uint8).data).hexdigest()


@dataclass(frozen=True, slots=True)
class Node:
    """One definition: `%name = op(%inputs...) {attributes} : type`."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Attributes
    type: TensorType

    @staticmethod
    def of(
        name: str,
        op: str,
        inputs: Iterable[tuple[str, TensorType]],
        attributes: Attributes | None = None,
    ) -> Node:
        """Return the node with its type inferred.

        Raises:
            ShapeError, DTypeError: if the op does not take these operands.
            UnknownNameError: if there is no such op.
        """
        definition = op_named(op)
        operands = list(inputs)
        check_arity(definition, len(operands))
        attributes = definition.attributes() if attributes is None else attributes
        result = definition.infer([t for _, t in operands], attributes)
        return Node(name, op, tuple(n for n, _ in operands), attributes, result)

    @property
    def value(self) -> Array:
        """The array of a constant node."""
        assert isinstance(self.attributes, ConstantAttributes), f"{self.name} is no constant"
        return self.attributes.value


def placeholder(name: str, type: TensorType, batch: str = "") -> Node:
    """Return a graph input; its leading axis, of extent 1, may stand for a symbolic dimension `batch`."""
    return Node(name, INPUT, (), InputAttributes(batch), type)


def constant(name: str, value: Array) -> Node:
    """Return a constant node; the array is not copied, and must not change afterwards."""
    value = value.view()
    value.flags.writeable = False
    return Node(
        name,
        CONSTANT,
        (),
        ConstantAttributes(value),
        TensorType(value.shape, dtype_name(value.dtype)),
    )


def _inferred(node: Node, operands: list[tuple[str, TensorType]]) -> TensorType:
    """Return the type that a compute node's op gives; errors say at which node."""
    wanted = op_named(node.op).attributes
    if type(node.attributes) is not wanted:
        raise VerifyError(
            f"%{node.name} must have attributes {wanted.__name__}; got {type(node.attributes).__name__}."
        )
    try:
        return Node.of(node.name, node.op, operands, node.attributes).type
    except ConvcError as error:
        error.add_note(f"while verifying %{node.name}")
        raise


@dataclass(frozen=True)
class Graph:
    """An immutable graph; a pass makes a new one.

    Attributes:
        name: for messages and symbols.
        nodes: definitions, each after its operands.
        outputs: at least one.
    """

    name: str
    nodes: tuple[Node, ...]
    outputs: tuple[Output, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        return {n.name: n for n in self.nodes}

    def __getitem__(self, name: str) -> Node:
        return self.by_name[name]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return tuple(n for n in self.nodes if n.op == INPUT)

    @property
    def constants(self) -> tuple[Node, ...]:
        return tuple(n for n in self.nodes if n.op == CONSTANT)

    @property
    def compute_nodes(self) -> tuple[Node, ...]:
        """Nodes that are neither inputs nor constants."""
        return tuple(n for n in self.nodes if n.op not in (INPUT, CONSTANT))

    @cached_property
    def batch(self) -> str:
        """Name of the inputs' symbolic leading dimension; empty if all shapes are fixed."""
        symbols = (n.attributes.batch for n in self.inputs if isinstance(n.attributes, InputAttributes))  # fmt: skip
        return next(filter(None, symbols), "")

    @cached_property
    def users(self) -> Mapping[str, tuple[Node, ...]]:
        """Value name -> nodes that read it, in order; a graph output is not a user."""
        table: dict[str, list[Node]] = {n.name: [] for n in self.nodes}
        for node in self.nodes:
            for operand in dict.fromkeys(node.inputs):
                table[operand].append(node)
        return {name: tuple(nodes) for name, nodes in table.items()}

    @cached_property
    def output_values(self) -> frozenset[str]:
        return frozenset(o.value for o in self.outputs)

    def operands(self, node: Node) -> tuple[Node, ...]:
        """Return the nodes that define `node`'s operands."""
        return tuple(self.by_name[i] for i in node.inputs)

    def with_nodes(self, nodes: Iterable[Node], outputs: Iterable[Output] | None = None) -> Graph:
        """Return the graph with other nodes (and outputs)."""
        return replace(
            self, nodes=tuple(nodes), outputs=self.outputs if outputs is None else tuple(outputs)
        )

    def show(self, file: TextIO | None = None) -> None:
        """Print the text form, to standard output if `file` is left out."""
        from convc.ir.text import print_graph  # it stands on this file

        (file or sys.stdout).write(print_graph(self))

    def to_onnx(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Return the graph as an ONNX model (`onnx.ModelProto`), and write it to `path`; see `frontend.onnx.export`."""
        # Looked up by name: the exporter stands above this file, and no graph needs onnx until it is asked for it.
        model = import_module("convc.frontend.onnx.export").to_onnx(self)
        if path is not None:
            Path(path).write_bytes(model.SerializeToString())
        return model

    def to_dot(self) -> str:
        """Return the graph in the language of Graphviz; see `ir.drawing`."""
        from convc.ir.drawing import to_dot

        return to_dot(self)

    def to_svg(self) -> str:
        """Return a drawing of the graph as SVG; see `ir.drawing`."""
        from convc.ir.drawing import to_svg

        return to_svg(self)

    def verify(self) -> None:
        """Check every rule of the IR.

        Raises:
            VerifyError: naming the node and the rule it broke.
            ShapeError, DTypeError, UnknownNameError: if an op does not take its operands; a note names the node.
        """
        seen: dict[str, TensorType] = {}
        for node in self.nodes:
            if node.name in seen:
                raise VerifyError(f"value %{node.name} must have one definition; it has two.")
            for operand in node.inputs:
                if operand not in seen:
                    raise VerifyError(f"%{node.name} must come after its operand %{operand}.")
            if node.op == CONSTANT:
                wanted = TensorType(node.value.shape, dtype_name(node.value.dtype))
            elif node.op == INPUT:
                wanted = node.type
            else:
                wanted = _inferred(node, [(i, seen[i]) for i in node.inputs])
            if node.type != wanted:
                raise VerifyError(f"%{node.name} must have type {wanted}; it says {node.type}.")
            seen[node.name] = node.type
        if not self.outputs:
            raise VerifyError(f"graph {self.name} must have an output; got none.")
        for output in self.outputs:
            if output.value not in seen:
                raise VerifyError(
                    f"output '{output.name}' must be a defined value; %{output.value} is not."
                )
        check_counts(self.outputs, seen)
        names = [o.name for o in self.outputs]
        if len(set(names)) != len(names):
            raise VerifyError(f"graph outputs must have distinct names; got {names}.")
        if self.batch:
            from convc.ir.batch import per_sample  # it stands on this file

            per_sample(self)
