"""Agreement of layers on the blocks between them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from convc.ir.text import parse
from convc.schedules import least_total as elimination
from convc.schedules.agree import Option, agree
from convc.schedules.least_total import least_total

ONE = 16 * 64 / 3.6e9
CHAIN = """graph @g { %x = input : f32[1,16,8,8]  %w = constant splat(0.5) : f32[16,16,1,1]
  %a = conv(%x, %w)  %r = relu(%a)  %b = conv(%r, %w)  return %b }"""
ROW = """graph @g { %x = input : f32[1,16,8,8]  %w = constant splat(0.5) : f32[16,16,1,1]  %a = conv(%x, %w)  %b = conv(%a, %w)
  %c = conv(%b, %w)  %d = conv(%c, %w)  %p = reduce_mean(%d) {axes = [2, 3], keepdims = false}  return %p }"""
BOTTLENECK = """graph @g { %x = input : f32[1,16,8,8]  %w = constant splat(0.5) : f32[16,16,1,1]  %a = conv(%x, %w)  %b = conv(%a, %w)
  %c = conv(%b, %w, %a) {epilogue = [add]}  %p = reduce_mean(%c) {axes = [2, 3], keepdims = false}  return %p }"""


def agreed(text: str, options: Mapping[str, Sequence[Option]]) -> dict[str, int]:
    return agree(parse(text), options, lambda value: value.size / 3.6e9)


@pytest.fixture(params=["exactly", "improved"])
def way(request, monkeypatch):
    """Both ways: a table with one entry is too large for the second one."""
    if request.param == "improved":
        monkeypatch.setattr(elimination, "_MOST", 0)


def test_layers_agree_where_a_copy_costs_more_than_it_gains(way):
    fast, plain = Option(1e-6, 16, 8), Option(1e-6 + ONE / 2, 16, 16)
    reader = [Option(1e-6, 16, 16)]
    assert agreed(CHAIN, {"a": [fast, plain], "b": reader}) == {"a": 1, "b": 0}
    slow = Option(1e-6 + 2 * ONE, 16, 16)
    assert agreed(CHAIN, {"a": [fast, slow], "b": reader}) == {"a": 0, "b": 0}
    # Alone, the graph's input is plain for either.
    assert agreed(CHAIN, {"a": [fast, plain]}) == {"a": 0}
    # What the caller takes is plain.
    assert agreed(CHAIN, {"a": [plain], "b": [Option(1e-6, 16, 16), Option(1e-6 + ONE / 2, 16, 0)]}) == {"a": 0, "b": 1}  # fmt: skip


def test_a_row_changes_its_blocks_together_where_no_layer_gains_alone(way):
    """Every layer is fastest in blocks of 8, the last one in 16 by far: the copy in front of it moves to the row's plain beginning."""
    either = [Option(1e-6, 8, 8), Option(1e-6 + ONE / 8, 16, 16)]
    options = {"a": either, "b": either, "c": either, "d": [Option(1e-6, 16, 16), Option(1e-6 + 9 * ONE, 8, 8)]}  # fmt: skip
    assert agreed(ROW, options) == {"a": 1, "b": 1, "c": 1, "d": 0}
    dear = [either[0], Option(1e-6 + ONE / 2, 16, 16)]
    assert agreed(ROW, {**options, "a": dear, "b": dear, "c": dear}) == {"a": 0, "b": 0, "c": 0, "d": 0}  # fmt: skip


def test_what_a_layer_adds_is_read_in_the_block_that_it_writes(way):
    narrow, wide = Option(1e-6, 8, 8), Option(1e-6, 16, 16)
    for first, other in ((narrow, wide), (wide, narrow)):
        # b reads a's and writes c's; only c's own block is open.
        middle = [Option(1e-6, first.writes, other.reads)]
        same = Option(1e-6 + ONE / 2, other.reads, first.writes)
        assert agreed(BOTTLENECK, {"a": [first], "b": middle, "c": [other, same]}) == {"a": 0, "b": 0, "c": 1}  # fmt: skip


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
        pairs = [(a, b, random.integers(0, 9, (sizes[a], sizes[b])).astype(float)) for a, b in chosen]  # fmt: skip

        def total(taken, costs=costs, pairs=pairs):
            return sum(costs[n][i] for n, i in taken.items()) + sum(t[taken[a], taken[b]] for a, b, t in pairs)  # fmt: skip

        every = (dict(zip(sizes, taken, strict=True)) for taken in itertools.product(*map(range, sizes.values())))  # fmt: skip
        found = least_total(costs, pairs)
        assert found is not None
        assert total(found) == min(map(total, every))
        assert list(found) == list(costs)


def test_what_is_too_dense_is_said_to_be():
    names = [f"n{i}" for i in range(22)]
    pairs = [(a, b, np.zeros((2, 2))) for a, b in itertools.combinations(names, 2)]
    assert least_total({n: np.zeros(2) for n in names}, pairs) is None
    assert least_total({n: np.zeros(1) for n in names}, [(a, b, np.zeros((1, 1))) for a, b, _ in pairs]) is not None  # fmt: skip


def test_names_of_one_choice_are_no_axes():
    """Arrays have 64 axes at most."""
    names = [f"n{i}" for i in range(70)]
    pairs = [(a, b, np.zeros((1, 1))) for a, b in itertools.combinations(names, 2)]
    pairs += [(name, "open", np.array([[float(i), 1.0]])) for i, name in enumerate(names)]
    costs = {**{name: np.zeros(1) for name in names}, "open": np.zeros(2)}
    assert least_total(costs, pairs) == {**dict.fromkeys(names, 0), "open": 1}
