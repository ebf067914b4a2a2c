"""The least total of costs of single choices and of pairs, exactly where the graph of pairs is narrow, as networks are.

THE ALGORITHM   one choice after another is eliminated, always the one whose neighbours have the fewest combinations: for each of them its
                best answer and what that costs become one cost of the neighbours. Then the choices are read off in reverse
COST            of the largest table its number of combinations: ResNet-50's has 12, MobileNetV2's 8; a chain needs the square of one choice
SOURCE          R. Dechter, "Bucket elimination: a unifying framework for reasoning", Artificial Intelligence 113 (1999), section 4.3; on
                chains it is Viterbi's, as NeoCPU uses it (Liu et al., ATC'19)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np

__all__ = ["Pair", "least_total"]

# Costs of two choices together, the first one's along the rows.
Pair: TypeAlias = tuple[str, str, np.ndarray]

# Combinations in one table; 8 MB of them. A densely connected network's last layers would have 3 to the power of their number.
_MOST: Final = 1 << 20


def least_total(costs: Mapping[str, np.ndarray], pairs: Sequence[Pair]) -> dict[str, int] | None:
    """Return for every name the index that it takes, of equal totals the first; None if a table would have more than a million entries.

    Args:
        costs: of each name's choices, at least one.
        pairs: of two different names; several of the same two add up.

    Example:
        >>> alone = {"a": np.array([1.0, 2.0]), "b": np.array([1.0, 2.0])}
        >>> least_total(alone, [("a", "b", np.array([[9.0, 9.0], [9.0, 0.0]]))])
        {'a': 1, 'b': 1}
    """
    sizes = {name: len(row) for name, row in costs.items()}
    # Of one choice a name is no axis: an array has 64 at most, and a block of DenseNet-264 more layers beside each other.
    left = [name for name in costs if sizes[name] > 1]
    tables: list[tuple[tuple[str, ...], np.ndarray]] = [((name,), costs[name]) for name in left]
    beside: dict[str, set[str]] = {name: set() for name in left}
    for a, b, table in pairs:
        names = tuple(name for name in (a, b) if name in beside)
        tables.append((names, table.reshape([sizes[name] for name in names])))
        for name in names:
            beside[name].update({*names} - {name})

    def combinations(name: str) -> int:
        return math.prod(sizes[n] for n in (name, *beside[name]))

    answers: list[tuple[str, tuple[str, ...], np.ndarray]] = []
    # In the order given where several are as narrow, so that the same graph gives the same choices.
    while left:
        name = min(left, key=combinations)
        if combinations(name) > _MOST:
            return None
        around = tuple(n for n in left if n in beside[name])
        axes = (name, *around)
        total = np.zeros([sizes[n] for n in axes])
        for names, table in tables:
            if name in names:
                total += _along(axes, names, table)
        answers.append((name, around, total.argmin(0)))
        tables = [(names, table) for names, table in tables if name not in names]
        tables.append((around, total.min(0)))
        for n in around:
            beside[n] = (beside[n] | set(around)) - {n, name}
        left.remove(name)
    taken = dict.fromkeys(costs, 0)
    for name, around, best in reversed(answers):
        taken[name] = int(best[tuple(taken[n] for n in around)])
    return taken


def _along(axes: Sequence[str], names: Sequence[str], table: np.ndarray) -> np.ndarray:
    """Return a table with its names' axes in place among all, of extent 1 where it has none."""
    order = sorted(range(len(names)), key=lambda i: axes.index(names[i]))
    extents = dict(zip(names, table.shape, strict=True))
    return table.transpose(order).reshape([extents.get(n, 1) for n in axes])
