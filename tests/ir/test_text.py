"""The text form: print, parse, and back; files; every refusal with its place."""

from __future__ import annotations

import os

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from convc.errors import DTypeError, ShapeError, TextError
from convc.ir import Graph, GraphBuilder, Step, TensorType
from convc.ir.graph import Output, constant, placeholder
from convc.ir.ops import OPS
from convc.ir.ops.conv import ConvAttributes
from convc.ir.ops.shape import ReshapeAttributes
from convc.ir.text import load, parse, print_graph, save
from convc.ir.text.fields import attribute_fields
from convc.ir.types import SHORT_NAMES, numpy_dtype
from tests.strategies import graphs, tensor_types

few = settings(deadline=None, max_examples=60, derandomize=True)

EXAMPLE = """\
graph @resnet {
  %x = input : f32[1,3,8,8]
  %"gpu_0/data 0" = input : f32[1,2,4,4]
  %w = constant splat(0.5) : f32[2,3,3,3]
  %b = constant dense([0.0, 1.5]) : f32[2]
  %y = conv(%x, %w, %b, %"gpu_0/data 0") {strides = [2, 2], pads = [1, 1, 1, 1], epilogue = [bias, add, clip(0.0, 6.0)]} : f32[1,2,4,4]
  %z = softmax(%y) {axis = 1} : f32[1,2,4,4]
  return %z as "prob_1", %y, %"gpu_0/data 0"
}
"""


def test_golden():
    graph = parse(EXAMPLE)
    assert print_graph(graph) == EXAMPLE
    assert graph.name == "resnet"
    assert graph.outputs == (
        Output("prob_1", "z"),
        Output("y", "y"),
        Output("gpu_0/data 0", "gpu_0/data 0"),
    )
    attributes = ConvAttributes(
        (2, 2), (1, 1, 1, 1), epilogue=(Step("bias"), Step("add"), Step("clip", (0.0, 6.0)))
    )
    assert graph["y"].attributes == attributes
    assert graph["w"].value.strides == (0, 0, 0, 0)


@few
@given(graphs(exact=False))
def test_random_graphs_round_trip(tmp_path_factory, graph):
    path = tmp_path_factory.getbasetemp() / "net.cvc"
    save(graph, path)
    again = load(path)
    assert again == graph
    assert print_graph(again, weights="net.npz") == path.read_text()


@few
@given(st.text(), st.text(), st.text())
def test_any_names_round_trip(name, value, output):
    node = placeholder(value, TensorType(()))
    graph = Graph(name, (node,), (Output(output, value),))
    assert parse(print_graph(graph)) == graph


SMALL = tensor_types().filter(lambda t: t.size <= 16)


def _constants():
    # Any bits at all: every NaN, denormal and extreme.
    return SMALL.flatmap(
        lambda t: hnp.arrays(
            np.uint8, (t.size * numpy_dtype(t.dtype).itemsize,), elements=st.integers(0, 255)
        ).map(lambda raw: _as_type(raw, t))
    )


def _as_type(raw, type):
    if type.dtype == "bool":
        raw = raw & 1
    return raw.view(numpy_dtype(type.dtype)).reshape(type.shape)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(_constants())
def test_constants_of_any_bits_round_trip(array):
    graph = Graph("g", (constant("c", array),), (Output("c", "c"),))
    back = parse(print_graph(graph))["c"].value
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", SHORT_NAMES)
def test_large_constants_of_every_type_round_trip(dtype, tmp_path):
    array = np.arange(20).reshape(4, 5).astype(numpy_dtype(dtype))
    nodes = (constant("a/b", array.T), constant("file", array))
    graph = Graph("g", nodes, (Output("y", "a/b"), Output("z", "file")))
    save(graph, tmp_path / "g.cvc")
    assert load(tmp_path / "g.cvc") == graph
    assert sorted(os.listdir(tmp_path)) == ["g.cvc", "g.npz"]
    with np.load(tmp_path / "g.npz", allow_pickle=False) as archive:
        stored = archive["file"]
    if dtype == "bfloat16":
        assert stored.dtype == np.uint16
        stored = stored.view(ml_dtypes.bfloat16)
    assert stored.tobytes() == array.tobytes()


def test_equal_graphs_make_equal_files(tmp_path):
    graph = Graph("g", (constant("c", np.arange(40.0)),), (Output("y", "c"),))
    for name in ("a", "b"):
        save(graph, tmp_path / f"{name}.cvc")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_failed_save_leaves_the_old_files(tmp_path):
    old = Graph("g", (constant("c", np.arange(40.0)),), (Output("y", "c"),))
    save(old, tmp_path / "g.cvc")
    # A lone surrogate has no UTF-8 form: writing the text fails after the weights were written.
    bad = Graph("\ud800", old.nodes, old.outputs)
    with pytest.raises(UnicodeEncodeError):
        save(bad, tmp_path / "g.cvc")
    assert load(tmp_path / "g.cvc") == old
    assert sorted(os.listdir(tmp_path)) == ["g.cvc", "g.npz"]


def test_small_graphs_need_no_weights_file(tmp_path):
    save(parse(EXAMPLE), tmp_path / "g.cvc")
    assert os.listdir(tmp_path) == ["g.cvc"]


def test_saving_over_the_weights_is_refused(tmp_path):
    with pytest.raises(TextError) as caught:
        save(parse(EXAMPLE), tmp_path / "g.npz")
    assert str(caught.value) == (
        f"path must not end in .npz, where the weights go; got '{tmp_path / 'g.npz'}'."
    )


def test_layout_is_free_types_may_be_left_out_and_comments_are_skipped():
    text = 'graph @g{%x=input:f32[2] # data\n;%y=relu(\n%x)%z=clip(%y){max=2,min=-inf}return %z as "y"}'
    graph = parse(text)
    assert print_graph(graph).splitlines()[3] == "  %z = clip(%y) {max = 2.0} : f32[2]"


def test_every_attribute_has_a_written_form():
    for op in OPS.values():
        for field in attribute_fields(op.attributes):
            assert field.kind in ("int", "float", "bool", "str", "ints", "floats", "steps")


def test_zero_extents_and_scalars_round_trip():
    b = GraphBuilder("g")
    empty = b.constant(np.zeros((0, 3), "float32"))
    scalar = b.constant(np.array(-0.0, "float16"), "s")
    y = b.add("reshape", [empty], ReshapeAttributes((3, 0)))
    graph = b.finish({"y": y, "s": scalar})
    assert parse(print_graph(graph)) == graph
    assert "dense([]) : f32[0,3]" in print_graph(graph)
    assert "splat(-0.0) : f16[]" in print_graph(graph)


# ---- refusals ---------------------------------------------------------------------------------------------------

BODY = "%x = input : f32[2,2]"
# text after `%x = input ...`, column of the caret, message
REFUSALS = [
    ("%y = relu(%q) return %y", 11, "operand must be defined above; got %q."),
    ("%xx = relu(%x) return %x1", 23, "output must be defined above; got %x1. Did you mean %x?"),
    ("%x = relu(%x) return %x", 1, "value %x must have one definition; got a second."),
    ("%y = relu(%x) : f32[2,3] return %y", 17, "type of %y must be f32[2,2], which its operands give; got f32[2,3]."),
    ("%y = relu(%x) : f31[2,2] return %y", 17, "element type must be one of f64, f32, f16, bf16, i64, i32, i16, i8, u64, u32, u16, u8, i1; got 'f31'."),
    ("%y = relu(%x) : f32[2,-2] return %y", 20, "extents must not be negative; got [2, -2]."),
    ("%y = relu(%x) : f32[2.5] return %y", 21, "integer must be a whole number; got '2.5'."),
    ("%y = softmax(%x) {axis = 1, axis = 1} return %y", 29, "attribute axis must be given once; got it twice."),
    ("%y = softmax(%x) {axes = 1} return %y", 19, "unknown softmax attribute 'axes'; known: axis. Did you mean 'axis'?"),
    ("%y = softmax(%x) {axis = one} return %y", 26, "integer must be a whole number; got 'one'."),
    ("%y = clip(%x) {max = 0x10} return %y", 22, "float must be a decimal number; got '0x10'."),
    ("%y = reshape(%x) return %y", 6, "reshape must have attribute shape; got none."),
    ("%y = reduce_sum(%x) {axes = [0], keepdims = 1} return %y", 45, "boolean must be true or false; got '1'."),
    ("%y = dense(%x, %x) {epilogue = [clip(1.0)]} return %y", 33, "epilogue step clip must have 2 arguments; got (1.0,)."),
    ("%y relu(%x) return %y", 4, "value name must be followed by '='; got 'relu'."),
    ("%y = relu(%x return %x", 14, "operands must be separated by ',' and end with ')'; got 'return'."),
    ("%y = relu %x return %x", 11, "operands must begin with '('; got '%x'."),
    ("%c = constant 0.5 : f32[] return %c", 15, "constant must be splat(...), dense([...]) or ref(...); got '0.5'."),
    ("%c = constant fill(0.5) : f32[] return %c", 15, "constant must be splat(...), dense([...]) or ref(...); got 'fill'."),
    ("%c = constant dense([1, 2]) : f32[3] return %c", 15, "dense must have 3 elements for f32[3]; got 2."),
    ("%c = constant splat(300) : i8[3] return %c", 21, "element of i8 must be in [-128, 127]; got 300."),
    ("%c = constant splat(0.5) : i8[3] return %c", 21, "element of i8 must be a number of that type; got 0.5."),
    ("%c = constant splat(1) : i1[3] return %c", 21, "element of i1 must be true or false; got 1."),
    ("%c = constant splat(true) : f32[3] return %c", 21, "element of f32 must be a number of that type; got true."),
    ("%c = constant splat(1e39) : f32[3] return %c", 21, "element of f32 must be finite in that type; got 1e39."),
    ("%c = constant splat(nan(0x1)) : f32[3] return %c", 21, "element of f32 must be a number of that type; got nan(0x1)."),
    ("%c = constant splat(nan(0x3f800000)) : f32[3] return %c", 21, "nan(...) must hold the bits of a NaN of f32; got nan(0x3f800000)."),
    ("%c = constant splat(x) : f32[3] return %c", 21, "element must be a number, true or false; got 'x'."),
    ('%c = constant ref("w.npz", "c") : f32[20] return %c', 15, "ref('w.npz') must be read from a directory; none is given. Use load(path) or parse(..., directory=...)."),
    ("return %x, %x", 12, "output names must be distinct; got 'x' twice."),
    ("return %x } graph", 13, "text must end after the graph; got 'graph'."),
    ("return %x as prob", 14, "output name must be a quoted string; got 'prob'."),
    ("return", 8, "output must be written %name; got '}'."),
    ("relu(%x)", 1, "a node must be written '%name = ...', or 'return' must follow; got 'relu'."),
    ("%y = relu(%x) $", 15, "text must be made of names, numbers, strings and punctuation; got '$'."),
    ('%"a\\q" = relu(%x) return %x', 1, 'string must use JSON\'s escapes; got "a\\q".'),
]  # fmt: skip


@pytest.mark.parametrize(("body", "column", "message"), REFUSALS, ids=[r[0] for r in REFUSALS])
def test_refusals(body, column, message):
    text = f"graph @g {{\n{BODY}\n{body} }}"
    line = f"{body} }}"
    with pytest.raises(TextError) as caught:
        parse(text, filename="net.cvc")
    head, shown, caret = str(caught.value).split("\n")
    assert head == f"net.cvc:3:{column}: {message}"
    assert shown == f"    {line}"
    assert caret == " " * (3 + column) + "^"


def test_an_unknown_op_names_the_nearest():
    with pytest.raises(TextError) as caught:
        parse(f"graph @g {{ {BODY} %y = rellu(%x) return %y }}")
    assert "unknown op 'rellu'; known: conv, " in str(caught.value)
    assert "Did you mean 'relu'?" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "<text>:1:1: the start of the text must be followed by 'graph'; got the end of the text.\n    \n    ^"),
        ("graph g {", "<text>:1:7: graph name must be written @name; got 'g'.\n    graph g {\n          ^"),
        ("graph @g { %x = input", "<text>:1:22: input must be followed by ':'; got the end of the text.\n    graph @g { %x = input\n                         ^"),
    ],
)  # fmt: skip
def test_refusals_at_the_edges(text, message):
    with pytest.raises(TextError) as caught:
        parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("body", "kind"),
    [("%y = matmul(%x, %v)", ShapeError), ("%y = add(%x, %h)", DTypeError)],
)
def test_an_op_that_refuses_its_operands_keeps_its_error_and_says_where(body, kind):
    text = f"graph @g {{\n{BODY}  %v = input : f32[3,2]  %h = input : f16[2,2]\n  {body}\n  return %y }}"
    with pytest.raises(kind) as caught:
        parse(text, filename="net.cvc")
    assert caught.value.__notes__ == [f"at net.cvc:3:8\n      {body}\n           ^"]


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    np.savez(inside / "w.npz", k=np.zeros((4, 5), "float32"))
    np.savez(tmp_path / "outside.npz", k=np.zeros((4, 5), "float32"))
    (inside / "link.npz").symlink_to(tmp_path / "outside.npz")
    (inside / "text.npz").write_text("no archive")
    np.savez(inside / "objects.npz", k=np.array([{}] * 20, dtype=object))
    return inside


REFERENCES = [
    ("../outside.npz", "k", "f32[4,5]", "ref path must be relative and stay inside the text's directory; got '../outside.npz'."),
    ("a/../w.npz", "k", "f32[4,5]", "ref path must be relative and stay inside the text's directory; got 'a/../w.npz'."),
    ("/w.npz", "k", "f32[4,5]", "ref path must be relative and stay inside the text's directory; got '/w.npz'."),
    ("C:/w.npz", "k", "f32[4,5]", "ref path must be relative and stay inside the text's directory; got 'C:/w.npz'."),
    ("link.npz", "k", "f32[4,5]", "ref path must stay inside the text's directory; got 'link.npz', a link to outside."),
    ("none.npz", "k", "f32[4,5]", "ref file 'none.npz' must be readable; got No such file or directory."),
    ("text.npz", "k", "f32[4,5]", "ref file 'text.npz' must be an .npz archive; got another format."),
    ("w.npz", "q", "f32[4,5]", "ref key must be in 'w.npz', which has k; got 'q'."),
    ("w.npz", "k", "f32[5,4]", "ref array 'k' of 'w.npz' must be float32[5, 4] for f32[5,4]; got float32[4, 5]."),
    ("w.npz", "k", "bf16[4,5]", "ref array 'k' of 'w.npz' must be uint16[4, 5] for bf16[4,5]; got float32[4, 5]."),
    ("objects.npz", "k", "f32[20]", "ref array 'k' of 'objects.npz' must be a plain NumPy array; got Object arrays cannot be loaded when allow_pickle=False"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "key", "type", "message"), REFERENCES, ids=[r[0] + r[1] for r in REFERENCES]
)
def test_references_are_checked(folder, file, key, type, message):
    text = f'graph @g {{ %k = constant ref("{file}", "{key}") : {type}  return %k }}'
    with pytest.raises(TextError) as caught:
        parse(text, directory=folder)
    assert str(caught.value).split("\n")[0] == f"<text>:1:26: {message}"


def test_references_may_go_into_a_folder(folder):
    (folder / "deep").mkdir()
    np.savez_compressed(folder / "deep" / "w.npz", k=np.ones((4, 5), ">f4"))
    graph = parse(
        'graph @g { %k = constant ref("deep/w.npz", "k") : f32[4,5]  return %k }', directory=folder
    )
    np.testing.assert_array_equal(graph["k"].value, np.ones((4, 5), "float32"))
