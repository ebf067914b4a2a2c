"""The least total of costs of single choices and of several together, exactly where these are narrow, as networks are.

THE ALGORITHM   one choice after another is eliminated, always the one whose neighbours have the fewest combinations: for each of them its
                best answer and what that costs become one cost of the neighbours. Then the choices are read off in reverse. Where even
                that one has too many, the one with the most is settled first: on what is least by what its neighbours could cost at best;
                and in the end each is changed for as long as that makes less (iterated conditional modes, Besag 1986)
COST            of the largest table its number of combinations: ResNet-50's has 12, MobileNetV2's 8; a chain needs the square of one choice
SOURCE          R. Dechter, "Bucket elimination: a unifying framework for reasoning", Artificial Intelligence 113 (1999), section 4.3; on
                chains it is Viterbi's, as NeoCPU uses it (Liu et al., ATC'19)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np

__all__ = ["Table", "least_total"]

# Costs of different names' choices together, an axis for each.
Table: TypeAlias = tuple[tuple[str, ...], np.ndarray]

# Combinations in one table; 8 MB of them. Settling choices before would be fast, too, but not the least total.
_MOST: Final = 1 << 20


def least_total(costs: Mapping[str, np.ndarray], tables: Sequence[Table]) -> dict[str, int]:
    """Return for every name the index that it takes, of equal totals the first; exact if no table has more than a million entries.

    Args:
        costs: of each name's choices, at least one; infinite where a choice is impossible.
        tables: of different names; several of the same names add up.

    Example:
        >>> alone = {"a": np.array([1.0, 2.0]), "b": np.array([1.0, 2.0])}
        >>> least_total(alone, [(("a", "b"), np.array([[9.0, 9.0], [9.0, 0.0]]))])
        {'a': 1, 'b': 1}
    """
    left, exact = _Left(costs, tables), True
    answers: list[tuple[str, tuple[str, ...], np.ndarray]] = []
    while left.count:
        # In the order given where several are as narrow, so that the same graph gives the same choices.
        name = min(left.count, key=left.count.__getitem__)
        if left.count[name] > _MOST:
            name = max(left.count, key=left.count.__getitem__)
            answers.append((name, (), left.settled(name)))
            exact = False
        else:
            answers.append((name, *left.eliminated(name)))
    taken = dict.fromkeys(costs, 0)
    for name, around, best in reversed(answers):
        taken[name] = int(best[tuple(taken[n] for n in around)])
    return taken if exact else _improved(taken, costs, tables)


def _improved(
    taken: dict[str, int], costs: Mapping[str, np.ndarray], tables: Sequence[Table]
) -> dict[str, int]:
    """Return the choices after each has been changed for as long as that makes the total less."""
    beside: dict[str, list[Table]] = {name: [] for name in costs}
    for names, table in tables:
        for name in names:
            beside[name].append((names, table))
    changed = True
    while changed:
        changed = False
        for name, own in costs.items():
            total = own.copy()
            for names, table in beside[name]:
                total += table[tuple(slice(None) if n == name else taken[n] for n in names)]
            best = int(total.argmin())
            if total[best] < total[taken[name]]:
                taken[name], changed = best, True
    return taken


class _Left:
    """The choices that are left, and the tables of what they cost together.

    Attributes:
        count: of each, how many combinations it and its neighbours have.
    """

    def __init__(self, costs: Mapping[str, np.ndarray], tables: Sequence[Table]) -> None:
        # Of one choice a name is no axis: an array has 64 at most, and a block of DenseNet-264 more layers beside each other.
        self._order = {name: i for i, name in enumerate(n for n in costs if len(costs[n]) > 1)}
        self._sizes = {name: len(costs[name]) for name in self._order}
        self._tables: dict[str, list[Table]] = {n: [] for n in self._order}  # fmt: skip
        for name in self._order:
            self._add((name,), costs[name])
        for every, table in tables:
            names = tuple(name for name in every if name in self._order)
            self._add(names, table.reshape([self._sizes[name] for name in names]))
        self.count = {name: self._combinations(name) for name in self._order}

    def _add(self, names: tuple[str, ...], table: np.ndarray) -> None:
        for name in names:
            self._tables[name].append((names, table))

    def _around(self, name: str) -> tuple[str, ...]:
        found = {n for names, _ in self._tables[name] for n in names} - {name}
        return tuple(sorted(found, key=self._order.__getitem__))

    def _combinations(self, name: str) -> int:
        return math.prod(self._sizes[n] for n in (name, *self._around(name)))

    def _removed(self, name: str) -> list[Table]:
        """Take a name and its tables out, and return these."""
        tables = self._tables.pop(name)
        del self.count[name]
        for names, _ in tables:
            for n in {*names} - {name}:
                self._tables[n] = [row for row in self._tables[n] if name not in row[0]]
        return tables

    def eliminated(self, name: str) -> tuple[tuple[str, ...], np.ndarray]:
        """Replace a name by what it costs at best, by its neighbours' choices; return these and its answers."""
        around = self._around(name)
        axes = (name, *around)
        total = np.zeros([self._sizes[n] for n in axes])
        for names, table in self._removed(name):
            total += _along(axes, names, table)
        if around:
            self._add(around, total.min(0))
        for n in around:
            self.count[n] = self._combinations(n)
        return around, total.argmin(0)

    def settled(self, name: str) -> np.ndarray:
        """Settle a name on the choice that is the least if each table beside it had its least entry; return that."""
        around, bound = self._around(name), np.zeros(self._sizes[name])
        for names, table in self._tables[name]:
            own = table
            for axis, n in enumerate(names):
                if n != name:
                    shape = [1] * len(names)
                    shape[axis] = self._sizes[n]
                    own = own + sum(
                        (t for row, t in self._tables[n] if row == (n,)), np.zeros(1)
                    ).reshape(shape)
            bound += own.min(tuple(i for i, n in enumerate(names) if n != name))
        best = int(bound.argmin())
        for names, table in self._removed(name):
            rest = tuple(n for n in names if n != name)
            if rest:
                self._add(rest, table.take(best, names.index(name)))
        for n in around:
            self.count[n] = self._combinations(n)
        return np.array(best)


def _along(axes: Sequence[str], names: Sequence[str], table: np.ndarray) -> np.ndarray:
    """Return a table with its names' axes in place among all, of extent 1 where it has none."""
    order = sorted(range(len(names)), key=lambda i: axes.index(names[i]))
    extents = dict(zip(names, table.shape, strict=True))
    return table.transpose(order).reshape([extents.get(n, 1) for n in axes])
