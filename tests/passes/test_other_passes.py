"""Constant folding, removal, merging and deduplication: cases that the documented rewrites do not show."""

from __future__ import annotations

import numpy as np
import pytest

from convc.ir.passes.deduplicate_nodes import deduplicate_nodes
from convc.ir.passes.drop_dead_taps import drop_dead_taps
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.fold_constants import fold_constants
from convc.ir.passes.merge_pads import merge_pads
from convc.ir.passes.remove_identities import remove_identities
from convc.ir.passes.replace_global_pools import replace_global_pools
from convc.ir.passes.sink_transposes import sink_transposes
from convc.ir.reference import interpret
from convc.ir.text import parse, print_graph
from tests.strategies import inputs_of


def graph_of(head, body):
    return parse(f"graph @g {{ {head} {body} }}")


def lines(graph):
    return [
        line.strip()
        for line in print_graph(graph).splitlines()
        if " = " in line and " input " not in line
    ]


# ---- fold_constants ---------------------------------------------------------------------------------------------


def test_floats_are_computed_in_float64_and_rounded_once():
    graph = graph_of(
        "",
        "%a = constant dense([16777216.0, 1.0]) : f32[2] %y = reduce_sum(%a) {axes = [0]} %k = constant dense([3.0, 3.0]) : f32[2] %z = div(%a, %k) return %y, %z",
    )
    folded = fold_constants(graph)
    np.testing.assert_array_equal(folded["y"].value, np.float32([16777217.0]))
    np.testing.assert_array_equal(folded["z"].value, np.float32([16777216 / 3, 1 / 3]))


SPLATS = {
    "elementwise": "%y = add(%a, %b)",
    "a function": "%y = sqrt(%a)",
    "broadcasting": "%y = mul(%a, %row)",
    "reshape": "%y = reshape(%a) {shape = [4294967296]}",
    "transpose": "%y = transpose(%a) {perm = [1, 0]}",
    "slice": "%y = slice(%a) {begins = [0, 0], ends = [65536, 7], steps = [2, 1]}",
    "concat": "%y = concat(%a, %a) {axis = 0}",
    "pad with the same": "%y = pad(%a) {pads = [1, 1, 1, 1], value = 4.0}",
    "resize": "%y = resize(%a) {factors = [2, 2]}",
    "maximum over an axis": "%y = reduce_max(%a) {axes = [0]}",
}


@pytest.mark.parametrize("body", SPLATS.values(), ids=SPLATS.keys())
def test_huge_splats_stay_splats(body):
    """16 GiB each, if one were written out."""
    head = "%a = constant splat(4.0) : f32[65536,65536] %b = constant splat(0.5) : f32[] %row = constant dense([2.0]) : f32[1]"
    folded = fold_constants(graph_of(head, f"{body} return %y"))
    assert folded["y"].op == "constant"
    assert folded["y"].value.base is not None
    assert not any(folded["y"].value.strides)


def test_results_that_would_fill_the_memory_are_not_folded():
    head = "%a = constant splat(4.0) : f32[65536,65536]"
    graph = graph_of(head, "%y = softmax(%a) return %y")
    assert fold_constants(graph) is graph
    graph = graph_of(head, "%y = pad(%a) {pads = [1, 1, 1, 1]} return %y")
    assert fold_constants(graph) is graph


def test_integers_fold_as_integers():
    graph = graph_of(
        "%a = constant dense([-7, 9]) : i64[2] %b = constant splat(2) : i64[]",
        "%y = div(%a, %b) return %y",
    )
    assert fold_constants(graph)["y"].value.tolist() == [-3, 4]


def test_overflow_and_zero_quotients_fold_without_a_warning():
    graph = graph_of(
        "%a = constant dense([3e38, 0.0]) : f32[2]",
        "%y = mul(%a, %a) %z = div(%a, %a) return %y, %z",
    )
    folded = fold_constants(graph)
    assert folded["y"].value.tolist() == [np.inf, 0.0]
    assert np.isnan(folded["z"].value[1])


def test_bfloat16_folds():
    graph = graph_of("%a = constant dense([1.5, 2.0]) : bf16[2]", "%y = mul(%a, %a) return %y")
    assert (
        print_graph(fold_constants(graph)).splitlines()[2]
        == "  %y = constant dense([2.25, 4.0]) : bf16[2]"
    )


# ---- remove_identities ------------------------------------------------------------------------------------------

IDENTITIES = {
    "add zero": "%k = constant splat(0.0) : f32[3] %i = add(%k, %x)",
    "subtract zero": "%k = constant splat(0.0) : f32[3] %i = sub(%x, %k)",
    "multiply by one": "%k = constant dense([1.0, 1.0, 1.0]) : f32[3] %i = mul(%x, %k)",
    "divide by one": "%k = constant splat(1.0) : f32[] %i = div(%x, %k)",
    "first power": "%k = constant splat(1.0) : f32[] %i = pow(%x, %k)",
    "reshape to itself": "%i = reshape(%x) {shape = [2, 3]}",
    "reshape there and back": "%k = reshape(%x) {shape = [6]} %i = reshape(%k) {shape = [2, 3]}",
    "transpose in order": "%i = transpose(%x) {perm = [0, 1]}",
    "transpose there and back": "%k = transpose(%x) {perm = [1, 0]} %i = transpose(%k) {perm = [1, 0]}",
    "slice of everything": "%i = slice(%x) {begins = [0, 0], ends = [2, 3], steps = [1, 1]}",
    "pad by nothing": "%i = pad(%x) {pads = [0, 0, 0, 0], value = 3.0}",
    "concat of one": "%i = concat(%x) {axis = 1}",
    "resize by one": "%i = resize(%x) {factors = [1, 1]}",
    "clip without bounds": "%i = clip(%x)",
    "pool of single points": "%m = reshape(%x) {shape = [1, 2, 3]} %p = average_pool(%m) {kernel = [1]} %q = max_pool(%p) {kernel = [1], strides = [1]} %i = reshape(%q) {shape = [2, 3]}",
}


@pytest.mark.parametrize("body", IDENTITIES.values(), ids=IDENTITIES.keys())
def test_identities_vanish(body):
    graph = graph_of("%x = input : f32[2,3]", f"{body} %y = relu(%i) return %y, %i")
    after = eliminate_dead_nodes(remove_identities(graph))
    assert lines(after) == ["%y = relu(%x) : f32[2,3]"]
    assert [(o.name, o.value) for o in after.outputs] == [("y", "y"), ("i", "x")]


NOT_IDENTITIES = {
    "zero minus": "%k = constant splat(0.0) : f32[3] %i = sub(%k, %x)",
    "one over": "%k = constant splat(1.0) : f32[] %i = div(%k, %x)",
    "broadcasting": "%k = constant splat(0.0) : f32[4,2,3] %i = add(%x, %k)",
    "some ones": "%k = constant dense([1.0, 1.0, 2.0]) : f32[3] %i = mul(%x, %k)",
    "slice of a part": "%i = slice(%x) {begins = [0, 1], ends = [2, 3], steps = [1, 1]}",
    "concat of two": "%i = concat(%x, %x) {axis = 1}",
    "clip with a bound": "%i = clip(%x) {max = 6.0}",
    "pool of every other point": "%m = reshape(%x) {shape = [1, 2, 3]} %p = max_pool(%m) {kernel = [1], strides = [2]} %i = reshape(%p) {shape = [4]}",
}


@pytest.mark.parametrize("body", NOT_IDENTITIES.values(), ids=NOT_IDENTITIES.keys())
def test_others_stay(body):
    graph = graph_of("%x = input : f32[2,3]", f"{body} %y = relu(%i) return %y")
    assert remove_identities(graph) is graph


def test_transposes_of_three_axes_compose_in_the_right_order():
    graph = graph_of(
        "%x = input : f32[2,3,4]",
        "%t = transpose(%x) {perm = [1, 2, 0]} %u = transpose(%t) {perm = [0, 2, 1]} %v = transpose(%u) {perm = [2, 1, 0]} return %v",
    )
    after = eliminate_dead_nodes(remove_identities(graph))
    assert len(after.compute_nodes) == 1
    np.testing.assert_array_equal(
        interpret(after, inputs_of(graph))["v"], interpret(graph, inputs_of(graph))["v"]
    )


# ---- sink_transposes --------------------------------------------------------------------------------------------

BLOCK = """
  %t = transpose(%x) {perm = [0, 2, 3, 1]} %s = constant dense([1.0, 2.0, 0.5]) : f32[1,1,1,3] %b = constant splat(0.25) : f32[1,1,1,3]
  %n = layer_norm(%t, %s, %b) {axis = 3} %w = constant dense([1.0, -1.0, 2.0, 3.0, 0.0, 1.0]) : f32[3,2] %m = matmul(%n, %w)
  %k = constant dense([0.5, -0.5]) : f32[2] %a = add(%m, %k) %g = gelu(%a)
"""
SUNK = {
    "an inverse": (f"{BLOCK} %y = transpose(%g) {{perm = [0, 3, 1, 2]}} return %y", []),
    "means over height and width": (f"{BLOCK} %y = reduce_mean(%g) {{axes = [1, 2], keepdims = false}} return %y", []),
    "a mean that keeps its axes": (f"{BLOCK} %r = reduce_mean(%g) {{axes = [1, 2]}} %y = mul(%g, %r) return %y", [(1, 4, 5, 2)]),
    "nothing is gained": ("%t = transpose(%x) {perm = [0, 2, 3, 1]} %y = relu(%t) return %y", [(1, 4, 5, 3)]),
    "another operand is no image": ("%v = input : f32[1,4,5,3] %t = transpose(%x) {perm = [0, 2, 3, 1]} %y = mul(%t, %v) return %y", [(1, 4, 5, 3)]),
    "two of them": ("%t = transpose(%x) {perm = [0, 2, 3, 1]} %a = relu(%x) %u = transpose(%a) {perm = [0, 2, 3, 1]} %y = mul(%t, %u) return %y", [(1, 4, 5, 3)]),
    "a mean of more axes": (f"{BLOCK} %y = transpose(%g) {{perm = [0, 3, 1, 2]}} %q = reshape(%x) {{shape = [1, 3, 2, 2, 5, 1]}} %z = reduce_mean(%q) {{axes = [3, 5]}} return %y, %z", []),
    "a concatenation": (f"{BLOCK} %u = relu(%x) %v = transpose(%u) {{perm = [0, 2, 3, 1]}} %j = concat(%g, %v) {{axis = 3}} %y = transpose(%j) {{perm = [0, 3, 1, 2]}} return %y", []),
    "a pad and a part": (f"{BLOCK} %p = pad(%g) {{pads = [0, 0, 2, 0, 0, 1, 0, 0]}} %q = slice(%p) {{begins = [0, 1, 0, 0], ends = [1, 5, 7, 2], steps = [1, 1, 2, 1]}} %y = transpose(%q) {{perm = [0, 3, 1, 2]}} return %y", []),
    "softmax of channels": (f"{BLOCK} %s2 = softmax(%g) {{axis = -1}} %y = transpose(%s2) {{perm = [0, 3, 1, 2]}} return %y", []),
    "a gate of one point": (f"{BLOCK} %r = reduce_mean(%x) {{axes = [2, 3], keepdims = false}} %q = slice(%r) {{begins = [0, 0], ends = [1, 2], steps = [1, 1]}} %p = reshape(%q) {{shape = [1, 1, 1, 2]}} %e = sigmoid(%p) %z = mul(%e, %g) %y = transpose(%z) {{perm = [0, 3, 1, 2]}} return %y", []),
    "an input whose pad is larger": ("%p = pad(%x) {pads = [0, 0, 1, 0, 0, 0, 1, 0]} %t = transpose(%p) {perm = [0, 3, 1, 2]} %y = relu(%t) return %y", [(1, 5, 3, 4)]),
    "an input as it is": ("%a = relu(%x) %t = transpose(%a) {perm = [0, 3, 1, 2]} %y = abs(%t) return %y", [(1, 5, 3, 4)]),
    "volumes": ("%b = reshape(%x) {shape = [1, 3, 2, 2, 5]} %t = transpose(%b) {perm = [0, 2, 3, 4, 1]} %n = sigmoid(%t) %w = constant dense([1.0, -1.0, 2.0, 3.0, 0.0, 1.0]) : f32[3,2] %m = matmul(%n, %w) %y = transpose(%m) {perm = [0, 4, 1, 2, 3]} return %y", []),
    "an image beside a volume": ("%b = reshape(%x) {shape = [5, 4, 3, 1]} %u = transpose(%b) {perm = [0, 2, 3, 1]} %v = input : f32[2,4,5,3,1] %w = transpose(%v) {perm = [0, 2, 3, 4, 1]} %a = add(%u, %w) %y = transpose(%a) {perm = [0, 4, 1, 2, 3]} return %y", [(5, 3, 1, 4), (2, 5, 3, 1, 4), (2, 4, 5, 3, 1)]),
    "one of them has another reader": (f"{BLOCK} %y = transpose(%g) {{perm = [0, 3, 1, 2]}} %z = reshape(%t) {{shape = [60]}} return %y, %z", [(1, 4, 5, 3)]),
}  # fmt: skip


@pytest.mark.parametrize(("body", "left"), SUNK.values(), ids=SUNK.keys())
def test_transposes_sink(body, left):
    graph = graph_of("%x = input : f32[1,3,4,5]", body)
    sunk = sink_transposes(graph)
    sunk.verify()
    assert [n.type.shape for n in sunk.nodes if n.op == "transpose"] == left
    data = inputs_of(graph)
    wanted, got = interpret(graph, data), interpret(sunk, data)
    for name in wanted:
        np.testing.assert_allclose(got[name], wanted[name], rtol=1e-12, atol=1e-12)
    assert sink_transposes(sunk) is sunk


def test_products_of_integers_stay():
    graph = graph_of(
        "%x = input : i32[1,3,4,5]",
        "%t = transpose(%x) {perm = [0, 2, 3, 1]} %w = constant dense([1, 2, 3]) : i32[3,1] %m = matmul(%t, %w)"
        " %y = transpose(%m) {perm = [0, 3, 1, 2]} return %y",
    )
    assert sink_transposes(graph) is graph


# ---- merge_pads, replace_global_pools ---------------------------------------------------------------------------

MAP = "%x = input : f32[1,2,4,4] %w = input : f32[2,2,3,3]"
PAD = "%p = pad(%x) {pads = [0, 0, 1, 0, 0, 0, 0, 1]}"

MERGED = {
    "pads add up": (
        f"{PAD} %y = conv(%p, %w) {{strides = [2, 2], pads = [0, 1, 1, 0]}} return %y",
        "%y = conv(%x, %w) {strides = [2, 2], pads = [1, 1, 1, 1]} : f32[1,2,2,2]",
    ),
    "two pads": (
        f"{PAD} %q = pad(%p) {{pads = [0, 0, 0, 1, 0, 0, 1, 0]}} %y = conv(%q, %w) return %y",
        "%y = conv(%x, %w) {pads = [1, 1, 1, 1]} : f32[1,2,4,4]",
    ),
    "an average pool counts them": (
        f"{PAD} %y = average_pool(%p) {{kernel = [2, 2]}} return %y",
        "%y = average_pool(%x) {kernel = [2, 2], pads = [1, 0, 0, 1], count_include_pad = true} : f32[1,2,4,4]",
    ),
}


@pytest.mark.parametrize(("body", "after"), MERGED.values(), ids=MERGED.keys())
def test_pads_merge(body, after):
    graph = graph_of(MAP, body)
    merged = eliminate_dead_nodes(merge_pads(graph))
    assert lines(merged) == [after]
    data = inputs_of(graph)
    np.testing.assert_array_equal(interpret(merged, data)["y"], interpret(graph, data)["y"])


DEAD = {
    # extents, filter, (strides, dilations, pads) -> filter and attributes that are left
    "both ends": ((14, 14), (3, 3), ((1, 1), (24, 12), (24, 12, 24, 12)), (1, 3), ((), (1, 12), (0, 12, 0, 12))),
    "one end": ((2, 4), (3, 3), ((2, 1), (1, 1), (1, 1, 1, 1)), (2, 3), ((2, 1), (), (0, 1, 1, 1))),
    "a single point": ((1, 1), (5, 3), ((1, 1), (1, 1), (2, 1, 2, 1)), (1, 1), ((), (), ())),
}  # fmt: skip


@pytest.mark.parametrize(("extents", "kernel", "given", "left", "after"), DEAD.values(), ids=DEAD)
def test_taps_that_read_padding_alone_go(extents, kernel, given, left, after):
    strides, dilations, pads = map(list, given)
    weights = np.random.default_rng(0).integers(1, 9, (2, 3, *kernel)).astype(np.float32)
    graph = parse(
        f"graph @g {{ %x = input : f32[1,3,{extents[0]},{extents[1]}] %w = constant dense({weights.ravel().tolist()}) : f32[2,3,{kernel[0]},{kernel[1]}]"
        f" %y = conv(%x, %w) {{strides = {strides}, dilations = {dilations}, pads = {pads}}} return %y }}"
    )
    cut = eliminate_dead_nodes(drop_dead_taps(graph))
    attributes = cut["y"].attributes
    assert cut["w_live"].type.shape[2:] == left
    assert (attributes.strides or (1, 1)) == (after[0] or (1, 1))
    assert (attributes.dilations, attributes.pads) == after[1:]
    data = inputs_of(graph)
    np.testing.assert_array_equal(interpret(cut, data)["y"], interpret(graph, data)["y"])
    assert drop_dead_taps(cut) is cut


ALIVE = {
    "every tap reads data": "{pads = [1, 1, 1, 1]}",
    "padding alone, everywhere": "{strides = [9, 9], pads = [5, 5, 9, 9]}",
    "a negative pad would follow": "{dilations = [3, 1], pads = [2, 1, 1, 1]}",
}


@pytest.mark.parametrize("attributes", ALIVE.values(), ids=ALIVE.keys())
def test_other_taps_stay(attributes):
    graph = parse(
        f"graph @g {{ %x = input : f32[1,1,4,4] %w = constant splat(1.0) : f32[1,1,3,3] %y = conv(%x, %w) {attributes} return %y }}"
    )
    assert drop_dead_taps(graph) is graph


UNMERGED = {
    "a border of ones": "%p = pad(%x) {pads = [0, 0, 1, 1, 0, 0, 1, 1], value = 1.0} %y = conv(%p, %w) return %y",
    "channels": "%v = input : f32[2,3,3,3] %p = pad(%x) {pads = [0, 1, 0, 0, 0, 0, 0, 0]} %y = conv(%p, %v) return %y",
    "a maximum": f"{PAD} %y = max_pool(%p) {{kernel = [2, 2]}} return %y",
    "a pool that does not count its own padding": f"{PAD} %y = average_pool(%p) {{kernel = [2, 2], pads = [1, 1, 0, 0]}} return %y",
    "padding as wide as the window": "%p = pad(%x) {pads = [0, 0, 2, 0, 0, 0, 0, 0]} %y = average_pool(%p) {kernel = [2, 2]} return %y",
    "a last window that starts in the padding": "%p = pad(%x) {pads = [0, 0, 0, 0, 0, 0, 1, 0]} %y = average_pool(%p) {kernel = [2, 2], strides = [4, 1], ceil_mode = true} return %y",
    "weights": "%p = pad(%w) {pads = [0, 0, 1, 1, 0, 0, 1, 1]} %q = conv(%x, %w) %y = relu(%p) return %y, %q",
}


@pytest.mark.parametrize("body", UNMERGED.values(), ids=UNMERGED.keys())
def test_other_pads_stay(body):
    graph = graph_of(MAP, body)
    assert merge_pads(graph) is graph


@pytest.mark.parametrize(
    "attributes",
    [
        "kernel = [4, 3]",
        "kernel = [4, 4], pads = [1, 0, 0, 0]",
        "kernel = [2, 2], dilations = [3, 3]",
    ],
)
def test_other_pools_stay(attributes):
    graph = graph_of(MAP, f"%y = average_pool(%x) {{{attributes}}} return %y")
    assert replace_global_pools(graph) is graph


# ---- deduplicate_nodes, eliminate_dead_nodes --------------------------------------------------------------------


def test_equal_constants_become_one_and_near_ones_do_not():
    elements = ", ".join(f"{i}.0" for i in range(16))
    near = elements.replace("7.0", "7.5")
    graph = graph_of(
        "",
        f"%a = constant dense([{elements}]) : f32[16] %b = constant dense([{elements}]) : f32[16] %c = constant dense([{near}]) : f32[16] %d = constant dense([{elements}]) : f32[4,4] return %a, %b, %c, %d",
    )
    after = deduplicate_nodes(graph)
    assert [n.name for n in after.nodes] == ["a", "c", "d"]
    assert [(o.name, o.value) for o in after.outputs] == [
        ("a", "a"),
        ("b", "a"),
        ("c", "c"),
        ("d", "d"),
    ]


def test_large_constants_that_agree_in_the_samples_are_told_apart():
    from convc.ir.graph import Graph, Output, constant

    arrays = [np.zeros(10_000, "float32") for _ in range(3)]
    arrays[1][1] = 1.0
    nodes = tuple(constant(f"c{i}", a) for i, a in enumerate(arrays))
    graph = Graph("g", nodes, tuple(Output(n.name, n.name) for n in nodes))
    assert [n.name for n in deduplicate_nodes(graph).nodes] == ["c0", "c1"]


def test_sums_are_equal_in_either_order_and_differences_are_not():
    head = "%x = input : f32[2] %v = input : f32[2]"
    graph = graph_of(
        head,
        "%a = add(%x, %v) %b = add(%v, %x) %c = sub(%x, %v) %d = sub(%v, %x) return %a, %b, %c, %d",
    )
    assert [n.name for n in deduplicate_nodes(graph).compute_nodes] == ["a", "c", "d"]


def test_inputs_stay_even_if_nobody_reads_them():
    graph = graph_of(
        "%x = input : f32[2] %v = input : f32[2]",
        "%k = constant splat(1.0) : f32[2] %y = relu(%x) return %y",
    )
    assert [n.name for n in eliminate_dead_nodes(graph).nodes] == ["x", "v", "y"]
