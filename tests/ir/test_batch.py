"""A symbolic batch: the graph of n samples is the graph of one sample, n times; what mixes samples is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from convc import dsl as cc
from convc.errors import ShapeError
from convc.frontend.dsl.tensor import Tensor, apply
from convc.ir import Graph
from convc.ir.batch import per_sample, with_batch
from convc.ir.ops import OPS
from convc.ir.ops.linear import AxisAttributes
from convc.ir.passes import PIPELINE, run_passes
from convc.ir.reference import interpret
from convc.ir.text import parse, print_graph

RNG = np.random.default_rng(0)


def values(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def every_kind() -> Graph:
    """A network with every way in which a value may depend on the batch: rows per sample, repeated constants, matrix products."""
    x = cc.input("x", ("N", 4, 6, 6))
    h = cc.relu(cc.conv2d(x, values(4, 4, 3, 3), values(4), pads=1))
    h = cc.concat([h, cc.constant(values(1, 4, 1, 6), dtype="float32")], 2) * values(4, 1, 1)
    pooled = cc.max_pool2d(cc.pad(h, (0, 0, 0, 0, 0, 0, 1, 0)), 2, strides=2)
    rows = cc.reshape(pooled, (4, 12))  # four rows a sample
    square = cc.reshape(rows, (1, 4, 12))
    attention = cc.matmul(cc.softmax(cc.matmul(square, square.transpose(0, 2, 1))), square)
    return cc.graph(
        {
            "prob": cc.softmax(cc.dense(cc.flatten(attention), values(5, 48), values(5))),
            "rows": rows[:, 1:7:2] + values(3),
            "up": cc.resize_nearest(h[:, 1], 2) - cc.mean(h, (1, 2, 3), keepdims=True)[:, 0],
            "flipped": cc.flip(cc.lrn(h, 3), 2),
        },
        name="kinds",
    )


@pytest.mark.parametrize("passes", [False, True], ids=["as written", "after the passes"])
@pytest.mark.parametrize("size", [0, 1, 3])
def test_many_samples_are_each_for_itself(size, passes):
    graph = every_kind()
    many = with_batch(graph, size)
    assert not many.batch
    many.verify()
    x = values(size, 4, 6, 6)
    found = interpret(run_passes(many, PIPELINE) if passes else many, {"x": x})
    alone = [interpret(graph, {"x": x[i : i + 1]}) for i in range(size)]
    for name, array in found.items():
        rows = graph[next(o.value for o in graph.outputs if o.name == name)].type.shape
        assert array.shape == (size * rows[0], *rows[1:])
        for i, one in enumerate(alone):
            one_row = array[i * rows[0] : (i + 1) * rows[0]]
            np.testing.assert_allclose(one_row, one[name], rtol=1e-6, atol=1e-6)


def test_the_text_form_keeps_it():
    text = print_graph(every_kind())
    assert '%x = input {batch = "N"} : f32[1,4,6,6]' in text
    small = 'graph @g {\n  %x = input {batch = "N"} : f32[1,3]\n  %y = relu(%x) : f32[1,3]\n  return %y\n}\n'
    assert print_graph(parse(small)) == small
    assert per_sample(parse(small)) == {"x", "y"}


X = ("N", 4, 6, 6)
MIXED: dict[str, Callable[[Tensor], Tensor]] = {
    "reduce_mean": lambda x: cc.mean(x, (0, 2, 3), keepdims=True) + x,
    "conv_weight_grad": lambda x: cc.conv_weight_grad(x, x, 1),
    "softmax": lambda x: cc.softmax(x, 0),
    "transpose": lambda x: x.transpose(1, 0, 2, 3),
    "concat": lambda x: cc.concat([x, x], 0),
    "slice": lambda x: x[::2],
    "flip": lambda x: cc.flip(x, 0),
    "pad": lambda x: cc.pad(x, (1, 0, 0, 0, 0, 0, 0, 0)),
    "add": lambda x: x + values(3, 1, 1, 1),
    "mul": lambda x: cc.reshape(x, (4, 36)) * cc.reshape(x, (1, 1, 4, 36)),
    "matmul": lambda x: cc.matmul(values(6, 4), cc.reshape(x, (4, 36))),
    "conv": lambda x: cc.conv2d(values(1, 4, 6, 6).astype("float32"), x),
    "gather": lambda x: apply("gather", [x, np.array([0])], AxisAttributes(0)),
}


@pytest.mark.parametrize("op", MIXED)
def test_what_mixes_samples_is_refused(op):
    with pytest.raises(ShapeError, match=rf"samples of the symbolic batch 'N' one by one; {op} "):
        cc.graph({"y": MIXED[op](cc.input("x", X))})


def _residual(added: str, batch: str = ' {batch = "N"}') -> str:
    return f"""graph @g {{ %x = input {{batch = "N"}} : f32[1,2,4,4]  %z = input{batch} : f32[1,2,4,4]  %w = constant splat(0.5) : f32[2,2,1,1]
    %b = constant splat(1.0) : f32[2]  %y = conv(%x, %w, {added}) {{epilogue = [bias, add, relu]}}  return %y }}"""


def test_what_an_epilogue_adds_is_each_sample_s_own():
    graph = parse(_residual("%b, %z"))
    assert "y" in per_sample(graph)
    data = {name: values(3, 2, 4, 4) for name in ("x", "z")}
    many = interpret(with_batch(graph, 3), data)["y"]
    for i in range(3):
        one = interpret(graph, {name: array[i : i + 1] for name, array in data.items()})["y"]
        np.testing.assert_allclose(many[i : i + 1], one, rtol=1e-6, atol=1e-6)
    with pytest.raises(ShapeError, match="conv does not: what is added has no batch"):
        parse(_residual("%b, %z", batch=""))


def test_an_op_without_a_rule_is_refused():
    assert "roi_align" in OPS
    text = """graph @g { %x = input {batch = "N"} : f32[1,2,8,8]  %r = constant splat(1.0) : f32[1,4]  %i = constant splat(0) : i64[1]
    %y = roi_align(%x, %r, %i) {output = [2, 2]}  return %y }"""
    with pytest.raises(ShapeError, match="roi_align does not: it is not known to"):
        parse(text)


def test_inputs_and_outputs_that_do_not_fit():
    with pytest.raises(ShapeError, match="but for a name of the leading one"):
        cc.input("x", (1, "C", 4))
    with pytest.raises(ShapeError, match="the graph's one symbolic dimension 'N'"):
        cc.graph({"y": cc.input("x", ("N", 3)) + cc.input("z", ("M", 3))})
    w = cc.input("w", (1, 3))
    with pytest.raises(ShapeError, match="output 'w' must depend on the symbolic batch"):
        cc.graph({"y": cc.input("x", ("N", 3)) + w, "w": w * 2.0})
