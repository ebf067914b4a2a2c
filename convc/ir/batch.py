"""A symbolic batch: one graph for every number of samples.

    %x = input {batch = "N"} : f32[1,3,8,8]

The graph is written for one sample, and means that function mapped over N samples and joined along the leading axis. So it must
treat samples one by one: `per_sample` follows the batch through the graph and says which node mixes samples (a softmax over the
batch, a weight gradient, batch statistics). A value may have several rows a sample, [12,...] where the batch is 1; result row i
of a node then comes from the operands' rows of the same sample alone.

`with_batch` writes the graph for a given number: everything behind it, passes, choice, kernels, sees fixed shapes only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from convc.errors import ShapeError
from convc.ir.graph import CONSTANT, INPUT, Graph, InputAttributes, Node, placeholder
from convc.ir.ops import OPS, Attributes
from convc.ir.ops.shape import ResizeAttributes, SliceAttributes
from convc.ir.types import Shape, TensorType

__all__ = ["per_sample", "shown", "with_batch"]


@dataclass(frozen=True, slots=True)
class _Call:
    """A node with its operands' shapes at one sample, and which of them have the batch in front."""

    node: Node
    shapes: tuple[Shape, ...]
    batched: tuple[bool, ...]

    @property
    def attributes(self) -> Any:
        return self.node.attributes


# Returns why the node mixes samples, or "".
Rule = Callable[[_Call], str]


def _first(call: _Call) -> str:
    """One operand is data; weights and the like are the same for all samples."""
    return "" if not any(call.batched[1:]) else "an operand behind the first depends on the batch"


def _first_and_epilogue(call: _Call) -> str:
    """As `_first`, but what the epilogue adds to the result is data, too."""
    steps = [step.name for step in call.attributes.epilogue if step.takes_operand]
    added = [has_batch for name, has_batch in zip(steps, call.batched[2:], strict=True) if name == "add"]  # fmt: skip
    if not all(added):
        return "what is added has no batch"
    others = (*call.batched[:2], *(b for n, b in zip(steps, call.batched[2:], strict=True) if n != "add"))  # fmt: skip
    return _first(_Call(call.node, (), others))


def _first_and_added(call: _Call) -> str:
    """As `_first`, but what is added to the result, behind the fourth operand, is data, too."""
    if call.attributes.added and not all(call.batched[4:]):
        return "what is added has no batch"
    return _first(_Call(call.node, call.shapes[:4], call.batched[:4]))


def _broadcast(call: _Call) -> str:
    rows = call.node.type.shape[:1]
    for shape, batched in zip(call.shapes, call.batched, strict=True):
        if len(shape) < call.node.type.rank:
            if batched:
                return f"the batch of an operand {shape} is not the leading axis of the result"
        elif shape[:1] != (rows if batched else (1,)):
            return f"operands' leading axes must be the batch or 1; got {shape}"
    return ""


def _together(call: _Call) -> str:
    """All operands have the batch, and as many rows a sample; one of a single row that has not is repeated."""
    rows = {shape[0] for shape in call.shapes}
    if len(rows) == 1 and (all(call.batched) or rows == {1}):
        return ""
    return f"all operands must have the batch in front; got {call.shapes}"


def _matmul(call: _Call) -> str:
    return _first(call) if call.node.type.rank <= 2 else _broadcast(call)


def _off(axes: Callable[[Any], tuple[int, ...]], rest: Rule = _first) -> Rule:
    """Return the rule of an op that works along axes, of which the batch must be none."""

    def rule(call: _Call) -> str:
        rank = len(call.shapes[0])
        along = any(a % rank == 0 for a in axes(call.attributes))
        return "it works along the batch" if along else rest(call)

    return rule


def _still(kept: Callable[[Any, int], bool]) -> Rule:
    """Return the rule of an op of one operand that leaves the leading axis as it is where `kept(attributes, rows)`."""
    return lambda call: "" if kept(call.attributes, call.shapes[0][0]) else "it changes the batch"


def _gather(call: _Call) -> str:
    data, indices = call.batched
    if data and indices:
        return "data and indices both depend on the batch"
    return "it reads along the batch" if (call.attributes.axis == 0) == data else ""


_along_axis: Final = _off(lambda a: (a.axis,))
_RULES: Final[dict[str, Rule]] = {
    **{name: _broadcast for name, op in OPS.items() if op.elementwise},
    **dict.fromkeys(("conv_local", "conv_local_data_grad", "lookup"), _first),
    **dict.fromkeys(("conv", "conv_transpose", "dense"), _first_and_epilogue),
    "conv_quantized": _first_and_added,
    **dict.fromkeys(("max_pool", "average_pool", "lrn", "sum_pool_grad", "group_norm"), _first),
    **dict.fromkeys(("max_pool_grad", "max_pool_select", "grid_sample", "deform_columns"), _together),
    **dict.fromkeys(("softmax", "log_softmax", "softmax_grad", "log_softmax_grad", "argmax", "topk", "running", "resample", "layer_norm"), _along_axis),
    **dict.fromkeys(("concat", "gather_elements", "scatter_elements"), _off(lambda a: (a.axis,), _together)),
    **dict.fromkeys([n for n in OPS if n.startswith("reduce_")], _off(lambda a: a.axes)),
    "flip": _off(lambda a: a.axes),
    "matmul": _matmul,
    "gather": _gather,
    "transpose": _still(lambda a, rows: a.perm[0] == 0),
    "pad": _still(lambda a, rows: a.pads[0] == a.pads[len(a.pads) // 2] == 0),
    "resize": _still(lambda a, rows: a.factors[0] == 1),
    "slice": _still(lambda a, rows: (a.begins[0], a.ends[0], a.steps[0]) == (0, rows, 1)),
    "reshape": lambda call: "" if call.attributes.shape else "it leaves no leading axis",
}  # fmt: skip

# A class token beside the patches of an image: one for each sample.
_REPEATING: Final = frozenset(n for n, r in _RULES.items() if r is _together) | {"concat"}

# Attributes that hold the leading extent.
_WITH_ROWS: Final[dict[str, Callable[[Any, int], Attributes]]] = {
    "reshape": lambda a, n: replace(a, shape=(a.shape[0] * n, *a.shape[1:])),
    "slice": lambda a, n: replace(a, ends=(a.ends[0] * n, *a.ends[1:])),
}


def per_sample(graph: Graph) -> frozenset[str]:
    """Return the values that have the batch in front.

    Raises:
        ShapeError: if the graph is not one function of a single sample, mapped; naming the node and what it does.

    Example:
        >>> from convc.ir.text import parse
        >>> text = 'graph @g { %x = input {batch = "N"} : f32[1,3]  %y = relu(%x)  return %y }'
        >>> sorted(per_sample(parse(text)))
        ['x', 'y']
    """
    found: set[str] = set()
    for node in graph.nodes:
        batched = tuple(name in found for name in node.inputs)
        if isinstance(node.attributes, InputAttributes) and node.attributes.batch:
            if node.type.shape[:1] != (1,) or node.attributes.batch != graph.batch:
                raise ShapeError(
                    f"input '{node.name}' must have the leading extent 1, which stands for the graph's one symbolic dimension "
                    f"'{graph.batch}'; got '{node.attributes.batch}' and {node.type}."
                )
            found.add(node.name)
        elif any(batched):
            call = _Call(node, tuple(o.type.shape for o in graph.operands(node)), batched)
            rule = _RULES.get(node.op, lambda call: "it is not known to")
            if reason := rule(call):
                raise ShapeError(
                    f"%{node.name} must treat the samples of the symbolic batch '{graph.batch}' one by one; "
                    f"{node.op} does not: {reason}. Give the batch a number, and compile once for each that is needed."
                )
            found.add(node.name)
    for output in graph.outputs:
        if output.value not in found:
            raise ShapeError(
                f"output '{output.name}' must depend on the symbolic batch '{graph.batch}'; got %{output.value}, which does not."
            )
    return frozenset(found)


def shown(graph: Graph, value: str) -> str:
    """Return a value's type with the symbolic batch in it.

    Example:
        >>> from convc.ir.text import parse
        >>> text = 'graph @g { %x = input {batch = "N"} : f32[1,4]  %y = reshape(%x) {shape = [2, 2]}  return %y }'
        >>> shown(parse(text), "x"), shown(parse(text), "y")
        ('f32[N,4]', 'f32[2N,2]')
    """
    type = graph[value].type
    if not graph.batch or value not in per_sample(graph):
        return str(type)
    rows, *rest = type.shape
    leading = graph.batch if rows == 1 else f"{rows}{graph.batch}"
    return f"{str(type).partition('[')[0]}[{','.join([leading, *map(str, rest)])}]"


def with_batch(graph: Graph, size: int) -> Graph:
    """Return the graph of fixed shapes for `size` samples; a graph without a symbolic batch as it is.

    Example:
        >>> from convc.ir.text import parse
        >>> text = 'graph @g { %x = input {batch = "N"} : f32[1,4]  %y = reshape(%x) {shape = [2, 2]}  return %y }'
        >>> print(with_batch(parse(text), 8)["y"].type)
        f32[16,2]
    """
    if not graph.batch:
        return graph
    batched = per_sample(graph)
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        if node.op == INPUT and node.name in batched:
            shape = (size, *node.type.shape[1:])
            node = placeholder(node.name, TensorType(shape, node.type.dtype))
        elif node.op not in (INPUT, CONSTANT):
            attributes = node.attributes
            if node.name in batched and node.op in _WITH_ROWS:
                attributes = _WITH_ROWS[node.op](attributes, size)
            names = list(node.inputs)
            if node.name in batched and node.op in _REPEATING:
                names = [n if n in batched else _repeated(nodes, n, size) for n in names]
            operands = [(name, nodes[name].type) for name in names]
            node = Node.of(node.name, node.op, operands, attributes)
        nodes[node.name] = node
    return graph.with_nodes(nodes.values())


def _repeated(nodes: dict[str, Node], name: str, size: int) -> str:
    """Add the value `name`, of one row, repeated for every sample, and return the new one's name."""
    repeated, type = f"{name}.batch", nodes[name].type
    if repeated not in nodes:
        ones = (1,) * (type.rank - 1)
        if size:
            node = Node.of(repeated, "resize", [(name, type)], ResizeAttributes((size, *ones)))
        else:
            box = SliceAttributes((0,) * type.rank, (0, *type.shape[1:]), (1, *ones))
            node = Node.of(repeated, "slice", [(name, type)], box)
        nodes[repeated] = node
    return repeated
