"""The walk of `area.open_area` through a graph: what rules read and write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from convc.errors import ConvcError, ShapeError
from convc.ir.area_graph import Extents, Taps
from convc.ir.graph import Graph, Node, constant, placeholder
from convc.ir.ops import op_named
from convc.ir.ops.definition import Attributes
from convc.ir.types import TensorType

__all__ = ["Walk"]


@dataclass
class Walk:
    """The state of one walk: what is written so far, and what of each value is valid."""

    graph: Graph
    inputs: Sequence[str]
    nodes: dict[str, Node] = field(default_factory=dict)
    extents: dict[str, Extents] = field(default_factory=dict)
    zero_beyond: set[str] = field(default_factory=set)
    masks: dict[Extents, str] = field(default_factory=dict)
    taps: dict[tuple[Taps, TensorType, TensorType], tuple[str, str]] = field(default_factory=dict)
    filled: dict[tuple[str, float], str] = field(default_factory=dict)
    tables: dict[object, tuple[int, ...]] = field(default_factory=dict)

    def refusal(self, node: Node, why: str) -> ShapeError:
        return ShapeError(
            f"%{node.name} must compute each place by itself or by a window around it for an open height and width; {node.op} does "
            f"not: {why}. Give height and width numbers, and compile once for each size."
        )

    def data(self, node: Node) -> str:
        """Return the one operand that has height and width."""
        spatial = [i for i in dict.fromkeys(node.inputs) if i in self.extents]
        if spatial != [node.inputs[0]]:
            raise self.refusal(node, "an operand behind the first has height and width")
        return spatial[0]

    def put(self, node: Node, extents: Extents | None, inputs: Sequence[str] = (), *, zero: bool = False) -> None:  # fmt: skip
        names = list(inputs) or list(node.inputs)
        made = self.add(node.name, node.op, names, node.attributes)
        if extents is not None:
            self.extents[made] = extents
        if zero:
            self.zero_beyond.add(made)

    def add(self, name: str, op: str, inputs: Sequence[str], a: Attributes | None = None) -> str:
        operands = [(i, self.nodes[i].type) for i in inputs]
        self.nodes[name] = Node.of(name, op, operands, a)
        return name

    def mask(self, extents: Extents) -> str:
        if extents not in self.masks:
            rows, cols = extents.rows[-1], extents.cols[-1]
            type = TensorType((1, 1, rows, cols), "bool")
            self.masks[extents] = self.add_input(f"valid_{len(self.masks)}", type)
        return self.masks[extents]

    def add_input(self, name: str, type: TensorType) -> str:
        """Add an input that a runtime fills for each size."""
        while name in self.graph.by_name:
            name += "_"
        self.nodes[name] = placeholder(name, type)
        return name

    def within(self, value: str, beyond: float) -> str:
        """Return the value with `beyond` outside its valid part."""
        if beyond == 0 and value in self.zero_beyond:
            return value
        if (value, beyond) not in self.filled:
            name = f"{value}.within{len(self.filled)}"
            fill = constant(f"{name}.fill", np.asarray(beyond, self.nodes[value].type.dtype))
            self.nodes[fill.name] = fill
            mask = self.mask(self.extents[value])
            self.filled[value, beyond] = self.add(name, "where", [mask, value, fill.name])
        return self.filled[value, beyond]

    def windowed(self, node: Node) -> Extents:
        """Return the extents that the op's own rule gives for every height and width."""
        types = [self.nodes[i].type for i in node.inputs]
        old = self.extents[node.inputs[0]]
        rows, cols = (self._table(node, types, axis, t) for axis, t in ((2, old.rows), (3, old.cols)))  # fmt: skip
        return Extents(rows, cols)

    def _table(self, node: Node, types: list[TensorType], axis: int, valid: tuple[int, ...]) -> tuple[int, ...]:  # fmt: skip
        key = (node.op, node.attributes, tuple(types[1:]), axis, types[0], valid)
        if key not in self.tables:
            infer, known = op_named(node.op).infer, {0: 0}
            for extent in set(valid) - {0}:
                shape = list(types[0].shape)
                shape[axis] = extent
                smaller = TensorType(tuple(shape), types[0].dtype)
                try:
                    known[extent] = max(0, infer([smaller, *types[1:]], node.attributes).shape[axis])  # fmt: skip
                except ConvcError:
                    known[extent] = 0  # smaller than the window
            self.tables[key] = tuple(known[extent] for extent in valid)
        return self.tables[key]

    def height_and_width(self, node: Node, like: str) -> tuple[int, int]:
        """Return height and width of a value that has the same for every size."""
        if not like:
            return 0, 0
        if like not in self.nodes or self.nodes[like].type.rank != 4:
            raise self.refusal(node, f"it is resized to %{like}, which is not there")
        return self.nodes[like].type.shape[2:]  # type: ignore[return-value]

    def constant_extents(self, rows: int, cols: int) -> Extents:
        """Return the extents of a value that has the same for every size."""
        height, width = self.nodes[self.inputs[0]].type.shape[2:]
        return Extents((rows,) * height, (cols,) * width)
