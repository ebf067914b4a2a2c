"""The graph with its floats in another element type: narrower weights and activations, and what must stay exact in float32.

Not in the PIPELINE: it comes behind it, so that a folded batch norm is folded in float32 and each weight rounded once. The graph as it
came in stays the reference: what the rounding costs is seen, not hidden.

    products    conv, dense, matmul ...               operands and result in the type, sums, bias and epilogue in float32
    neutral     moves, choices, + - x, relu ...       as their operands are
    all others  norms, means, sums, softmax, exp ...  in float32, whatever their operands are

Which of them an op is, the op says (`OpDef.floats`).

Inputs and outputs keep the model's type, with a cast at the border.

Source:
    Micikevicius et al., Mixed Precision Training, ICLR'18, section 3.3; Kalamkar et al., arXiv:1905.12322 (bfloat16).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np

from convc.errors import unknown_name
from convc.ir.epilogue import Step
from convc.ir.graph import CONSTANT, INPUT, Graph, Node, Output, constant
from convc.ir.narrowing import narrow_constant
from convc.ir.ops import OPS
from convc.ir.ops.definition import Array, Attributes, Floats
from convc.ir.ops.logic import CastAttributes
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.types import FLOATS, HALVES, greatest_finite

__all__ = ["FLOAT_TYPES", "convert_floats"]

# The command line's names.
FLOAT_TYPES: Final = {"fp64": "float64", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def convert_floats(graph: Graph, dtype: str | None) -> Graph:
    """Return the graph, after all passes, with floats in `dtype`: fp64, fp32, fp16 or bf16; None: as it is.

    Rewrite:
        %y = conv(%x, %w, %b) {epilogue = [bias]} : f32;  %z = softmax(%y) : f32
        -->
        %x' = cast(%x) : bf16;  %y = conv(%x', %w', %b) : bf16;  %y' = cast(%y) : f32;  %z = softmax(%y') : f32

    Raises:
        UnknownNameError: for another type.
        DTypeError: if a weight is too large for the type; names it.

    Example:
        >>> from convc.ir.text import parse
        >>> text = "graph @g { %x = input : f32[1,4] %w = input : f32[2,4] %y = dense(%x, %w) %z = softmax(%y) return %z }"
        >>> [(n.op, n.type.dtype) for n in convert_floats(parse(text), "bf16").compute_nodes]
        [('cast', 'bfloat16'), ('cast', 'bfloat16'), ('dense', 'bfloat16'), ('cast', 'float32'), ('softmax', 'float32')]
    """
    if dtype is None:
        return graph
    if dtype not in FLOAT_TYPES:
        raise unknown_name("element type", dtype, FLOAT_TYPES)
    return eliminate_dead_nodes(_Conversion(graph, FLOAT_TYPES[dtype]).run())


class _Conversion:
    """One walk. A value may be there in several types; `made` has the name of each."""

    def __init__(self, graph: Graph, dtype: str) -> None:
        self.graph, self.dtype = graph, dtype
        self.wide = "float32" if dtype in HALVES else dtype
        self.nodes: dict[str, Node] = {}
        self.made: dict[str, dict[str, str]] = {}
        self.taken = {n.name for n in graph.nodes}

    def run(self) -> Graph:
        for node in self.graph.nodes:
            if node.op in (INPUT, CONSTANT):
                self._define(node, node)
            else:
                self._compute(node)
        outputs = [Output(o.name, self._in(o.value, self.graph[o.value].type.dtype)) for o in self.graph.outputs]  # fmt: skip
        return self.graph.with_nodes(self.nodes.values(), outputs)

    def _define(self, old: Node, new: Node) -> None:
        self.nodes[new.name] = new
        self.made[old.name] = {new.type.dtype: new.name}

    def _held(self, value: str) -> str:
        """Return the type in which a value was computed."""
        return next(iter(self.made[value]))

    def _in(self, value: str, dtype: str) -> str:
        """Return the name of a value in another type, casting it first if nobody did; what is no float stays as it is."""
        made = self.made[value]
        if self.graph[value].type.dtype not in FLOATS:
            return next(iter(made.values()))
        if dtype not in made:
            source = self.nodes[next(iter(made.values()))]
            name = self._unique(f"{value}.{dtype}")
            if source.op == CONSTANT:
                node = constant(name, narrow_constant(value, source.value, dtype))
            else:
                node = Node.of(name, "cast", [(source.name, source.type)], CastAttributes(dtype))
            self.nodes[name] = node
            made[dtype] = name
        return made[dtype]

    def _unique(self, stem: str) -> str:
        while stem in self.taken:
            stem += "_"
        self.taken.add(stem)
        return stem

    def _compute(self, node: Node) -> None:
        if node.op == "cast" and node.type.is_float:
            (source,) = node.inputs
            if self.graph[source].type.is_float:
                self.made[node.name] = self.made[source]
                return
            attributes = CastAttributes(self.wide)
            operand = self.nodes[self._in(source, "")]
            self._define(node, Node.of(node.name, "cast", [(operand.name, operand.type)], attributes))  # fmt: skip
            return
        types = self._operand_types(node)
        names = [self._in(v, t) for v, t in zip(node.inputs, types, strict=True)]
        operands = [(name, self.nodes[name].type) for name in names]
        self._define(node, Node.of(node.name, node.op, operands, self._attributes(node)))

    def _attributes(self, node: Node) -> Attributes:
        a: Any = node.attributes
        if not getattr(a, "accumulate", ""):
            return a
        at_least = FLOATS[: FLOATS.index(self.wide) + 1]
        return a if a.accumulate in at_least else replace(a, accumulate="")

    def _operand_types(self, node: Node) -> list[str]:
        """Return the element type of each operand that is a float."""
        kind = OPS[node.op].floats
        if kind is Floats.FIXED:
            return [self.graph[v].type.dtype for v in node.inputs]
        type = self.dtype if kind is Floats.PRODUCT else self._neutral(node)
        types = [type] * len(node.inputs)
        if type in HALVES and kind is Floats.PRODUCT:
            epilogue: tuple[Step, ...] = getattr(node.attributes, "epilogue", ())
            steps = [s.name for s in epilogue if s.takes_operand]
            types[2:] = ["float32" if name == "bias" else type for name in steps]
        return types

    def _neutral(self, node: Node) -> str:
        """Return the narrow type for an op that takes operands as they are, if that is what they are in, else the wide one."""
        if OPS[node.op].floats is not Floats.NEUTRAL:
            return self.wide
        if self.dtype not in HALVES:
            return self.dtype
        values = [v for v in node.inputs if self.graph[v].type.is_float]
        computed = [v for v in values if self.graph[v].op != CONSTANT]
        narrow = computed and all(self._held(v) == self.dtype for v in computed)
        constants = [self.graph[v].value for v in values if self.graph[v].op == CONSTANT]
        return self.dtype if narrow and all(_fits(c, self.dtype) for c in constants) else self.wide


def _fits(value: Array, dtype: str) -> bool:
    finite = np.isfinite(value.astype(np.float64))
    return float(
        np.abs(value.astype(np.float64)).max(initial=0.0, where=finite)
    ) <= greatest_finite(dtype)
