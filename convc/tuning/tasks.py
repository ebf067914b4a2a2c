"""The distinct layers of a graph: what there is to tune, each once however often it occurs."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from convc.errors import unknown_name
from convc.ir.graph import Graph, Node
from convc.schedules.algorithm import SEPARATOR
from convc.schedules.chains import possible_chains
from convc.schedules.policy import Policy
from convc.schedules.pooled_choice import possible_pools
from convc.schedules.select import is_convolution, problem_of
from convc.schedules.weight_gradient_problem import is_weight_gradient, weight_gradient_problem
from convc.target import Target
from convc.tuning.subjects import Subject, Tunable, subject_of

__all__ = ["Task", "chain_tasks_of", "distinct", "tasks_of"]

# Which nodes pose a problem of their own, and which one.
_POSED: Final[tuple[tuple[Callable[[Node], bool], Callable[[Graph, Node], Tunable]], ...]] = (
    (is_convolution, problem_of),
    (is_weight_gradient, weight_gradient_problem),
)


@dataclass(frozen=True, slots=True)
class Task:
    """One problem and the layers that pose it; of a chain of layers the last ones."""

    problem: Tunable
    layers: tuple[str, ...]

    @property
    def subject(self) -> Subject:
        """The problem as the tuner sees it."""
        return subject_of(self.problem)

    @property
    def count(self) -> int:
        return len(self.layers)

    @property
    def name(self) -> str:
        """The first layer's, with the number of others; a chain's last layer, with the number of those before it."""
        *before, last = self.layers[0].split(SEPARATOR)
        chain = f" with {len(before)} before it" if before else ""
        more = f" (+{self.count - 1})" if self.count > 1 else ""
        return last + chain + more


def tasks_of(graph: Graph, layers: str = "*") -> tuple[Task, ...]:
    """Return the tasks of a graph after all passes, of convolutions and weight gradients, in the order of their first layers.

    Raises:
        UnknownNameError: if no such layer's name matches `layers`, a glob.
    """
    found: dict[Tunable, list[str]] = {}
    nodes = [(n, problem) for n in graph.nodes for poses, problem in _POSED if poses(n)]
    for node, problem in nodes:
        if node.name == layers or fnmatch.fnmatchcase(node.name, layers):
            found.setdefault(problem(graph, node), []).append(node.name)
    if nodes and not found:
        raise unknown_name("layer", layers, [n.name for n, _ in nodes])
    return tuple(Task(problem, tuple(names)) for problem, names in found.items())


def chain_tasks_of(graph: Graph, target: Target, policy: Policy, layers: str = "*") -> tuple[Task, ...]:  # fmt: skip
    """Return the distinct chains of layers, and layers with a pool behind, that could run as one kernel.

    Their times are what their layers' own are compared with; of a pool, both are measured.

    Args:
        graph: after all passes.
        target: the machine.
        policy: what the choice may be of.
        layers: a glob; a chain is in if one of its layers is.
    """
    problems = {n.name: problem_of(graph, n) for n in graph.nodes if is_convolution(n)}
    found: dict[Tunable, list[str]] = {}
    for chain in possible_chains(graph, problems, target, policy):
        if any(name == layers or fnmatch.fnmatchcase(name, layers) for name in chain.layers):
            found.setdefault(chain.problem, []).append(SEPARATOR.join(chain.layers))
    for names, posed in possible_pools(graph, problems, target, policy):
        if any(name == layers or fnmatch.fnmatchcase(name, layers) for name in names):
            found.setdefault(posed, []).append(SEPARATOR.join(names))
    return tuple(Task(problem, tuple(names)) for problem, names in found.items())


def distinct(tasks: Iterable[Task]) -> tuple[Task, ...]:
    """Return the tasks of several graphs of one model, one for each area, each problem once."""
    found: dict[Tunable, dict[str, None]] = {}
    for task in tasks:
        found.setdefault(task.problem, {}).update(dict.fromkeys(task.layers))
    return tuple(Task(problem, tuple(names)) for problem, names in found.items())
