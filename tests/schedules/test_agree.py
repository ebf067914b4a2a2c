"""Agreement of layers on the blocks between them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from convc.ir import Graph, GraphBuilder, TensorType
from convc.ir.ops.conv import ConvAttributes
from convc.ir.ops.shape import ConcatAttributes, ReshapeAttributes
from convc.ir.text import parse
from convc.schedules import least_total as elimination
from convc.schedules.agree import Option, agree
from convc.schedules.least_total import least_total
from convc.target import parse_target

ONE = 16 * 64 / 3.6e9
CHAIN = """graph @g { %x = input : f32[1,16,8,8]  %w = constant splat(0.5) : f32[16,16,1,1]
  %a = conv(%x, %w)  %r = relu(%a)  %b = conv(%r, %w)  return %b }"""
ROW = """graph @g { %x = input : f32[1,16,8,8]  %w = constant splat(0.5) : f32[16,16,1,1]  %a = conv(%x, %w)  %b = conv(%a, %w)
  %c = conv(%b, %w)  %d = conv(%c, %w)  %p = reduce_mean(%d) {axes = [2, 3], keepdims = false}  return %p }"""
BOTTLENECK = """graph @g { %x = input : f32[1,16,8,8]  %w = constant splat(0.5) : f32[16,16,1,1]  %a = conv(%x, %w)  %b = conv(%a, %w)
  %c = conv(%b, %w, %a) {epilogue = [add]}  %p = reduce_mean(%c) {axes = [2, 3], keepdims = false}  return %p }"""


ZEN4 = parse_target("llvm", "znver4", 1)


def agreed(text: str, options: Mapping[str, Sequence[Option]]) -> dict[str, int]:
    return agree(parse(text), options, lambda value: value.size / 3.6e9, ZEN4)


def test_layers_agree_where_a_copy_costs_more_than_it_gains():
    fast, plain = Option(1e-6, 16, 8), Option(1e-6 + ONE / 2, 16, 16)
    reader = [Option(1e-6, 16, 16)]
    assert agreed(CHAIN, {"a": [fast, plain], "b": reader}) == {"a": 1, "b": 0}
    slow = Option(1e-6 + 2 * ONE, 16, 16)
    assert agreed(CHAIN, {"a": [fast, slow], "b": reader}) == {"a": 0, "b": 0}
    # Alone, the graph's input is plain for either.
    assert agreed(CHAIN, {"a": [fast, plain]}) == {"a": 0}
    # What the caller takes is plain.
    assert agreed(CHAIN, {"a": [plain], "b": [Option(1e-6, 16, 16), Option(1e-6 + ONE / 2, 16, 0)]}) == {"a": 0, "b": 1}  # fmt: skip


def test_a_row_changes_its_blocks_together_where_no_layer_gains_alone():
    """Every layer is fastest in blocks of 8, the last one in 16 by far: the copy in front of it moves to the row's plain beginning."""
    either = [Option(1e-6, 8, 8), Option(1e-6 + ONE / 8, 16, 16)]
    options = {"a": either, "b": either, "c": either, "d": [Option(1e-6, 16, 16), Option(1e-6 + 9 * ONE, 8, 8)]}  # fmt: skip
    assert agreed(ROW, options) == {"a": 1, "b": 1, "c": 1, "d": 0}
    dear = [either[0], Option(1e-6 + ONE / 2, 16, 16)]
    assert agreed(ROW, {**options, "a": dear, "b": dear, "c": dear}) == {"a": 0, "b": 0, "c": 0, "d": 0}  # fmt: skip


def test_what_a_layer_adds_is_read_in_the_block_that_it_writes():
    narrow, wide = Option(1e-6, 8, 8), Option(1e-6, 16, 16)
    for first, other in ((narrow, wide), (wide, narrow)):
        # b reads a's and writes c's; only c's own block is open.
        middle = [Option(1e-6, first.writes, other.reads)]
        same = Option(1e-6 + ONE / 2, other.reads, first.writes)
        assert agreed(BOTTLENECK, {"a": [first], "b": middle, "c": [other, same]}) == {"a": 0, "b": 0, "c": 1}  # fmt: skip


def test_readers_of_one_block_share_a_copy():
    text = """graph @g { %x = input : f32[1,16,8,8]  %w = constant splat(0.5) : f32[16,16,1,1]  %a = conv(%x, %w)  %b = conv(%a, %w)
      %c = conv(%a, %w)  %d = add(%b, %c)  %p = reduce_mean(%d) {axes = [2, 3], keepdims = false}  return %p }"""
    readers = {name: [Option(1e-6, 8, 8)] for name in "bc"}
    for gain, index in ((0.5, 1), (1.5, 0)):
        first = [Option(1e-6, 16, 16), Option(1e-6 + gain * ONE, 16, 8)]
        assert agreed(text, {"a": first, **readers})["a"] == index


def test_what_several_layers_join_into_is_copied_once():
    """Three layers write one concatenation, which two others read in another block: one copy of it, and not six."""
    text = """graph @g { %x = input : f32[1,16,8,8]  %w = constant splat(0.5) : f32[16,16,1,1]  %v = constant splat(0.5) : f32[16,48,1,1]
      %a = conv(%x, %w)  %b = conv(%x, %w)  %c = conv(%x, %w)  %j = concat(%a, %b, %c) {axis = 1}  %d = conv(%j, %v)  %e = conv(%j, %v)
      %s = add(%d, %e)  %p = reduce_mean(%s) {axes = [2, 3], keepdims = false}  return %p }"""
    readers = {name: [Option(1e-6, 8, 8)] for name in "de"}
    for gain, index in ((0.9, 1), (1.1, 0)):
        rows = [Option(1e-6, 16, 16), Option(1e-6 + gain * ONE, 16, 8)]
        assert {agreed(text, {"a": rows, "b": rows, "c": rows, **readers})[n] for n in "abc"} == {index}  # fmt: skip


PIECES = ("conv", "conv", "conv", "relu", "add", "concat", "reshape")


def random_graph(random: np.random.Generator) -> tuple[Graph, dict[str, list[Option]]]:
    """Return a graph of a few layers and ops, and up to three options for each layer."""
    b = GraphBuilder("g")
    values = [b.input("x", TensorType((1, 16, 4, 4)))]
    options: dict[str, list[Option]] = {}
    for i in range(int(random.integers(4, 10))):
        kind = PIECES[random.integers(len(PIECES))]
        x = values[random.integers(len(values))]
        same = [v for v in values if b.type(v) == b.type(x)]
        other = same[random.integers(len(same))]
        name, channels = f"v{i}", b.type(x).shape[1]
        if kind == "conv":
            w = b.constant(np.ones((16, channels, 1, 1), np.float32), f"w{i}")
            values.append(b.add("conv", [x, w], ConvAttributes(), name))
            blocks = [(int(r), int(w)) for r, w in random.choice((0, 8, 16), (3, 2))][: random.integers(1, 4)]  # fmt: skip
            options[name] = [Option(float(random.integers(1, 5)) * 1e-7, r, w) for r, w in blocks]
        elif kind == "concat":
            values.append(b.add("concat", [x, other], ConcatAttributes(axis=1), name))
        elif kind == "add":
            values.append(b.add("add", [x, other], None, name))
        elif kind == "reshape":
            values.append(b.add("reshape", [x], ReshapeAttributes(shape=b.type(x).shape), name))
        else:
            values.append(b.add("relu", [x], None, name))
    return b.finish({"y": values[-1]}), options


def lowered(graph: Graph, chosen: Mapping[str, Option]) -> float:
    """Return what the layers and the copies between them cost, as `lowering.layouts` places values."""
    written: dict[str, int] = {}
    wanted: dict[str, set[int]] = {}
    total = sum(option.seconds for option in chosen.values())

    for node in graph.compute_nodes:
        operands = [i for i in node.inputs if graph[i].op != "constant"]
        before = {i: written.get(i, 0) for i in operands}
        if node.name in chosen:
            own, result = chosen[node.name].reads, chosen[node.name].writes
        else:
            own = result = 0 if node.op == "reshape" else max(before.values())
            if node.op == "concat" and not result:
                total += node.type.size / 3.6e9
        written[node.name] = result
        for i in operands:
            wanted.setdefault(i, set()).add(own)
    for name in graph.output_values:
        wanted.setdefault(name, set()).add(0)
    copies = {n: len(blocks - {written.get(n, 0)}) for n, blocks in wanted.items()}
    return total + sum(count * graph[n].type.size / 3.6e9 for n, count in copies.items())


def test_random_graphs_agree_on_the_least_of_all():
    """Layers, joins, sums and what must be plain, with all combinations of options beside them."""
    random, several = np.random.default_rng(1), 0
    for _ in range(80):
        graph, options = random_graph(random)
        several += len(options) > 2
        names = list(options)

        def cost(taken, graph=graph, options=options, names=names):
            return lowered(graph, {n: options[n][i] for n, i in zip(names, taken, strict=True)})  # fmt: skip

        found = agree(graph, options, lambda value: value.size / 3.6e9, ZEN4)
        least = min(map(cost, itertools.product(*(range(len(options[n])) for n in names))))
        assert cost([found[n] for n in names]) == pytest.approx(least, rel=1e-9)
    assert several > 25


def test_of_equal_totals_the_fastest_layers_win():
    rows = [Option(1e-6, 8, 8), Option(1e-6, 8, 8), Option(2e-6, 8, 8)]
    assert agreed(CHAIN, {"a": rows, "b": rows[::-1]}) == {"a": 0, "b": 1}


def test_eliminated_totals_are_the_least_of_all():
    """All combinations of small random problems: chains, trees, cycles, doubled pairs, names without any."""
    random = np.random.default_rng(0)
    for _ in range(60):
        sizes = {f"n{i}": int(random.integers(1, 4)) for i in range(random.integers(1, 7))}
        costs = {name: random.integers(0, 9, size).astype(float) for name, size in sizes.items()}
        possible = list(itertools.combinations(sizes, 2))
        chosen = [possible[i] for i in random.integers(0, len(possible), random.integers(0, 9))] if possible else []  # fmt: skip
        pairs = [((a, b), random.integers(0, 9, (sizes[a], sizes[b])).astype(float)) for a, b in chosen]  # fmt: skip

        def total(taken, costs=costs, pairs=pairs):
            return sum(costs[n][i] for n, i in taken.items()) + sum(t[taken[a], taken[b]] for (a, b), t in pairs)  # fmt: skip

        every = (dict(zip(sizes, taken, strict=True)) for taken in itertools.product(*map(range, sizes.values())))  # fmt: skip
        found = least_total(costs, pairs)
        assert found is not None
        assert total(found) == min(map(total, every))
        assert list(found) == list(costs)


def test_what_is_too_dense_comes_near_the_least(monkeypatch):
    """Ten names, each beside all others: settled one by one until the rest is narrow, and improved in the end."""
    monkeypatch.setattr(elimination, "_MOST", 81)
    random, beyond = np.random.default_rng(0), []
    for _ in range(20):
        costs = {f"n{i}": random.random(3) for i in range(8)}
        pairs = [((a, b), random.random((3, 3))) for a, b in itertools.combinations(costs, 2)]

        def total(taken, costs=costs, pairs=pairs):
            return sum(costs[n][i] for n, i in taken.items()) + sum(t[taken[a], taken[b]] for (a, b), t in pairs)  # fmt: skip

        every = (dict(zip(costs, taken, strict=True)) for taken in itertools.product(range(3), repeat=8))  # fmt: skip
        found = least_total(costs, pairs)
        assert found == least_total(costs, pairs)
        beyond.append(total(found) / min(map(total, every)))
    assert np.median(beyond) < 1.05
    assert max(beyond) < 1.3
    wide = [f"n{i}" for i in range(90)]
    assert len(least_total({n: np.ones(2) for n in wide}, [((a, b), np.zeros((2, 2))) for a, b in itertools.combinations(wide, 2)])) == 90  # fmt: skip


def test_names_of_one_choice_are_no_axes():
    """Arrays have 64 axes at most."""
    names = [f"n{i}" for i in range(70)]
    pairs = [((a, b), np.zeros((1, 1))) for a, b in itertools.combinations(names, 2)]
    pairs += [((name, "open"), np.array([[float(i), 1.0]])) for i, name in enumerate(names)]
    costs = {**{name: np.zeros(1) for name in names}, "open": np.zeros(2)}
    assert least_total(costs, pairs) == {**dict.fromkeys(names, 0), "open": 1}
