"""Graph, Node, builder and interpreter: each rule of `verify` broken once."""

from __future__ import annotations

import numpy as np
import pytest

from convc.errors import (
    ConvcError,
    DTypeError,
    InputError,
    ShapeError,
    UnknownNameError,
    VerifyError,
)
from convc.ir import ConvSpec, Graph, GraphBuilder, Node, Output, TensorType
from convc.ir.graph import ConstantAttributes, constant, placeholder
from convc.ir.ops.conv import ConvAttributes
from convc.ir.ops.elementwise import ClipAttributes, NoAttributes
from convc.ir.reference import interpret
from convc.ir.types import dtype_name, numpy_dtype

F32 = TensorType((2,))
X = placeholder("x", F32)
Y = Node.of("y", "relu", [("x", F32)])
OUT = (Output("y", "y"),)


def node(name, op, inputs, attributes=None, type=F32):
    return Node(name, op, inputs, NoAttributes() if attributes is None else attributes, type)


BROKEN = [
    ((X, Y, Y), OUT, VerifyError, "value %y must have one definition; it has two."),
    ((Y, X), OUT, VerifyError, "%y must come after its operand %x."),
    (
        (X, node("y", "relu", ("x",), type=TensorType((3,)))),
        OUT,
        VerifyError,
        "%y must have type f32[2]; it says f32[3].",
    ),
    (
        (X, Node("y", "constant", (), ConstantAttributes(np.zeros(3, "float32")), F32)),
        OUT,
        VerifyError,
        "%y must have type f32[3]; it says f32[2].",
    ),
    (
        (X, node("y", "relu", ("x",), ClipAttributes())),
        OUT,
        VerifyError,
        "%y must have attributes NoAttributes; got ClipAttributes.",
    ),
    ((X,), (), VerifyError, "graph g must have an output; got none."),
    (
        (X,),
        (Output("a", "z"),),
        VerifyError,
        "output 'a' must be a defined value; %z is not.",
    ),
    (
        (X,),
        (Output("a", "x"), Output("a", "x")),
        VerifyError,
        "graph outputs must have distinct names; got ['a', 'a'].",
    ),
    ((X, node("y", "relu", ("x", "x"))), OUT, ShapeError, "relu must have 1 operands; got 2."),
    ((X, node("y", "conv", ("x", "x"), ConvAttributes())), OUT, ShapeError, None),
]


@pytest.mark.parametrize(("nodes", "outputs", "kind", "message"), BROKEN)
def test_verify_refuses(nodes, outputs, kind, message):
    with pytest.raises(kind) as caught:
        Graph("g", nodes, outputs).verify()
    if message is not None:
        assert str(caught.value) == message


def test_verify_says_at_which_node_an_op_does_not_fit():
    with pytest.raises(ShapeError) as caught:
        Graph("g", (X, node("y", "relu", ("x", "x"))), OUT).verify()
    assert caught.value.__notes__ == ["while verifying %y"]


def test_verify_refuses_an_unknown_op():
    with pytest.raises(UnknownNameError) as caught:
        Graph("g", (X, node("y", "rellu", ("x",))), OUT).verify()
    assert str(caught.value).startswith("unknown op 'rellu'; known: conv, ")
    assert str(caught.value).endswith("Did you mean 'relu'?")


def test_a_graph_knows_its_parts_and_users():
    w = constant("w", np.ones(2, "float32"))
    total = Node.of("t", "add", [("y", F32), ("y", F32)])
    graph = Graph("g", (X, w, Y, total), (Output("out", "t"),))
    assert [n.name for n in graph.inputs] == ["x"]
    assert [n.name for n in graph.constants] == ["w"]
    assert [n.name for n in graph.compute_nodes] == ["y", "t"]
    assert graph.users["y"] == (total,)
    assert graph.users["t"] == ()
    assert graph.operands(total) == (Y, Y)
    assert graph["y"] is Y


def test_constants_are_equal_by_contents():
    a = ConstantAttributes(np.array([1.0, 2.0], "float32"))
    assert a == ConstantAttributes(np.array([1.0, 2.0], "float32"))
    assert a != ConstantAttributes(np.array([1.0, 3.0], "float32"))
    assert a != ConstantAttributes(np.array([[1.0, 2.0]], "float32"))
    assert a != ConstantAttributes(np.array([1.0, 2.0], "float64"))
    splat = ConstantAttributes(np.broadcast_to(np.float32(1), (3,)))
    assert splat.is_splat
    assert splat == ConstantAttributes(np.ones(3, "float32"))
    assert splat == ConstantAttributes(np.broadcast_to(np.float32(1), (3,)))
    assert splat != ConstantAttributes(np.broadcast_to(np.float32(2), (3,)))
    assert hash(splat) == hash(ConstantAttributes(np.ones(3, "float32")))
    assert a != "a"


def test_comparing_huge_splats_does_not_write_them_out():
    huge = (1 << 20, 1 << 20, 1 << 10)  # 4 PiB
    a, b = (ConstantAttributes(np.broadcast_to(np.float32(v), huge)) for v in (1, 2))
    assert a != b
    assert a == ConstantAttributes(np.broadcast_to(np.float32(1), huge))


def test_constants_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        constant("c", np.zeros(2)).value[0] = 1


def test_builder_makes_names_unique_and_refuses_a_second_input_of_a_name():
    b = GraphBuilder("g")
    x = b.input("x", F32)
    names = [b.add("relu", [x]) for _ in range(3)]
    assert names == ["relu", "relu_1", "relu_2"]
    assert b.node("relu_1").op == "relu"
    with pytest.raises(VerifyError) as caught:
        b.input("x", F32)
    assert str(caught.value) == "value %x must have one definition; it has two."


def test_interpret_takes_float_inputs_of_any_type_as_float64():
    b = GraphBuilder("g")
    graph = b.finish({"y": b.add("div", [b.input("x", F32), b.input("z", F32)])})
    result = interpret(graph, {"x": np.array([1, 2]), "z": np.array([2, 4])})["y"]
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, [0.5, 0.5])


def test_interpret_keeps_every_value_on_request():
    graph = Graph("g", (X, Y), (Output("out", "y"),))
    data = {"x": np.array([-1.0, 2.0])}
    assert set(interpret(graph, data)) == {"out"}
    assert set(interpret(graph, data, keep=True)) == {"x", "y"}


def test_interpret_refuses_missing_and_misshapen_inputs():
    graph = Graph("g", (X, Y), OUT)
    with pytest.raises(InputError) as caught:
        interpret(graph, {"z": np.zeros(2)})
    assert str(caught.value) == "input 'x' must be given; got z."
    with pytest.raises(InputError) as caught:
        interpret(graph, {"x": np.zeros(3)})
    assert str(caught.value) == "input 'x' must have shape (2,); got (3,)."


def test_element_types_have_one_table():
    assert dtype_name(numpy_dtype("bfloat16")) == "bfloat16"
    for call in (lambda: numpy_dtype("complex64"), lambda: dtype_name(np.complex64)):
        with pytest.raises(DTypeError) as caught:
            call()
        assert str(caught.value) == (
            "element type must be one of float64, float32, float16, bfloat16, int64, int32, int16, int8, "
            "uint64, uint32, uint16, uint8, bool; got 'complex64'."
        )


def test_every_error_is_a_convc_error():
    assert issubclass(ShapeError, ConvcError)
    with pytest.raises(ConvcError):
        ConvSpec.of((1,), (1,))
