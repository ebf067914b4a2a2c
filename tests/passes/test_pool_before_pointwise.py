"""Average pools change places with 1x1 convolutions, where that is the same and less work."""

from __future__ import annotations

import pytest

from convc.ir.passes import run_passes
from convc.ir.passes.pool_before_pointwise import pool_before_pointwise
from convc.ir.text import parse
from tests.passes.same_meaning import rewritten

HEAD = "%x = input : f32[2,8,6,6] %w = input : f32[4,8,1,1] %b = input : f32[4] %v = input : f32[12,2,1,1] %t = input : f32[4,8,3,3]"
HALF = "kernel = [2, 2], strides = [2, 2]"

# name -> (body, ops that are left)
BODIES = {
    "bare": (f"%c = conv(%x, %w) %y = average_pool(%c) {{{HALF}}} return %y", ["average_pool", "conv"]),
    "a bias": (
        f"%c = conv(%x, %w, %b) {{epilogue = [bias]}} %y = average_pool(%c) {{{HALF}}} return %y",
        ["average_pool", "conv"],
    ),
    "groups": (f"%c = conv(%x, %v) {{group = 4}} %y = average_pool(%c) {{{HALF}}} return %y", ["average_pool", "conv"]),
    "padding that does not count": (
        ("%c = conv(%x, %w, %b) {epilogue = [bias]}"
        " %y = average_pool(%c) {kernel = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]} return %y"),
        ["average_pool", "conv"],
    ),
    "padding that counts, without a bias": (
        "%c = conv(%x, %w) %y = average_pool(%c) {kernel = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1], count_include_pad = true} return %y",
        ["average_pool", "conv"],
    ),
    "windows over the end": (
        ("%c = conv(%x, %w, %b) {epilogue = [bias]}"
        " %y = average_pool(%c) {kernel = [3, 3], strides = [2, 2], ceil_mode = true, count_include_pad = true} return %y"),
        ["average_pool", "conv"],
    ),
    "padding that counts, and a bias": (
        ("%c = conv(%x, %w, %b) {epilogue = [bias]}"
        " %y = average_pool(%c) {kernel = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1], count_include_pad = true} return %y"),
        ["conv", "average_pool"],
    ),
    "an activation": (
        f"%c = conv(%x, %w) {{epilogue = [relu]}} %y = average_pool(%c) {{{HALF}}} return %y",
        ["conv", "average_pool"],
    ),
    "another reader": (f"%c = conv(%x, %w) %y = average_pool(%c) {{{HALF}}} return %y, %c", ["conv", "average_pool"]),
    "a larger filter": (f"%c = conv(%x, %t) %y = average_pool(%c) {{{HALF}}} return %y", ["conv", "average_pool"]),
    "strides": (
        "%c = conv(%x, %w) {strides = [2, 2]} %y = average_pool(%c) {kernel = [2, 2]} return %y",
        ["conv", "average_pool"],
    ),
    "a maximum": (f"%c = conv(%x, %w) %y = max_pool(%c) {{{HALF}}} return %y", ["conv", "max_pool"]),
    "as many points": (
        "%c = conv(%x, %w) %y = average_pool(%c) {kernel = [3, 3], pads = [1, 1, 1, 1]} return %y",
        ["conv", "average_pool"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "left"), BODIES.values(), ids=BODIES.keys())
def test_pools_change_places(body, left):
    graph = parse(f"graph @g {{ {HEAD} {body} }}")
    changed = rewritten(pool_before_pointwise, graph, rounding=1e-13)
    assert [n.op for n in changed.compute_nodes] == left


def test_the_layer_keeps_its_name_and_takes_what_follows():
    body = f"%c = conv(%x, %w) %p = average_pool(%c) {{{HALF}}} %y = relu(%p) return %y"
    graph = run_passes(parse(f"graph @g {{ {HEAD} {body} }}"))
    pool, conv = graph.compute_nodes
    assert (pool.op, conv.name) == ("average_pool", "c")
    assert [step.name for step in conv.attributes.epilogue] == ["relu"]
