"""Graph -> ONNX: the other way round, for graphs written in Python. One row per op; what ONNX has no operator for is listed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from convc.errors import UnsupportedModelError
from convc.ir.batch import per_sample
from convc.ir.graph import CONSTANT, INPUT, Graph, Node
from convc.ir.ops.definition import Array
from convc.ir.ops.elementwise import UNARY
from convc.version import VERSION

__all__ = ["OPSET", "to_onnx"]

# The first opset whose average pool has dilations.
OPSET: Final = 19
_IR_VERSION: Final = 9


class _Writer:
    """The nodes and constants of one model."""

    def __init__(self, batched: frozenset[str]) -> None:
        # Values whose leading extent is the symbolic batch; no number may be written for it.
        self.batched = batched
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, name: str, value: Array) -> str:
        self.constants.append(_tensor(name, value))
        return name

    def integers(self, name: str, values: Sequence[int]) -> str:
        return self.constant(name, np.array(values, np.int64))

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        given = {k: v for k, v in attributes.items() if v not in ((), None)}
        self.nodes.append(helper.make_node(operator, list(inputs), [output], output, **given))
        return output


def _tensor(name: str, value: Array) -> TensorProto:
    if value.dtype.name == "bfloat16":
        raw = np.ascontiguousarray(value).view(np.uint16).tobytes()
        return helper.make_tensor(name, TensorProto.BFLOAT16, value.shape, raw, raw=True)
    return numpy_helper.from_array(np.ascontiguousarray(value), name)


Row = Callable[[_Writer, Node, Sequence[str], str], object]


def _plain(operator: str, *names: str) -> Row:
    """Return the row of an operator whose attributes are some of the op's, by the same names."""

    def row(w: _Writer, node: Node, inputs: Sequence[str], output: str) -> object:
        return w.add(operator, inputs, output, **{n: getattr(node.attributes, n) for n in names})

    return row


def _scalar(
    w: _Writer, op: str, attributes: Any, inputs: Sequence[str], output: str, dtype: str
) -> str:
    """Write a function of one element."""
    if op == "silu":
        return w.add("Mul", [inputs[0], w.add("Sigmoid", inputs, f"{output}.sigmoid")], output)
    if op == "gelu":  # Gelu is opset 20's
        root, half, one = (w.constant(f"{output}.{n}", np.array(v, dtype)) for n, v in (("root", math.sqrt(0.5)), ("half", 0.5), ("one", 1)))  # fmt: skip
        erf = w.add("Erf", [w.add("Mul", [inputs[0], root], f"{output}.scaled")], f"{output}.erf")
        halved = w.add("Mul", [inputs[0], half], f"{output}.halved")
        return w.add("Mul", [halved, w.add("Add", [erf, one], f"{output}.gate")], output)
    if op == "clip":
        limits = []
        for name, value in (("min", attributes.min), ("max", attributes.max)):
            finite = np.isfinite(value)
            limits.append(w.constant(f"{output}.{name}", np.array(value, dtype)) if finite else "")
        return w.add("Clip", [*inputs, *limits], output)
    fields = {name: getattr(attributes, name) for name in type(attributes).__dataclass_fields__}
    return w.add(_UNARY[op], inputs, output, **fields)


def _unary(w: _Writer, node: Node, inputs: Sequence[str], output: str) -> object:
    return _scalar(w, node.op, node.attributes, inputs, output, node.type.dtype)


def _layer(operator: str, *, takes_bias: bool = True, **fixed: Any) -> Row:
    """Return the row of a layer: its operator may take a bias that comes first, the rest of the epilogue is nodes of its own."""

    def row(w: _Writer, node: Node, inputs: Sequence[str], output: str) -> object:
        a: Any = node.attributes
        steps, extras = list(a.epilogue), list(inputs[2:])
        operands = list(inputs[:2])
        if takes_bias and steps and steps[0].name == "bias":
            operands.append(extras.pop(0))
            steps.pop(0)
        names = ("strides", "pads", "dilations", "group", "output_padding")
        given = {n: getattr(a, n) for n in names if hasattr(a, n)}
        value = w.add(operator, operands, f"{output}.0" if steps else output, **given, **fixed)
        for k, step in enumerate(steps, 1):
            name = output if k == len(steps) else f"{output}.{k}"
            if step.name == "bias" and not takes_bias:  # a matrix product's channels are last
                value = w.add("Add", [value, extras.pop(0)], name)
            elif step.name == "bias":
                shape = (1, -1, *(1,) * (node.type.rank - 2))
                bias = w.add(
                    "Reshape", [extras.pop(0), w.integers(f"{name}.shape", shape)], f"{name}.bias"
                )
                value = w.add("Add", [value, bias], name)
            elif step.takes_operand:
                value = w.add(step.name.capitalize(), [value, extras.pop(0)], name)
            else:
                attributes = UNARY[step.name].attributes(*step.arguments)
                value = _scalar(w, step.name, attributes, [value], name, node.type.dtype)
        return value

    return row


def _pool(operator: str, *names: str) -> Row:
    def row(w: _Writer, node: Node, inputs: Sequence[str], output: str) -> object:
        a: Any = node.attributes
        more = {n: int(getattr(a, n)) for n in ("ceil_mode", *names)}
        return w.add(
            operator,
            inputs,
            output,
            kernel_shape=a.kernel,
            strides=a.strides,
            pads=a.pads,
            dilations=a.dilations,
            **more,
        )

    return row


def _reduce(operator: str) -> Row:
    def row(w: _Writer, node: Node, inputs: Sequence[str], output: str) -> object:
        a: Any = node.attributes
        axes = w.integers(f"{output}.axes", a.axes)
        return w.add(
            operator, [*inputs, axes], output, keepdims=int(a.keepdims), noop_with_empty_axes=1
        )

    return row


def _reshape(w: _Writer, node: Node, inputs: Sequence[str], output: str) -> object:
    head = (-1,) if node.name in w.batched else node.type.shape[:1]
    shape = w.integers(f"{output}.shape", (*head, *node.type.shape[1:]))
    return w.add("Reshape", [*inputs, shape], output, allowzero=int(0 in node.type.shape))


def _pad(w: _Writer, node: Node, inputs: Sequence[str], output: str) -> object:
    a: Any = node.attributes
    value = w.constant(f"{output}.value", np.array(a.value, node.type.dtype))
    return w.add("Pad", [*inputs, w.integers(f"{output}.pads", a.pads), value], output)


def _slice(w: _Writer, node: Node, inputs: Sequence[str], output: str) -> object:
    a: Any = node.attributes
    skip = int(node.name in w.batched)
    axes = range(node.type.rank)
    rows = [(n, v[skip:]) for n, v in (("starts", a.begins), ("ends", a.ends), ("axes", axes), ("steps", a.steps))]  # fmt: skip
    return w.add(
        "Slice", [*inputs, *(w.integers(f"{output}.{n}", list(v)) for n, v in rows)], output
    )


def _flip(w: _Writer, node: Node, inputs: Sequence[str], output: str) -> object:
    axes = node.attributes.axes  # type: ignore[attr-defined]
    first, last = [-1] * len(axes), [np.iinfo(np.int64).min] * len(axes)
    rows = (("starts", first), ("ends", last), ("axes", axes), ("steps", [-1] * len(axes)))
    return w.add(
        "Slice", [*inputs, *(w.integers(f"{output}.{n}", list(v)) for n, v in rows)], output
    )


def _resize(w: _Writer, node: Node, inputs: Sequence[str], output: str) -> object:
    skip = int(node.name in w.batched)
    sizes = w.integers(f"{output}.sizes", node.type.shape[skip:])
    axes = range(skip, node.type.rank) if skip else None
    modes = {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
        "axes": axes,
    }
    return w.add("Resize", [*inputs, "", "", sizes], output, **modes)


_UNARY: Final = {
    "relu": "Relu", "sigmoid": "Sigmoid", "hard_swish": "HardSwish", "tanh": "Tanh", "softplus": "Softplus", "exp": "Exp",
    "log": "Log", "sqrt": "Sqrt", "reciprocal": "Reciprocal", "erf": "Erf", "abs": "Abs", "neg": "Neg", "floor": "Floor",
    "ceil": "Ceil", "round": "Round", "sin": "Sin", "cos": "Cos", "tan": "Tan", "asin": "Asin", "acos": "Acos", "atan": "Atan",
    "sinh": "Sinh", "cosh": "Cosh", "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh", "sign": "Sign", "leaky_relu": "LeakyRelu", "elu": "Elu", "hard_sigmoid": "HardSigmoid",
}  # fmt: skip

ROWS: Final[Mapping[str, Row]] = {
    **dict.fromkeys((*_UNARY, "silu", "gelu", "clip"), _unary),
    **{f"{op}": _plain(op.capitalize()) for op in ("add", "sub", "mul", "div", "pow")},
    "maximum": _plain("Max"),
    "minimum": _plain("Min"),
    "conv": _layer("Conv"),
    "conv_transpose": _layer("ConvTranspose"),
    "dense": _layer("Gemm", transB=1),
    "matmul": _layer("MatMul", takes_bias=False),
    "max_pool": _pool("MaxPool"),
    "average_pool": _pool("AveragePool", "count_include_pad"),
    "lrn": _plain("LRN", "size", "alpha", "beta", "bias"),
    "softmax": _plain("Softmax", "axis"),
    "log_softmax": _plain("LogSoftmax", "axis"),
    "reduce_mean": _reduce("ReduceMean"),
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reshape": _reshape,
    "transpose": _plain("Transpose", "perm"),
    "concat": _plain("Concat", "axis"),
    "pad": _pad,
    "slice": _slice,
    "flip": _flip,
    "resize": _resize,
}


def _port(graph: Graph, name: str, node: Node, batched: frozenset[str]) -> onnx.ValueInfoProto:
    type = node.type
    code = (
        TensorProto.BFLOAT16
        if type.dtype == "bfloat16"
        else helper.np_dtype_to_tensor_dtype(np.dtype(type.dtype))
    )
    shape: list[int | str | None] = list(type.shape)
    if node.name in batched:
        shape[0] = graph.batch if shape[0] == 1 else None
    return helper.make_tensor_value_info(name, code, shape)


def to_onnx(graph: Graph) -> ModelProto:
    """Return the graph as an ONNX model, names and a symbolic batch kept; wishes for algorithms have no place there and are left out.

    Raises:
        UnsupportedModelError: for ops that ONNX has no operator for, all of them listed.

    Example:
        >>> from convc.ir.text import parse
        >>> model = to_onnx(parse("graph @g { %x = input : f32[2]  %y = relu(%x)  return %y }"))
        >>> [node.op_type for node in model.graph.node]
        ['Relu', 'Identity']
    """
    batched = per_sample(graph) if graph.batch else frozenset()
    missing = sorted({n.op for n in graph.compute_nodes} - set(ROWS))
    if missing:
        where = ", ".join(
            f"{op} ({next(n.name for n in graph.nodes if n.op == op)})" for op in missing
        )
        raise UnsupportedModelError(
            f"graph '{graph.name}' must hold only ops that convc writes as ONNX; got {where}."
        )
    for node in graph.compute_nodes if graph.batch else ():
        if node.op == "concat" and node.name in batched and not batched.issuperset(node.inputs):
            raise UnsupportedModelError(
                f"%{node.name} must join values of the symbolic batch alone to be written as ONNX; got one that is the same for all samples."
            )
    w = _Writer(batched)
    # Values and public names are two spaces here and one in ONNX: values get a suffix where they would collide.
    public = {o.name for o in graph.outputs}
    names = {n.name: n.name + ("~" if n.name in public else "") for n in graph.nodes}
    names |= {n.name: n.name for n in graph.inputs}
    for node in graph.nodes:
        output = names[node.name]
        if node.op == CONSTANT:
            w.constant(output, np.asarray(node.value))
        elif node.op != INPUT:
            ROWS[node.op](w, node, [names[i] for i in node.inputs], output)
    for out in graph.outputs:
        if names[out.value] != out.name:
            w.add("Identity", [names[out.value]], out.name)
    body = helper.make_graph(
        w.nodes,
        graph.name,
        [_port(graph, n.name, n, batched) for n in graph.inputs],
        [_port(graph, o.name, graph[o.value], batched) for o in graph.outputs],
        w.constants,
    )
    return helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="convc",
        producer_version=VERSION,
    )
