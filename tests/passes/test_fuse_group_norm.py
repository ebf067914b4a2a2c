"""Normalisations of groups of channels, as importers and exporters write them, become one op; what is none stays."""

from __future__ import annotations

import numpy as np
import pytest

from convc.ir.ops.group_norm import GroupNormAttributes
from convc.ir.passes import run_passes
from convc.ir.passes.expand_powers import expand_powers
from convc.ir.passes.fuse_group_norm import fuse_group_norm
from convc.ir.reference import interpret
from convc.ir.text import parse


def core(data: str, axes: str, last: str = "%y0 = div(%c, %r)") -> str:
    return (
        f"%m = reduce_mean({data}) {{axes = {axes}}} %c = sub({data}, %m) %s = mul(%c, %c) %v = reduce_mean(%s) {{axes = {axes}}}"
        f" %e = constant splat(0.01) : f32[] %a = add(%v, %e) %r = sqrt(%a) {last}"
    )


AFFINE = "%g = constant dense([1.0, -2.0, 0.5, 3.0]) : f32[4,1,1] %h = constant dense([0.5, 1.0, 2.0, -1.0]) : f32[1,4,1,1]"
BY_GROUP = f"%q = reshape(%x) {{shape = [2, 2, 60]}} {core('%q', '[2]')}"
BACK = "%z = reshape(%y0) {shape = [2, 4, 5, 6]}"
COLUMN = "%w = input : f32[1,4,1,1]"
# name -> body, ops left beside inputs and constants, groups
FUSED = {
    "instances": (f"{core('%x', '[2, 3]')} return %y0", ["group_norm"], 4),
    "layers": (f"{core('%x', '[1, 2, 3]')} return %y0", ["group_norm"], 1),
    "times the reciprocal": (f"{core('%x', '[2, 3]', '%i = reciprocal(%r) %y0 = mul(%i, %c)')} return %y0", ["group_norm"], 4),
    "a square by a power": (f"{core('%x', '[2, 3]').replace('%s = mul(%c, %c)', '%two = constant splat(2.0) : f32[] %s = pow(%c, %two)')} return %y0", ["group_norm"], 4),
    "a scale of run time": (f"{COLUMN} {core('%x', '[2, 3]', '%f = div(%w, %r) %y0 = mul(%c, %f)')} return %y0", ["group_norm"], 4),
    "scaled by channel": (f"{core('%x', '[2, 3]')} {AFFINE} %k = mul(%y0, %g) %l = add(%h, %k) return %l", ["group_norm"], 4),
    "groups over two reshapes": (f"{BY_GROUP} {BACK} {AFFINE} %k = mul(%z, %g) %l = add(%k, %h) return %l", ["group_norm"], 2),
    "a scale by group": (f"{BY_GROUP.replace('%y0 = div(%c, %r)', '%g2 = constant dense([2.0, -1.0]) : f32[1,2,1] %f = div(%g2, %r) %y0 = mul(%c, %f)')} {BACK} return %z", ["group_norm"], 2),
    "groups that stay reshaped": (f"{BY_GROUP} %z = relu(%y0) return %z", ["group_norm", "reshape", "relu"], 2),
    "a result that is read twice": (f"{core('%x', '[2, 3]')} {AFFINE} %k = mul(%y0, %g) return %k, %y0", ["group_norm", "mul"], 4),
    "an image between that is read twice": (f"{BY_GROUP} {BACK} %u = relu(%y0) {AFFINE} %k = mul(%z, %g) return %k, %u", ["group_norm", "reshape", "relu", "mul"], 2),
    "a mean that is read, too": (f"{core('%x', '[2, 3]')} return %y0, %m", ["reduce_mean", "group_norm"], 4),
}  # fmt: skip
LEFT = {
    "another axis": core("%x", "[3]"),
    "another divisor": core("%x", "[2, 3]").replace("%y0 = div(%c, %r)", "%y0 = div(%x, %r)"),
    "other squares": core("%x", "[2, 3]").replace("%s = mul(%c, %c)", "%s = mul(%c, %x)"),
    "an epsilon by channel": core("%x", "[2, 3]").replace("splat(0.01) : f32[]", "dense([0.1, 0.2, 0.3, 0.4]) : f32[1,4,1,1]"),
    "a scale by image": f"%w = input : f32[2,4,1,1] {core('%x', '[2, 3]', '%f = div(%w, %r) %y0 = mul(%c, %f)')}",
    "a scale by point": f"%w = constant splat(2.0) : f32[2,4,5,6] {core('%x', '[2, 3]', '%f = div(%w, %r) %y0 = mul(%c, %f)')}",
}  # fmt: skip


def graph_of(body: str):
    return expand_powers(parse(f"graph @g {{ %x = input : f32[2,4,5,6] {body} }}"))


def same(graph, other) -> None:
    rng = np.random.default_rng(0)
    data = {n.name: rng.normal(size=n.type.shape) + 2 for n in graph.nodes if n.op == "input"}
    wanted, got = interpret(graph, data), interpret(other, data)
    assert wanted.keys() == got.keys()
    for name in wanted:
        # Scales and biases are rounded to float32 once more.
        np.testing.assert_allclose(got[name], wanted[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("body", "left", "groups"), FUSED.values(), ids=FUSED.keys())
def test_normalisations_are_one_op(body, left, groups):
    graph = graph_of(body)
    fused = fuse_group_norm(graph)
    fused.verify()
    assert [n.op for n in fused.nodes if n.op not in ("input", "constant")] == left
    assert [getattr(n.attributes, "groups", 0) for n in fused.nodes if n.op == "group_norm"] == [
        groups
    ]
    same(graph, fused)
    assert fuse_group_norm(fused) is fused


@pytest.mark.parametrize("body", LEFT.values(), ids=LEFT.keys())
def test_what_is_none_stays(body):
    graph = graph_of(f"{body} return %y0")
    assert "group_norm" not in {n.op for n in fuse_group_norm(graph).nodes}


def test_means_of_nothing_and_of_rows_stay():
    for shape, axes in (("[240]", "[]"), ("[12, 20]", "[]"), ("[12, 20]", "[1]")):
        graph = graph_of(f"%q = reshape(%x) {{shape = {shape}}} {core('%q', axes)} return %y0")
        assert "group_norm" not in {n.op for n in fuse_group_norm(graph).nodes}


def test_reshapes_that_mix_images_or_cut_groups_stay():
    for shape, at in (("[1, 4, 60]", "[2]"), ("[2, 3, 40]", "[2]"), ("[2, 8, 15]", "[2]")):
        graph = graph_of(f"%q = reshape(%x) {{shape = {shape}}} {core('%q', at)} return %y0")
        fused = fuse_group_norm(graph)
        norms = [n for n in fused.nodes if n.op == "group_norm"]
        assert [n.inputs[0] for n in norms] == ["q"]
        same(graph, fused)


def test_activations_end_in_it():
    body = f"{core('%x', '[2, 3]')} %n = sigmoid(%y0) %z = mul(%y0, %n) return %z"
    final = run_passes(graph_of(body))
    norm = final[final.outputs[0].value]
    assert isinstance(norm.attributes, GroupNormAttributes)
    assert [str(s) for s in norm.attributes.epilogue] == ["silu"]
    same(graph_of(body), final)
