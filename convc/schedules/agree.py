"""Agreement over the whole graph: a layer's gain must not be eaten by the copies that its choice of blocks makes necessary.

Every convolution has options (setting, seconds, block read, block written); every other op works in the widest of its operands' blocks
that it can work in, see `following`. A value is copied once for each block that it is read in and was not written in, however many
readers share the copy. The least total is found exactly where the graph is narrow, see `least_total`. Improving layer by layer from each
one's fastest left the first 20 layers of MobileNetV2 (float16, batch 32, sm_90, no records) in plain order, the pointwise ones four times
slower by estimate than in blocks: no layer gains alone what its row gains together, 407 for 507 us. With a copy for every pair of layers
that something joins, the five layers and two readers of one of ShuffleNet V2's concatenations would pay ten times for one copy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.types import TensorType
from convc.schedules.following import comes_first, follows, goes_last, quantized_operands
from convc.schedules.least_total import Table, least_total
from convc.schedules.weight_gradient_problem import is_weight_gradient
from convc.target import Target

__all__ = ["Option", "agree"]

PLAIN: Final = 0

# Ops that move nothing where channels are whole blocks, or images plain; plain ones are joined by copies.
_VIEWS: Final = ("reshape", "slice", "concat")


@dataclass(frozen=True, slots=True)
class Option:
    """One setting of one layer: its seconds, and the blocks it reads and writes (0: plain, as NCHW1c is)."""

    seconds: float
    reads: int
    writes: int


@dataclass(frozen=True, slots=True)
class _Reader:
    """Somebody who reads a value, and in which block by each of its choices; `name` is None where there is but one."""

    name: str | None
    wanted: tuple[int, ...]


_Options: TypeAlias = Mapping[str, Sequence[Option]]


def agree(
    graph: Graph, options: _Options, copy_seconds: Callable[[TensorType], float], target: Target
) -> dict[str, int]:
    """Return the index of the option that each layer takes, of equal totals that of the fastest layers alone.

    Args:
        graph: after all passes.
        options: of every layer, at least one each.
        copy_seconds: of a value, from one block to another.
        target: the machine.
    """
    # Of a layer's options with the same blocks the fastest is taken in any case, and the fastest of all comes first.
    worth: dict[str, list[int]] = {}
    for name, rows in options.items():
        first: dict[tuple[int, int], int] = {}
        for index in sorted(range(len(rows)), key=lambda i, rows=rows: (rows[i].seconds, i)):
            first.setdefault((rows[index].reads, rows[index].writes), index)
        worth[name] = list(first.values())
    shown = {name: [options[name][i] for i in indices] for name, indices in worth.items()}
    costs, tables = _Choices(graph, shown, copy_seconds, target).made()
    taken = least_total(costs, tables)
    return {name: worth[name][taken[name]] for name in worth}


class _Choices:
    """What is to be chosen, of which the layers' options are a part, and what it costs.

    An op's choice is its block; a value's with several readers is the block that it is written in and those that it is copied to.
    """

    def __init__(
        self,
        graph: Graph,
        options: _Options,
        copy_seconds: Callable[[TensorType], float],
        target: Target,
    ) -> None:
        self.graph, self.options, self.target = graph, options, target
        self.copy_seconds = copy_seconds
        self.costs = {name: np.array([row.seconds for row in rows]) for name, rows in options.items()}  # fmt: skip
        self.tables: list[Table] = []
        # Of each value the block that it is written in, by its node's choice; and who reads it.
        self.written: dict[str, tuple[int, ...]] = {}
        self.readers: dict[str, list[_Reader]] = {}

    def made(self) -> tuple[dict[str, np.ndarray], list[Table]]:
        """Return the costs of single choices and of several together."""
        for node in self.graph.nodes:
            if node.op != CONSTANT:
                self._meet(node)
        for name in self.graph.output_values & self.written.keys():
            self._read(name, _Reader(None, (PLAIN,)))
        for name, readers in self.readers.items():
            self._copies(self.graph[name], readers)
        return self.costs, self.tables

    def _read(self, name: str, reader: _Reader) -> None:
        if self.graph[name].op != CONSTANT:
            self.readers.setdefault(name, []).append(reader)

    def _meet(self, node: Node) -> None:
        """Note the blocks that a node may read and write."""
        name, graph = node.name, self.graph
        if name in self.options:
            rows = self.options[name]
            self.written[name] = tuple(row.writes for row in rows)
            self._read(node.inputs[0], _Reader(name, tuple(row.reads for row in rows)))
            for added in (i for i in node.inputs[2:] if graph[i].type.rank >= 3):
                self._read(added, _Reader(name, self.written[name]))
        elif (wants := quantized_operands(graph, node, self.target)) is not None:
            self.written[name] = (wants.result.block,)
            self._read(node.inputs[0], _Reader(None, (wants.data.block,)))
        elif goes_last(node, self.target) or is_weight_gradient(node):
            # They read any block; which one a gradient reads is chosen by what is there.
            self.written[name] = (PLAIN,)
        elif comes_first(node, self.target):
            blocks = {row.reads for rows in self.options.values() for row in rows}
            self._op(node, node.name, sorted({PLAIN, *blocks}))
            self._read(node.inputs[0], _Reader(None, (PLAIN,)))
        else:
            self._follow(node)

    def _op(self, node: Node, name: str, blocks: Sequence[int]) -> None:
        """Note the blocks that an op, or that what is known of it by `name`, may work in."""
        self.written[name] = tuple(blocks)
        own = [self._pass_seconds(node, b) if name == node.name else 0.0 for b in blocks]
        self.costs[name] = np.array(own)

    def _pass_seconds(self, node: Node, block: int) -> float:
        """Return what an op's way over its result takes as a copy of it would, the zeros beyond the last channel included.

        Five channels in blocks of eight, resampled, cut and added, took a network of flows 0.7 ms of 2.5.
        """
        type = node.type
        operands = [n.type.shape[1] for n in self.graph.operands(node) if n.type.is_image]
        whole = not block or all(c % block == 0 for c in (*type.shape[1:2], *operands))
        if node.op in _VIEWS and whole and (block or node.op != "concat"):
            return 0.0
        if block:
            n, c, *points = type.shape
            type = replace(type, shape=(n, -(-c // block) * block, *points))
        return self.copy_seconds(type)

    def _follow(self, node: Node) -> None:
        graph = self.graph
        operands = [graph[i] for i in dict.fromkeys(node.inputs) if graph[i].op != CONSTANT]
        if not operands:
            self._op(node, node.name, (PLAIN,))
        able: set[int] = set()
        if all(n.type.is_image for n in (*operands, node)):
            found = {b for n in operands for b in self.written[n.name]} - {PLAIN}
            able = {block for block in found if follows(graph, node, block)}
        # The widest of the operands' blocks that it can work in: of the first two, of these and the third one, ...
        before, widest = "", (PLAIN,)
        for count, operand in enumerate(operands, 1):
            own = tuple(b if b in able else PLAIN for b in self.written[operand.name])
            blocks = tuple(sorted({max(a, b) for a in widest for b in own}))
            name = node.name if count == len(operands) else f"{node.name}'s first {count}"
            self._op(node, name, blocks)
            impossible = [[[max(a, b) != c for c in blocks] for b in own] for a in widest]
            table = np.where(impossible, np.inf, 0.0)
            if before:
                self.tables.append(((before, operand.name, name), table))
            else:
                self.tables.append(((operand.name, name), table[0]))
            before, widest = name, blocks
        for operand in operands:
            self._read(operand.name, _Reader(node.name, self.written[node.name]))

    def _copies(self, node: Node, readers: Sequence[_Reader]) -> None:
        """Note what it costs to bring a value to those who read it in another block than it was written in."""
        name, written = node.name, self.written[node.name]
        wanted = sorted({block for reader in readers for block in reader.wanted})
        if len({*wanted, *written}) < 2:
            return
        self.costs.setdefault(name, np.zeros(len(written)))
        copy = self.copy_seconds(node.type)
        if len(readers) == 1:
            table = [[copy * (w != r) for r in readers[0].wanted] for w in written]
            self._pair(name, readers[0], np.array(table))
            return
        places = list(_places(sorted({*written}), wanted))
        at = f"{name}'s copies"
        self.costs[at] = np.array([copy * len(copies) for _, copies in places])
        self.tables.append(((name, at), np.array([[0.0 if w == home else np.inf for home, _ in places] for w in written])))  # fmt: skip
        for reader in readers:
            table = [[0.0 if r in (home, *copies) else np.inf for r in reader.wanted] for home, copies in places]  # fmt: skip
            self._pair(at, reader, np.array(table))

    def _pair(self, name: str, reader: _Reader, table: np.ndarray) -> None:
        if reader.name is None:
            self.costs[name] = self.costs[name] + table[:, 0]
        else:
            self.tables.append(((name, reader.name), table))


def _places(written: Sequence[int], wanted: Sequence[int]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield every block that a value may be written in with the sets of others that it may be copied to."""
    for home in written:
        others = [block for block in wanted if block != home]
        for count in range(len(others) + 1):
            for copies in itertools.combinations(others, count):
                yield home, copies
