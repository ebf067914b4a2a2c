"""Compile a graph with small register tiles: the numbers are the same, and the code, which compile time grows with, is short."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from convc.ir import Graph
from convc.lowering.build import build
from convc.lowering.emit import emit
from convc.lowering.program import Program
from convc.runtime import Module, load
from convc.schedules.plan import Candidate, Choice, Plan
from convc.schedules.select import select
from convc.target import Target, parse_target

__all__ = ["TARGET", "compile_small", "link", "program_of", "small_plan"]

TARGET: Target = parse_target(cores=1)
# F(2, 3) is the one Winograd tile that is exact on whole numbers.
_SMALL: Mapping[str, int] = {
    "rows": 1,
    "cols": 2,
    "points": 2,
    "vectors": 1,
    "m": 2,
    "chunks": 1,
    "channels": 2,
}
EXACT = ("depthwise", "direct", "winograd", "subpixel", "inner_product", "im2col", "generic")

Pick = Callable[[list[Candidate]], Candidate]


def _first(rows: list[Candidate]) -> Candidate:
    return rows[0]


def small_plan(graph: Graph, pick: Pick = _first, target: Target = TARGET) -> Plan:
    """Return the plan in which `pick` chooses each convolution's algorithm among the exact ones that take it."""
    choices = {}
    for name, choice in select(graph, target).choices.items():
        row = pick([r for r in choice.candidates if r.applies and r.algorithm in EXACT])
        knobs = {key: _SMALL.get(key, value) for key, value in row.knobs.items()}
        choices[name] = Choice(row.algorithm, knobs, "test")
    return Plan(choices)


def program_of(graph: Graph, pick: Pick = _first) -> Program:
    """Return the program of a graph as it is, without any pass."""
    return emit(graph, small_plan(graph, pick), TARGET)


def link(program: Program, target: Target = TARGET) -> Module:
    """Return the program as a loaded module."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "small.so"
        build(program, replace(target, cores=1)).export(file)
        return load(file, threads=1)


def compile_small(graph: Graph, pick: Pick = _first) -> Module:
    """Return the graph compiled as it is, without any pass."""
    return link(program_of(graph, pick))
