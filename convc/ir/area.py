"""Open height and width: a graph of the largest area, made right for every smaller one.

    data of h x w inside H x W, zeros around:     conv(pad 1) of it would read zeros behind the h-th row only in the first layer; behind
                                                  that the rows beyond hold biases, activations, anything

So each value is followed with the rows and columns that are valid for each h and w, and where a window reaches beyond them, what lies
there is replaced by what the op's padding would be: zeros for convolutions, -inf for max pools, nothing for means, which divide by what is
valid. The masks are inputs of the graph; a runtime that knows h and w fills them in. Every kernel, algorithm and target stays as it is.

An op that would need a size at compile time is refused by name: a Reshape that joins height and width, a resize to fixed extents, a
constant for each place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from convc.errors import ConvcError, ShapeError
from convc.ir.area_graph import AreaGraph, Extents
from convc.ir.graph import CONSTANT, INPUT, Graph, Node, constant, placeholder
from convc.ir.ops import OPS, op_named
from convc.ir.ops.definition import Attributes
from convc.ir.ops.logic import CastAttributes
from convc.ir.types import TensorType

__all__ = ["open_area"]


def open_area(graph: Graph, inputs: Sequence[str]) -> AreaGraph:
    """Return the graph made right for every area up to that of its inputs, axes 2 and 3 of those named.

    Raises:
        ShapeError: naming the first node that does not go with it.

    Example:
        >>> from convc.ir.text import parse
        >>> body = "%x = input : f32[1,1,8,8] %w = input : f32[1,1,3,3] %a = conv(%x, %w) {pads = [1, 1, 1, 1]} %b = relu(%a)"
        >>> opened = open_area(parse(f"graph @g {{ {body} return %b }}"), ["x"])
        >>> opened.values["b"].at(5, 7), len(opened.masks)
        ((5, 7), 0)
    """
    return _Opening(graph, inputs).run()


# What an op's windows read beyond the valid part.
_ZERO, _LOWEST = 0.0, float("-inf")
_SAME: Final = frozenset({"lrn", "softmax", "log_softmax", "topk", "argmax"})


@dataclass
class _Opening:
    """One walk."""

    graph: Graph
    inputs: Sequence[str]
    nodes: dict[str, Node] = field(default_factory=dict)
    extents: dict[str, Extents] = field(default_factory=dict)
    zero_beyond: set[str] = field(default_factory=set)
    masks: dict[Extents, str] = field(default_factory=dict)
    filled: dict[tuple[str, float], str] = field(default_factory=dict)
    tables: dict[object, tuple[int, ...]] = field(default_factory=dict)

    def run(self) -> AreaGraph:
        for node in self.graph.nodes:
            if node.op == INPUT and node.name in self.inputs:
                if node.type.rank != 4:
                    raise ShapeError(f"input '{node.name}' must be N, C, H, W to have an open height and width; got {node.type}.")  # fmt: skip
                rows, cols = (tuple(range(1, n + 1)) for n in node.type.shape[2:])
                self.extents[node.name] = Extents(rows, cols)
                self.zero_beyond.add(node.name)
                self.nodes[node.name] = node
            elif node.op in (INPUT, CONSTANT) or not any(i in self.extents for i in node.inputs):
                self.nodes[node.name] = node
            else:
                self._open(node)
        taken = list(self.extents.values())
        least = tuple(
            next((i + 1 for i in range(n) if all(t[i] > 0 for t in tables)), n + 1)
            for tables in ([e.rows for e in taken], [e.cols for e in taken])
            for n in (len(tables[0]),)
        )
        graph = self.graph.with_nodes(self.nodes.values())
        graph.verify()
        return AreaGraph(graph, {n: e for e, n in self.masks.items()}, self.extents, least)  # type: ignore[arg-type]

    # ---- one node -------------------------------------------------------------------------------------------------

    def _open(self, node: Node) -> None:
        rule = _RULES.get(node.op)
        if rule is None and OPS[node.op].elementwise:
            rule = _Opening._elementwise
        if rule is None:
            raise self._refusal(node, "it is not known to")
        rule(self, node)

    def _refusal(self, node: Node, why: str) -> ShapeError:
        return ShapeError(
            f"%{node.name} must compute each place by itself or by a window around it for an open height and width; {node.op} does "
            f"not: {why}. Give height and width numbers, and compile once for each size."
        )

    def _data(self, node: Node) -> str:
        """Return the one operand that has height and width."""
        spatial = [i for i in dict.fromkeys(node.inputs) if i in self.extents]
        if spatial != [node.inputs[0]]:
            raise self._refusal(node, "an operand behind the first has height and width")
        return spatial[0]

    def _put(self, node: Node, extents: Extents | None, inputs: Sequence[str] = (), *, zero: bool = False) -> None:  # fmt: skip
        names = list(inputs) or list(node.inputs)
        made = self._add(node.name, node.op, names, node.attributes)
        if extents is not None:
            self.extents[made] = extents
        if zero:
            self.zero_beyond.add(made)

    def _add(self, name: str, op: str, inputs: Sequence[str], a: Attributes | None = None) -> str:
        operands = [(i, self.nodes[i].type) for i in inputs]
        self.nodes[name] = Node.of(name, op, operands, a)
        return name

    def _mask(self, extents: Extents) -> str:
        if extents not in self.masks:
            name = f"valid_{len(self.masks)}"
            while name in self.graph.by_name:
                name += "_"
            rows, cols = extents.rows[-1], extents.cols[-1]
            self.nodes[name] = placeholder(name, TensorType((1, 1, rows, cols), "bool"))
            self.masks[extents] = name
        return self.masks[extents]

    def _filled(self, value: str, beyond: float) -> str:
        """Return the value with `beyond` outside its valid part."""
        if beyond == 0 and value in self.zero_beyond:
            return value
        if (value, beyond) not in self.filled:
            name = f"{value}.within{len(self.filled)}"
            fill = constant(f"{name}.fill", np.asarray(beyond, self.nodes[value].type.dtype))
            self.nodes[fill.name] = fill
            mask = self._mask(self.extents[value])
            self.filled[value, beyond] = self._add(name, "where", [mask, value, fill.name])
        return self.filled[value, beyond]

    def _windowed(self, node: Node) -> Extents:
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

    # ---- rules ----------------------------------------------------------------------------------------------------

    def _elementwise(self, node: Node) -> None:
        spatial = [i for i in node.inputs if i in self.extents]
        found = {self.extents[i] for i in spatial}
        if len(found) > 1:
            raise self._refusal(node, "its operands have other heights or widths for other sizes")
        for i in node.inputs:
            shape = self.nodes[i].type.shape
            if i not in self.extents and any(n > 1 for n in shape[-2:] if node.type.rank == 4 and len(shape) >= 2):  # fmt: skip
                raise self._refusal(node, f"%{i} holds a value for each place of the largest area")
        if node.type.rank != 4:
            raise self._refusal(node, f"its result is {node.type}")
        zero = len(node.inputs) == 1 and spatial[0] in self.zero_beyond and node.op in ("relu", "leaky_relu", "abs", "neg", "hard_swish", "silu", "tanh")  # fmt: skip
        self._put(node, found.pop(), zero=zero)

    def _conv(self, node: Node) -> None:
        data = self._data(node)
        pads: Any = node.attributes.pads  # type: ignore[attr-defined]
        reaches = node.op == "conv_transpose" or any(pads[len(pads) // 2 :])
        extents = self._windowed(node)
        source = self._filled(data, _ZERO) if reaches else data
        self._put(node, extents, [source, *node.inputs[1:]])

    def _max_pool(self, node: Node) -> None:
        data, a = self._data(node), node.attributes
        reaches = any(a.pads[len(a.pads) // 2 :]) or a.ceil_mode  # type: ignore[attr-defined]
        extents = self._windowed(node)
        self._put(node, extents, [self._filled(data, _LOWEST)] if reaches else [data])

    def _average_pool(self, node: Node) -> None:
        data, a, extents = self._data(node), node.attributes, self._windowed(node)
        reaches = any(a.pads[len(a.pads) // 2 :]) or a.ceil_mode  # type: ignore[attr-defined]
        if not reaches:
            self._put(node, extents)
        elif not a.count_include_pad:  # type: ignore[attr-defined]
            self._share(node, extents)
        elif a.ceil_mode:  # type: ignore[attr-defined]
            raise self._refusal(node, "its last windows count padding by the size of the data")
        else:
            self._put(node, extents, [self._filled(data, _ZERO)])

    def _share(self, node: Node, extents: Extents | None) -> None:
        """Write a mean as that of the value, zero where it is not valid, over that of the mask: the divisors cancel."""
        data = node.inputs[0]
        dtype = self.nodes[data].type.dtype
        mask, name = self._mask(self.extents[data]), node.name
        ones = self._add(f"{name}.ones", "cast", [mask], CastAttributes(dtype))
        total = self._add(f"{name}.total", node.op, [self._filled(data, _ZERO)], node.attributes)
        share = self._add(f"{name}.share", node.op, [ones], node.attributes)
        # Beyond the valid part there is nothing to divide by.
        some = constant(f"{name}.some", np.asarray(1e-12, dtype))
        self.nodes[some.name] = some
        divisor = self._add(f"{name}.divisor", "maximum", [share, some.name])
        self._add(name, "div", [total, divisor])
        if extents is not None:
            self.extents[name] = extents

    def _reduce(self, node: Node) -> None:
        data, a = self._data(node), node.attributes
        axes: set[int] = {axis % 4 for axis in a.axes}  # type: ignore[attr-defined]
        if not axes & {2, 3}:
            if not a.keepdims:  # type: ignore[attr-defined]
                raise self._refusal(node, f"its result is {node.type}")
            self._put(node, self.extents[data])
        elif not axes >= {2, 3}:
            raise self._refusal(node, "it works along height or width alone")
        elif node.op == "reduce_mean":
            self._share(node, None)
        elif node.op in ("reduce_sum", "reduce_max", "reduce_min"):
            beyond = {"reduce_sum": _ZERO, "reduce_max": _LOWEST, "reduce_min": -_LOWEST}[node.op]
            self._put(node, None, [self._filled(data, beyond)])
        else:
            raise self._refusal(node, "it is not known to")

    def _along_channels(self, node: Node) -> None:
        data = self._data(node)
        axis: int = getattr(node.attributes, "axis", 1)
        if axis % 4 not in (0, 1) or node.type.rank != 4:
            raise self._refusal(node, "it works along height or width, or leaves no N, C, H, W")
        self._put(node, self.extents[data])

    def _concat(self, node: Node) -> None:
        found = {self.extents.get(i) for i in node.inputs}
        if node.attributes.axis != 1 or len(found) != 1:  # type: ignore[attr-defined]
            raise self._refusal(node, "it must join values of one height and width along channels")
        zero = all(i in self.zero_beyond for i in node.inputs)
        self._put(node, found.pop(), zero=zero)

    def _pad(self, node: Node) -> None:
        data, a = self._data(node), node.attributes
        at_the_end = a.pads[6:]  # type: ignore[attr-defined]
        extents = self._windowed(node)
        source = self._filled(data, a.value) if any(at_the_end) else data  # type: ignore[attr-defined]
        self._put(node, extents, [source])

    def _slice(self, node: Node) -> None:
        data, a = self._data(node), node.attributes
        box = [(a.begins[i], a.ends[i], a.steps[i]) for i in (2, 3)]  # type: ignore[attr-defined]
        if box != [(0, n, 1) for n in self.nodes[data].type.shape[2:]]:
            raise self._refusal(node, "it cuts out rows or columns of the largest area")
        self._put(node, self.extents[data], zero=data in self.zero_beyond)

    def _resize(self, node: Node) -> None:
        data = self._data(node)
        self._put(node, self._windowed(node), zero=data in self.zero_beyond)


_Rule = Callable[[_Opening, Node], None]
_RULES: Final[dict[str, _Rule]] = {
    "conv": _Opening._conv,
    "conv_transpose": _Opening._conv,
    "max_pool": _Opening._max_pool,
    "average_pool": _Opening._average_pool,
    **{n: _Opening._reduce for n in OPS if n.startswith("reduce_")},
    **dict.fromkeys(_SAME, _Opening._along_channels),
    "concat": _Opening._concat,
    "pad": _Opening._pad,
    "slice": _Opening._slice,
    "resize": _Opening._resize,
}
