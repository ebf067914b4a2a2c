"""MUTATIONS: ways in which a model's file goes wrong, each a function of a random generator, so that a seed names a mutant."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto

__all__ = ["MODELS", "MUTATIONS", "mutant"]

FOLDER: Final = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
MODELS: Final = tuple(sorted(FOLDER.glob("*.onnx")))

# Extents and attributes at which sums, products and allocations go wrong.
_NUMBERS: Final = (0, -1, 1, 2, 3, 7, 2**15, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, -(2**63), 2**63 - 1)  # fmt: skip
_OPERATORS: Final = ("Conv", "Reshape", "Resize", "Gemm", "MaxPool", "Concat", "Pad", "Slice", "Loop", "Gather", "TopK", "Upsample", "NoSuchOperator")  # fmt: skip


@cache
def _file(path: Path) -> bytes:
    return path.read_bytes()


def _flip(r: random.Random, data: bytearray) -> None:
    for _ in range(r.choice((1, 1, 2, 8, 64))):
        data[r.randrange(len(data))] ^= 1 << r.randrange(8)


def _cut(r: random.Random, data: bytearray) -> None:
    del data[r.randrange(len(data)) :]


def _drop(r: random.Random, data: bytearray) -> None:
    begin = r.randrange(len(data))
    del data[begin : begin + r.choice((1, 2, 16, 256, 4096))]


def _repeat(r: random.Random, data: bytearray) -> None:
    begin = r.randrange(len(data))
    data[begin:begin] = data[begin : begin + r.choice((1, 4, 64, 1024))]


def _noise(r: random.Random, data: bytearray) -> None:
    begin, count = r.randrange(len(data)), r.choice((4, 32, 512))
    data[begin : begin + count] = r.randbytes(count)


def _attributes(graph: GraphProto) -> list[AttributeProto]:
    return [a for n in graph.node for a in n.attribute]


def _attribute(r: random.Random, model: ModelProto) -> None:
    attribute = r.choice(_attributes(model.graph))
    if attribute.ints:
        attribute.ints[r.randrange(len(attribute.ints))] = r.choice(_NUMBERS)
    elif attribute.type == AttributeProto.INT:
        attribute.i = r.choice(_NUMBERS)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = r.choice((0.0, -1.0, float("nan"), float("inf"), 1e38))
    elif attribute.type == AttributeProto.TENSOR:
        _spoil(r, attribute.t)
    else:
        attribute.s = r.randbytes(5)


def _longer(r: random.Random, model: ModelProto) -> None:
    lists = [a for a in _attributes(model.graph) if a.ints]
    if lists:
        r.choice(lists).ints.extend([r.choice(_NUMBERS)] * r.choice((1, 5)))


def _kind(r: random.Random, model: ModelProto) -> None:
    r.choice(_attributes(model.graph)).type = r.choice(AttributeProto.AttributeType.values())


def _spoil(r: random.Random, tensor: TensorProto) -> None:
    match r.randrange(5):
        case 0 if tensor.dims:
            tensor.dims[r.randrange(len(tensor.dims))] = r.choice(_NUMBERS)
        case 1:
            tensor.dims.append(r.choice(_NUMBERS))
        case 2:
            tensor.data_type = r.randrange(30)
        case 3:
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(
                key="location", value=r.choice(("../x", "/etc/passwd", "x", ""))
            )
            tensor.external_data.add(key="length", value=str(r.choice(_NUMBERS)))
        case _:
            tensor.raw_data = r.randbytes(r.choice((0, 1, 4, 400)))
            for name in ("float_data", "int32_data", "int64_data"):
                tensor.ClearField(name)


def _tensor(r: random.Random, model: ModelProto) -> None:
    if model.graph.initializer:
        _spoil(r, r.choice(model.graph.initializer))


def _forget(r: random.Random, model: ModelProto) -> None:
    graph = model.graph
    field = r.choice([f for f in (graph.initializer, graph.node, graph.input, graph.output) if f])
    del field[r.randrange(len(field))]


def _rewire(r: random.Random, model: ModelProto) -> None:
    """Read another value: one of another shape, one that comes later, the node's own result, or none."""
    nodes = [n for n in model.graph.node if n.input]
    node, other = r.choice(nodes), r.choice(nodes)
    node.input[r.randrange(len(node.input))] = r.choice(
        (other.output[0], node.output[0], other.input[0], "", "nobody")
    )


def _operator(r: random.Random, model: ModelProto) -> None:
    r.choice(model.graph.node).op_type = r.choice((*_OPERATORS, r.choice(model.graph.node).op_type))


def _twice(r: random.Random, model: ModelProto) -> None:
    node = r.choice(model.graph.node)
    model.graph.node.insert(r.randrange(len(model.graph.node)), node)


def _shape(r: random.Random, model: ModelProto) -> None:
    info = r.choice([*model.graph.input, *model.graph.output])
    tensor = info.type.tensor_type
    if r.random() < 0.2:
        tensor.elem_type = r.randrange(30)
    elif tensor.shape.dim:
        tensor.shape.dim[r.randrange(len(tensor.shape.dim))].dim_value = r.choice(_NUMBERS)


def _opset(r: random.Random, model: ModelProto) -> None:
    model.opset_import[0].version = r.choice((*range(30), *_NUMBERS))


def _body(r: random.Random, model: ModelProto) -> None:
    """Put the graph into itself, as a body."""
    inner = GraphProto()
    inner.CopyFrom(model.graph)
    node = r.choice(model.graph.node)
    attribute = node.attribute.add(
        name=r.choice(("body", "then_branch")), type=AttributeProto.GRAPH
    )
    attribute.g.CopyFrom(inner)


Bytes = Callable[[random.Random, bytearray], None]
Structure = Callable[[random.Random, ModelProto], None]

_BYTES: Final[tuple[Bytes, ...]] = (_flip, _cut, _drop, _repeat, _noise)
_STRUCTURE: Final[tuple[Structure, ...]] = (
    _attribute,
    _attribute,
    _longer,
    _kind,
    _tensor,
    _tensor,
    _forget,
    _rewire,
    _rewire,
    _operator,
    _twice,
    _shape,
    _opset,
    _body,
)
MUTATIONS: Final = (*_BYTES, *_STRUCTURE)


def mutant(seed: int) -> tuple[str, bytes]:
    """Return (what it is made of, the file) of a seed: a third broken byte by byte, the rest in one to three places."""
    r = random.Random(seed)
    path = r.choice(MODELS)
    if r.random() < 1 / 3:
        data, change = bytearray(_file(path)), r.choice(_BYTES)
        change(r, data)
        return f"{path.stem} {change.__name__}", bytes(data)
    model = onnx.load_model_from_string(_file(path))
    names = []
    for _ in range(r.choice((1, 1, 2, 3))):
        place = r.choice(_STRUCTURE)
        place(r, model)
        names.append(place.__name__)
    return f"{path.stem} {' '.join(names)}", model.SerializeToString()
