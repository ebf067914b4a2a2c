"""In which blocks of channels values lie by the choices of the convolutions that write and read them: others have to be copied."""

from __future__ import annotations

from collections.abc import Mapping

from convc.ir.graph import Graph
from convc.schedules.algorithm import Problem
from convc.schedules.backend import backend_of
from convc.schedules.dual import solved
from convc.schedules.plan import Choice
from convc.target import Target

__all__ = ["blocks_at_hand"]


def blocks_at_hand(
    graph: Graph, problems: Mapping[str, Problem], choices: Mapping[str, Choice], target: Target
) -> dict[str, frozenset[int]]:
    """Return the blocks of values, 0 where they are plain; of values that no convolution writes or reads nothing is known.

    What one reads is in its blocks from then on: a copy for it serves others, too.

    Args:
        graph: after all passes.
        problems: of its convolutions, by name.
        choices: theirs.
        target: the machine.
    """
    found: dict[str, set[int]] = {n.name: {0} for n in graph.inputs}
    for name, problem in problems.items():
        algorithm = backend_of(target).algorithm(choices[name].algorithm)
        wants = algorithm.operands(solved(problem, algorithm, target), target, choices[name].knobs)
        read = graph[name].inputs[0]
        for value, block in ((read, wants.data.block), (name, wants.result.block)):
            found.setdefault(value, set()).add(block)
    return {name: frozenset(blocks) for name, blocks in found.items()}
