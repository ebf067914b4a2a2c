"""Shuffles of channels become one move with what stands around them."""

from __future__ import annotations

import pytest

from convc.ir.passes.merge_channel_moves import merge_channel_moves
from convc.ir.text import parse
from tests.passes.same_meaning import rewritten

SHUFFLE = (
    "%g = reshape(%c) {{shape = [2, {0}, {1}, 3, 4]}} %t = transpose(%g) {{perm = [0, 2, 1, 3, 4]}}"
    " %s = reshape(%t) {{shape = [2, 12, 3, 4]}}"
)
JOIN = "%c = concat(%x, %y) {axis = 1}"
FRONT = "slice(%s) {begins = [0, 0, 0, 0], ends = [2, 6, 3, 4], steps = [1, 1, 1, 1]}"
BACK = "slice(%s) {begins = [0, 6, 0, 0], ends = [2, 12, 3, 4], steps = [1, 1, 1, 1]}"
TWO = SHUFFLE.format(2, 6)

# name -> (body, ops that are left)
BODIES = {
    "alone": (f"%c = relu(%v) {TWO} return %s", ["relu", "pick_channels"]),
    "of a concatenation": (f"{JOIN} {TWO} return %s", ["pick_channels"]),
    "two slices of it": (f"{JOIN} {TWO} %a = {FRONT} %b = {BACK} return %a, %b", ["pick_channels"] * 2),
    "after an op, joined again": (
        f"{JOIN} {TWO} %a = {FRONT} %b = {BACK} %n = relu(%b) %z = concat(%a, %n) {{axis = 1}} return %z",
        ["pick_channels", "relu", "pick_channels"],
    ),
    "the concatenation has another reader": (f"{JOIN} {TWO} %r = relu(%c) return %s, %r", ["concat", "pick_channels", "relu"]),
    "three groups": (f"{JOIN} {SHUFFLE.format(3, 4)} return %s", ["pick_channels"]),
    "twice": ((f"{JOIN} {TWO} %h = reshape(%s) {{shape = [2, 3, 4, 3, 4]}} %u = transpose(%h) {{perm = [0, 2, 1, 3, 4]}}"
              " %z = reshape(%u) {shape = [2, 12, 3, 4]} return %z"), ["pick_channels"]),
    "no shuffle": (f"{JOIN} %s = relu(%c) %a = {FRONT} return %a", ["concat", "relu", "slice"]),
    "concatenation and slice alone": ("%s = concat(%x, %y) {axis = 1} %a = " + BACK + " return %a", ["concat", "slice"]),
    "the plane is turned, too": (
        (f"{JOIN} %g = reshape(%c) {{shape = [2, 2, 6, 3, 4]}} %t = transpose(%g) {{perm = [0, 2, 1, 4, 3]}}"
        " %s = reshape(%t) {shape = [2, 12, 4, 3]} return %s"),
        ["concat", "reshape", "transpose", "reshape"],
    ),
    "the batch is in it": (
        (f"{JOIN} %g = reshape(%c) {{shape = [4, 6, 1, 3, 4]}} %t = transpose(%g) {{perm = [0, 2, 1, 3, 4]}}"
        " %s = reshape(%t) {shape = [2, 12, 3, 4]} return %s"),
        ["concat", "reshape", "transpose", "reshape"],
    ),
    "a slice of rows": (
        f"{JOIN} {TWO} %a = slice(%s) {{begins = [0, 0, 1, 0], ends = [2, 6, 3, 4], steps = [1, 1, 1, 1]}} return %a",
        ["pick_channels", "slice"],
    ),
    "more than four operands": (
        ("%p = relu(%v) %q = abs(%v) %o = neg(%v) %d = concat(%x, %y, %p, %q, %o) {axis = 1}"
        " %g = reshape(%d) {shape = [2, 2, 24, 3, 4]} %t = transpose(%g) {perm = [0, 2, 1, 3, 4]} %s = reshape(%t) {shape = [2, 48, 3, 4]}"
        f" %a = {FRONT} %b = {BACK} return %a, %b"),
        ["relu", "abs", "neg", "concat", "pick_channels", "pick_channels"],
    ),
    "a shuffle is one part of five": (
        (f"%c = relu(%v) {TWO} %p = abs(%v) %q = neg(%v) %j = concat(%s, %p, %q, %x, %y) {{axis = 1}} %n = relu(%j)"
        " %a = slice(%j) {begins = [0, 3, 0, 0], ends = [2, 30, 3, 4], steps = [1, 1, 1, 1]} return %n, %a"),
        ["relu", "pick_channels", "abs", "neg", "concat", "relu", "slice"],
    ),
    "no image": (
        "%g = reshape(%e) {shape = [3, 4]} %t = transpose(%g) {perm = [1, 0]} %s = reshape(%t) {shape = [12]} return %s",
        ["reshape", "transpose", "reshape"],
    ),
    "no image, grouped like one": (
        "%r = relu(%e) %g = reshape(%r) {shape = [1, 3, 2, 2]} %t = transpose(%g) {perm = [0, 2, 3, 1]} %s = reshape(%t) {shape = [12]} return %s",
        ["relu", "reshape", "transpose", "reshape"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "left"), BODIES.values(), ids=BODIES.keys())
def test_moves_are_merged(body, left):
    inputs = "%x = input : f32[2,5,3,4] %y = input : f32[2,7,3,4] %v = input : f32[2,12,3,4] %e = input : f32[12]"
    graph = parse(f"graph @g {{ {inputs} {body} }}")
    merged = rewritten(merge_channel_moves, graph)
    assert [n.op for n in merged.compute_nodes] == left
