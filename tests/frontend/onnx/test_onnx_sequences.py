"""Sequences of tensors are lists at import: what onnx's own evaluator computes, and no op of the graph is theirs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from convc.errors import ConvcError, InvalidModelError, ShapeError, UnsupportedModelError
from convc.frontend.onnx import from_onnx
from convc.ir.passes import run_passes
from convc.ir.reference import interpret
from tests.frontend.onnx.onnx_models import check_against_onnx, random_inputs

ONE, LAST, THREE = (f"{n} = Constant <value = int64 {{{v}}}> ()" for n, v in (("one", 1), ("last", -1), ("three", 3)))  # fmt: skip
PAIR, TRIPLE, ROW = (f"{n} = Constant <value = int64[{d}] {{{v}}}> ()" for n, d, v in (("pair", "2", "1, 2"), ("triple", "3", "1, 2, 3"), ("row", "1,2", "1, 2")))  # fmt: skip
CASES = {
    "construct and at": f"{ONE} s = SequenceConstruct(x, z) y = SequenceAt(s, one)",
    "from behind": f"{LAST} s = SequenceConstruct(x, z) y = SequenceAt(s, last)",
    "insert at the end": f"{LAST} e = SequenceEmpty() s = SequenceInsert(e, x) t = SequenceInsert(s, z) y = SequenceAt(t, last)",
    "insert before the last": f"{LAST} s = SequenceConstruct(x, x) t = SequenceInsert(s, z, last) y = ConcatFromSequence<axis=1>(t)",
    "insert in the middle": f"{ONE} s = SequenceConstruct(x, x) t = SequenceInsert(s, z, one) y = ConcatFromSequence<axis=-2>(t)",
    "erase": f"{ONE} s = SequenceConstruct(x, z, x) t = SequenceErase(s, one) y = ConcatFromSequence<axis=0>(t)",
    "erase the last": "s = SequenceConstruct(x, z, z) t = SequenceErase(s) y = ConcatFromSequence<axis=0>(t)",
    "length": "s = SequenceConstruct(x, z, x) n = SequenceLength(s) f = Cast<to=1>(n) y = Mul(x, f)",
    "stacked": "s = SequenceConstruct(x, z) y = ConcatFromSequence<axis=-1, new_axis=1>(s)",
    "constants": f"{ONE} {THREE} s = SequenceConstruct(one, three) n = ConcatFromSequence<axis=0, new_axis=1>(s) y = Expand(u, n)",
    "split in single ones": f"{ONE} s = SplitToSequence<axis=1>(x) y = SequenceAt(s, one)",
    "split, no axis left": f"{ONE} s = SplitToSequence<axis=1, keepdims=0>(x) y = SequenceAt(s, one)",
    "split by a size": f"{THREE} {LAST} s = SplitToSequence<axis=-1>(x, three) y = SequenceAt(s, last)",
    "split by sizes": f"{ONE} n = Constant <value = int64[3] {{1, 2, 1}}> () s = SplitToSequence<axis=2>(x, n) y = SequenceAt(s, one)",
    "loop": """n = Constant <value = int64 {4}> () c = Constant <value = bool {1}> () e = SequenceEmpty()
        v, s = Loop(n, c, x, e) <body = b (int64 i, bool c0, float[2,3,4] a, seq(float[2,3,4]) q) => (bool c1, float[2,3,4] d, seq(float[2,3,4]) r)
        { c1 = Identity(c0) d = Relu(a) r = SequenceInsert(q, d) }> y = ConcatFromSequence<axis=0>(s)""",
    "if": f"""c = Constant <value = bool {{0}}> () {ONE} s = If(c) <then_branch = t () => (seq(float[2,3,4]) p) {{ p = SequenceConstruct(x, x) }},
        else_branch = f () => (seq(float[2,3,4]) q) {{ q = SequenceConstruct(z, z) }}> y = SequenceAt(s, one)""",
}


def model_of(body: str, output: str = "float y", opset: int = 17) -> onnx.ModelProto:
    head = f'<ir_version: {10 if opset > 20 else 8}, opset_import: ["": {opset}]>'
    return onnx.parser.parse_model(f"{head} g (float[2,3,4] x, float[2,3,4] z, float[1,1] u) => ({output}) {{ {body} }}")  # fmt: skip


RUNS = [(name, opset) for name in CASES for opset in (17, 24)[: 1 + name.startswith("split")]]


@pytest.mark.parametrize(("name", "opset"), RUNS)
def test_results(name: str, opset: int) -> None:
    model = model_of(CASES[name], opset=opset)
    check_against_onnx(model, random_inputs(model))


def test_map() -> None:
    """SequenceMap is a Loop by ONNX's definition."""
    body = """s = SequenceConstruct(x, z) t = SequenceMap(s) <body = b (float[2,3,4] a) => (float[2,3,4] d) { d = Relu(a) }>
        y = ConcatFromSequence<axis=0>(t)"""
    model = model_of(body)
    check_against_onnx(model, random_inputs(model))


def test_slices_that_are_joined_again_are_nothing() -> None:
    graph = from_onnx(model_of("s = SplitToSequence<axis=2>(x) y = ConcatFromSequence<axis=2>(s)"))
    assert [n.op for n in run_passes(graph).compute_nodes] == []
    data = {name: np.ones(shape) for name, shape in (("x", (2, 3, 4)), ("z", (2, 3, 4)), ("u", (1, 1)))}  # fmt: skip
    np.testing.assert_array_equal(interpret(graph, data)["y"], data["x"])


@pytest.mark.parametrize(
    ("body", "error", "reason"),
    [
        (f"{THREE} s = SequenceConstruct(x, z) y = SequenceAt(s, three)", InvalidModelError, r"SequenceAt position must be in \[-2, 2\); got 3"),
        (f"{THREE} s = SequenceConstruct(x, z) t = SequenceInsert(s, x, three) y = SequenceAt(t, three)", InvalidModelError, r"must be in \[-2, 2\]; got 3"),
        ("s = SequenceEmpty() t = SequenceErase(s) y = ConcatFromSequence<axis=0>(t)", InvalidModelError, r"must be in \[0, 0\); got -1"),
        ("s = SequenceEmpty() y = ConcatFromSequence<axis=0>(s)", InvalidModelError, "a tensor or more; got an empty sequence"),
        (f"{PAIR} {TRIPLE} s = SequenceConstruct(pair, triple) y = ConcatFromSequence<axis=0, new_axis=1>(s)", ShapeError, "concat"),
        (f"{PAIR} {ROW} s = SequenceConstruct(pair, row) y = ConcatFromSequence<axis=0>(s)", ShapeError, "concat"),
        ("n = Constant <value = int64[2] {1, 2}> () s = SplitToSequence<axis=2>(x, n) y = ConcatFromSequence<axis=0>(s)", InvalidModelError, r"add up to 4; got \[1, 2\]"),
        ("i = Cast<to=7>(u) j = Squeeze(i) s = SequenceConstruct(x, z) y = SequenceAt(s, j)", UnsupportedModelError, "depends on runtime values of 'j'"),
        ("c = Cast<to=9>(u) d = Squeeze(c) s = If(d) <then_branch = t () => (seq(float[2,3,4]) p) { p = SequenceConstruct(x, x) }, else_branch = f () => (seq(float[2,3,4]) q) { q = SequenceConstruct(z, z) }> y = ConcatFromSequence<axis=0>(s)", UnsupportedModelError, "only a run would choose"),
    ],
)  # fmt: skip
def test_what_is_refused(body: str, error: type[ConvcError], reason: str) -> None:
    with pytest.raises(error, match=reason):
        from_onnx(model_of(body))


@pytest.mark.parametrize("declared", ["seq(float[2,3,4])", "float[2,3,4]"])
def test_an_output_must_be_a_tensor(declared: str) -> None:
    with pytest.raises(InvalidModelError, match="output 's' must be a tensor; got a sequence"):
        from_onnx(model_of("s = SequenceConstruct(x, z)", f"{declared} s"))
