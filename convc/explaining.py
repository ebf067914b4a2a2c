"""Why each layer is computed as it is: every algorithm's estimate, or its reason why not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from convc.compiler import reduced_graphs
from convc.ir.graph import Graph
from convc.ir.spec import ConvSpec
from convc.planning import Wishes, plan_graph
from convc.runtime.host import usable_threads
from convc.schedules.algorithm import Problem
from convc.schedules.backend import backend_of
from convc.schedules.cudnn_use import CudnnUse
from convc.schedules.dual import posed
from convc.schedules.op_choice import op_key
from convc.schedules.plan import Candidate, Choice, Unsupported
from convc.schedules.policy import Policy
from convc.schedules.properties import Properties, properties_of
from convc.schedules.quantized_algorithm import LOOPS, Taken, quantized_layer
from convc.schedules.select import AUTO, is_convolution, problem_of
from convc.schedules.weight_gradient_problem import weight_gradient_spec
from convc.schedules.weight_gradients import gradient_properties
from convc.source import Source
from convc.target import Target, parse_target

__all__ = ["CandidateReport", "LayerReport", "explain"]


@dataclass(frozen=True, slots=True)
class CandidateReport:
    """One algorithm for one layer; where it applies with estimate, workspace and expected greatest |error| over greatest |result|.

    `beside`: its kernel stands beside the chosen library's call, and runs in its place where the library refuses the layer as a module is
    loaded. `workspace_at_most`: the workspace is the limit that a library keeps to; what it takes of it is known where a record names its
    engine, and to `Module.preparation`.
    """

    algorithm: str
    chosen: bool
    estimate_seconds: float | None
    workspace_bytes: int | None
    error: float | None
    reason: str
    beside: bool = False
    workspace_at_most: bool = False


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One node with a choice and every algorithm's answer to it; of a module with an open height and width, for one area."""

    node: str
    op: str
    key: str
    candidates: tuple[CandidateReport, ...]
    area: tuple[int, int] | None = None


def explain(
    source: Source,
    *,
    target: str | Target = "llvm",
    mcpu: str = "host",
    threads: int | None = None,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
    values: Mapping[str, np.ndarray] | None = None,
    dequantize: bool = False,
    dtype: str | None = None,
    algo: str = AUTO,
    algo_for: Mapping[str, str] | None = None,
    policy: Policy | None = None,
    cudnn: CudnnUse = "auto",
    logs: Sequence[str | os.PathLike[str]] | None = None,
    areas: Sequence[tuple[int, int]] | None = None,
) -> tuple[LayerReport, ...]:
    """Return, for every layer with a choice, each algorithm with its estimate or the reason why it cannot; arguments as `compile`."""
    graphs = reduced_graphs(source, shapes=shapes, values=values, dequantize=dequantize, dtype=dtype, areas=areas)  # fmt: skip
    machine = parse_target(target, mcpu, threads or usable_threads())
    wishes = Wishes.of(algo, algo_for, policy, logs, cudnn=cudnn)
    return tuple(r for area, graph in graphs.items() for r in _reports(graph, machine, wishes, area))  # fmt: skip


def _reports(
    graph: Graph, machine: Target, wishes: Wishes, area: tuple[int, int] | None
) -> list[LayerReport]:
    plan = plan_graph(graph, machine, wishes, "").plan
    reports = []
    for node in graph.nodes:
        if not is_convolution(node):
            continue
        choice = plan[node.name]
        problem = problem_of(graph, node)
        rows = tuple(_report(c, choice, problem, machine) for c in choice.candidates)
        reports.append(LayerReport(node.name, node.op, problem.spec.key, rows, area))
    for name, choice in plan.gradients.items():
        spec = weight_gradient_spec(graph, graph[name])
        rows = tuple(_gradient_report(row, choice, spec, machine) for row in choice.candidates)
        reports.append(LayerReport(name, graph[name].op, spec.key, rows, area))
    for name, choice in plan.operations.items():
        rows = tuple(_short_report(row, choice) for row in choice.candidates)
        reports.append(LayerReport(name, graph[name].op, op_key(graph, graph[name]), rows, area))
    for node in graph.nodes:
        if (taken := quantized_layer(graph, node, machine)) is not None:
            rows = _quantized_reports(taken)
            reports.append(LayerReport(node.name, node.op, taken.spec.key, rows, area))
    return reports


def _quantized_reports(taken: Taken) -> tuple[CandidateReport, ...]:
    """Return each algorithm's answer to a layer of bytes, and plain loops where all refuse it; sums are exact."""
    name = LOOPS if taken.algorithm is None else taken.algorithm.name
    rows = [
        CandidateReport(c.algorithm, c.algorithm == name, c.seconds, None, None, c.reason)
        for c in taken.candidates
    ]
    if taken.algorithm is None:
        rows.append(CandidateReport(LOOPS, True, None, None, None, "no algorithm takes it"))
    return tuple(rows)


def _report(row: Candidate, choice: Choice, problem: Problem, machine: Target) -> CandidateReport:
    algorithm, short = backend_of(machine).algorithm(row.algorithm), _short_report(row, choice)
    solved = posed(problem, algorithm, machine)
    if row.seconds is None or isinstance(solved, Unsupported):
        return short
    taken = choice if short.chosen else choice.otherwise if short.beside else None
    return _with(
        short, properties_of(algorithm, solved, machine, taken.knobs if taken else row.knobs)
    )


def _gradient_report(
    row: Candidate, choice: Choice, spec: ConvSpec, machine: Target
) -> CandidateReport:
    short = _short_report(row, choice)
    if row.seconds is None:
        return short
    return _with(short, gradient_properties(row.algorithm, spec, row.knobs, machine))


def _with(short: CandidateReport, facts: Properties) -> CandidateReport:
    nbytes, at_most = facts.known_workspace
    return replace(short, workspace_bytes=nbytes, error=facts.error, workspace_at_most=at_most)


def _short_report(row: Candidate, choice: Choice) -> CandidateReport:
    chosen, own = row.algorithm == choice.algorithm, choice.otherwise
    beside = own is not None and row.algorithm == own.algorithm
    reason = choice.reason if chosen else row.reason
    if own is not None and beside:
        reason = own.reason
    return CandidateReport(row.algorithm, chosen, row.seconds, None, None, reason, beside)
