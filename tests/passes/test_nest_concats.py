"""Concatenations are written in terms of what holds their operands already; DenseNet's and C2f's blocks copy nothing then."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.frontend import dsl as cc
from convc.ir.passes.nest_concats import nest_concats
from convc.ir.reference import interpret
from convc.ir.text import parse
from tests.passes.same_meaning import rewritten

HEAD = "%x = input : f32[2,3,4,5] %y = input : f32[2,6,4,5] %z = input : f32[2,2,4,5]"
FRONT = "slice(%y) {begins = [0, 0, 0, 0], ends = [2, 2, 4, 5], steps = [1, 1, 1, 1]}"
BACK = "slice(%y) {begins = [0, 2, 0, 0], ends = [2, 6, 4, 5], steps = [1, 1, 1, 1]}"

# name -> (body, the operands of the concatenations that are left)
BODIES = {
    "a prefix": (
        "%a = concat(%x, %y) {axis = 1} %b = concat(%x, %y, %z) {axis = 1} return %a, %b",
        [("x", "y"), ("a", "z")],
    ),
    "a chain of them, the longest is taken": (
        "%a = concat(%x, %y) {axis = 1} %b = concat(%x, %y, %z) {axis = 1} %c = concat(%x, %y, %z, %x) {axis = 1} return %a, %b, %c",
        [("x", "y"), ("a", "z"), ("b", "x")],
    ),
    "in the middle, twice": (
        "%a = concat(%x, %y) {axis = 1} %b = concat(%z, %x, %y, %x, %y, %x) {axis = 1} return %a, %b",
        [("x", "y"), ("z", "a", "a", "x")],
    ),
    "the same": ("%a = concat(%x, %y) {axis = 1} %b = concat(%x, %y) {axis = 1} return %a, %b", [("x", "y")]),
    "another order": (
        "%a = concat(%y, %x) {axis = 1} %b = concat(%x, %y, %z) {axis = 1} return %a, %b",
        [("y", "x"), ("x", "y", "z")],
    ),
    "another axis": (
        "%a = concat(%x, %x) {axis = 2} %b = concat(%x, %x) {axis = 1} return %a, %b",
        [("x", "x"), ("x", "x")],
    ),
    "slices that are all": (f"%f = {FRONT} %g = {BACK} %a = concat(%f, %g, %x) {{axis = 1}} return %a", [("y", "x")]),
    "behind others, and nothing else": (
        f"%f = {FRONT} %g = {BACK} %a = concat(%x, %f, %g) {{axis = 1}} %b = concat(%f, %g) {{axis = 1}} return %a, %b",
        [("x", "y")],
    ),
    "slices in another order": (
        f"%f = {FRONT} %g = {BACK} %a = concat(%g, %f) {{axis = 1}} return %a",
        [("g", "f")],
    ),
    "a slice is missing": (f"%g = {BACK} %a = concat(%g, %x) {{axis = 1}} return %a", [("g", "x")]),
    "slices of another axis": (
        ("%f = slice(%y) {begins = [0, 0, 0, 0], ends = [2, 6, 2, 5], steps = [1, 1, 1, 1]}"
        " %g = slice(%y) {begins = [0, 0, 2, 0], ends = [2, 6, 4, 5], steps = [1, 1, 1, 1]} %a = concat(%f, %g) {axis = 1} return %a"),
        [("f", "g")],
    ),
    "slices in steps": (
        ("%f = slice(%y) {begins = [0, 0, 0, 0], ends = [2, 6, 4, 5], steps = [1, 2, 1, 1]}"
        " %a = concat(%f, %x) {axis = 1} return %a"),
        [("f", "x")],
    ),
    "slices and a prefix": (
        f"%f = {FRONT} %g = {BACK} %a = concat(%f, %g, %x) {{axis = 1}} %b = concat(%y, %x, %z) {{axis = 1}} return %a, %b",
        [("y", "x"), ("a", "z")],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "left"), BODIES.values(), ids=BODIES.keys())
def test_concatenations_are_nested(body, left):
    graph = parse(f"graph @g {{ {HEAD} {body} }}")
    nested = rewritten(nest_concats, graph)
    assert [n.inputs for n in nested.compute_nodes if n.op == "concat"] == left


def whole(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(-2, 3, shape).astype(np.float32)


def dense_block(x: cc.Tensor) -> cc.Tensor:
    """Four layers that each read all before them, and one that reads them all."""
    held = [cc.conv2d(x, whole(32, 3, 3, 3), pads=1)]
    for i in range(4):
        h = cc.relu(cc.concat(held, 1) if i else held[0])
        held.append(cc.conv2d(h, whole(16, 32 + 16 * i, 3, 3), pads=1))
    return cc.conv2d(cc.concat(held, 1), whole(16, 96, 1, 1))


def c2f(x: cc.Tensor) -> cc.Tensor:
    """A value, its second half through layers, all of it and what they gave concatenated."""
    y = cc.conv2d(x, whole(32, 3, 1, 1))
    held = [y[:, :16], y[:, 16:]]
    for _ in range(2):
        held.append(cc.relu(cc.conv2d(held[-1], whole(16, 16, 3, 3), pads=1)))
    return cc.conv2d(cc.concat(held, 1), whole(16, 64, 1, 1))


@pytest.mark.parametrize("block", [dense_block, c2f])
def test_blocks_copy_nothing(block):
    x = cc.input("x", (1, 3, 6, 7))
    graph = cc.graph({"y": block(x)})
    model = compile(graph, threads=1, mcpu="x86-64-v4", algo="direct")
    copies = [s.node for s in model.manifest.steps if s.op == "reorder" and "part" in s.reason]
    assert not copies
    assert not [s for s in model.manifest.steps if s.op == "concat"]


@pytest.mark.parametrize("block", [dense_block, c2f])
def test_blocks_are_exact(block):
    x = cc.input("x", (2, 3, 6, 7))
    graph = cc.graph({"y": block(x)})
    data = {"x": whole(2, 3, 6, 7)}
    model = compile(graph, threads=1, algo="direct")
    np.testing.assert_array_equal(model.run(data)["y"], interpret(graph, data)["y"])
