"""The distinct layers of a graph: what there is to tune, each once however often it occurs."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from convc.errors import unknown_name
from convc.ir.graph import Graph
from convc.schedules.algorithm import Problem
from convc.schedules.select import is_convolution, problem_of

__all__ = ["Task", "tasks_of"]


@dataclass(frozen=True, slots=True)
class Task:
    """One convolution problem and the layers that pose it."""

    problem: Problem
    layers: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.layers)

    @property
    def name(self) -> str:
        """The first layer's, with the number of others."""
        more = f" (+{self.count - 1})" if self.count > 1 else ""
        return self.layers[0] + more


def tasks_of(graph: Graph, layers: str = "*") -> tuple[Task, ...]:
    """Return the tasks of a graph after all passes, in the order of their first layers.

    Raises:
        UnknownNameError: if no convolution's name matches `layers`, a glob.
    """
    found: dict[Problem, list[str]] = {}
    nodes = [n for n in graph.nodes if is_convolution(n)]
    for node in nodes:
        if node.name == layers or fnmatch.fnmatchcase(node.name, layers):
            found.setdefault(problem_of(graph, node), []).append(node.name)
    if nodes and not found:
        raise unknown_name("layer", layers, [n.name for n in nodes])
    return tuple(Task(problem, tuple(names)) for problem, names in found.items())
