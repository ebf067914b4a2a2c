"""Tokens that are resampled as an image are resampled where they lie, with the same result, bit by bit."""

from __future__ import annotations

import pytest

from convc.ir.passes import run_passes
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.resample_tokens import resample_tokens
from convc.ir.text import parse
from tests.passes.same_meaning import rewritten

HEAD = "%t = input : f32[2,3,4,5] %v = input : f32[2,3,4,2,5] %p = constant splat(1) : i32[9,2] %w = constant splat(0.25) : f32[9,2]"
FIRST, LAST = "%i = transpose(%t) {perm = [0, 3, 1, 2]}", "transpose(%r) {perm = [0, 2, 3, 1]}"

# name -> (body, ops that are left)
BODIES = {
    "one axis": (f"{FIRST} %r = resample(%i, %p, %w) {{axis = 2}} %y = {LAST} return %y", ["resample"]),
    "both axes": (
        f"{FIRST} %q = resample(%i, %p, %w) {{axis = 3}} %r = resample(%q, %p, %w) {{axis = 2}} %y = {LAST} return %y",
        ["resample", "resample"],
    ),
    "a volume": (
        "%i = transpose(%v) {perm = [0, 4, 1, 2, 3]} %r = resample(%i, %p, %w) {axis = 4} %y = transpose(%r) {perm = [0, 2, 3, 4, 1]} return %y",
        ["resample"],
    ),
    "the image is read, too": (
        f"{FIRST} %r = resample(%i, %p, %w) {{axis = 2}} %y = {LAST} %z = relu(%i) return %y, %z",
        ["transpose", "resample", "relu"],
    ),
    "a reader that nobody reads": (
        f"{FIRST} %r = resample(%i, %p, %w) {{axis = 2}} %d = relu(%r) %y = {LAST} return %y",
        ["resample"],
    ),
    "channels": (f"{FIRST} %r = resample(%i, %p, %w) {{axis = 1}} %y = {LAST} return %y", ["transpose", "resample", "transpose"]),
    "another reader": (f"{FIRST} %r = resample(%i, %p, %w) {{axis = 2}} %y = {LAST} return %y, %r", ["transpose", "resample", "transpose"]),
    "another transpose": (
        f"{FIRST} %r = resample(%i, %p, %w) {{axis = 2}} %y = transpose(%r) {{perm = [0, 3, 2, 1]}} return %y",
        ["transpose", "resample", "transpose"],
    ),
    "an image to begin with": (f"%r = resample(%t, %p, %w) {{axis = 2}} %y = {LAST} return %y", ["resample", "transpose"]),
}  # fmt: skip


@pytest.mark.parametrize(("body", "left"), BODIES.values(), ids=BODIES)
def test_tokens_are_resampled_where_they_lie(body, left):
    graph = parse(f"graph @g {{ {HEAD} {body} }}")
    changed = rewritten(lambda g: eliminate_dead_nodes(resample_tokens(g)), graph)
    assert sorted(n.op for n in changed.compute_nodes) == sorted(left)


def test_flattened_images():
    """As exporters write them: tokens become rows of an image's channels, and these an image."""
    body = """%t = input : f32[1,49,8] %p = constant splat(1) : i32[9,2] %w = constant splat(0.25) : f32[9,2]
    %f = transpose(%t) {perm = [0, 2, 1]} %i = reshape(%f) {shape = [1, 8, 7, 7]} %r = resample(%i, %p, %w) {axis = 2}
    %g = reshape(%r) {shape = [1, 8, 63]} %y = transpose(%g) {perm = [0, 2, 1]} return %y"""
    graph = run_passes(parse(f"graph @g {{ {body} }}"))
    assert [n.op for n in graph.compute_nodes] == ["reshape", "resample", "reshape"]
