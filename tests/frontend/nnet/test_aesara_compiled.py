"""Aesara's answers from compiled modules: float64 to 1e-12, float32 within the algorithm's bound, by every algorithm that applies.

A module holds its cases once by each algorithm, alike ones together: what they share, moves of data between memory orders and
whole kernels, is compiled once. A sample runs by default; all 2139 cases with
`python -m pytest -n 2 -m slow tests/frontend/nnet/test_aesara_compiled.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from convc import dsl
from convc.compiler import CompiledModel, compile
from convc.frontend.dsl.collect import collected
from convc.frontend.dsl.tensor import Tensor, apply
from convc.ir import ConvSpec, Graph
from convc.ir.ops.conv import conv_spec
from convc.ir.ops.conv_weight_grad import forward_spec
from convc.schedules.algorithm import Problem
from convc.schedules.dual import posed
from convc.schedules.llvm.backend import BACKEND
from convc.schedules.plan import Unsupported
from convc.schedules.select import is_convolution
from convc.schedules.table import ALGORITHMS
from convc.schedules.weight_gradient_problem import is_weight_gradient
from convc.schedules.weight_gradients import PLAIN_LOOPS
from convc.target import Target
from tests.frontend.nnet.aesara_cases import WEIGHTS, Case, cases, sample
from tests.frontend.nnet.error_analysis import bounds

EXACTNESS = 1e-12
# Which cases an algorithm takes does not depend on the machine that the tests run on.
AVX512 = Target("llvm", "x86_64-linux-gnu", "x86-64-v4", (), 16, 32)
# Cases that each algorithm takes on AVX512, duals included. A `supports` that refuses more than it must makes this red.
TAKEN = {
    "float32": {
        "depthwise": 114,
        "direct": 869,
        "grouped": 39,
        "winograd": 554,
        "fft": 352,
        "subpixel": 649,
        "inner_product": 9,
        "im2col": 869,
        "generic": 1363,
        "blocked": 623,
        "plain": 638,
        "": 138,
    },
    "float64": {"generic": 1363, "blocked": 623, "grouped": 15, "plain": 638, "": 138},
}
# Modules of all cases: more cases share more kernels, but the code that calls them grows faster than they do.
PARTS = {"float32": 64, "float64": 24}
SAMPLE = 6
SAMPLE_OF_ALL = 45

NO_ALGORITHM = ("",)


def _competing(tensor: Tensor) -> bool:
    return is_convolution(tensor.node) or is_weight_gradient(tensor.node)


@cache
def _layers(case: Case, dtype: str) -> tuple[Problem | ConvSpec, ...]:
    """Return the case's convolutions, with weights that are known, and the convolutions of its weight gradients."""
    operands = {name: dsl.input(name, shape, dtype) for name, shape in case.shapes.items()}
    found: list[Problem | ConvSpec] = []
    for tensor in filter(_competing, collected([case.call(operands)])):
        types = [p.node.type for p in tensor.producers[:2]]
        if is_convolution(tensor.node):
            found.append(Problem(conv_spec(*types, tensor.node.attributes)))
        else:
            found.append(forward_spec(*types, tensor.node.attributes))
    return tuple(found)


@cache
def algorithms(case: Case, dtype: str) -> tuple[str, ...]:
    """Return the algorithms that take one of the case's layers; one empty name if no algorithms compete for it."""
    names: list[str] = []
    for layer in _layers(case, dtype):
        if isinstance(layer, Problem):
            names += [
                a.name for a in ALGORITHMS if not isinstance(posed(layer, a, AVX512), Unsupported)
            ]
        else:
            names += [r.NAME for r in BACKEND.weight_gradients if r.supports(layer, AVX512) is None]
            names.append(PLAIN_LOOPS)
    return tuple(dict.fromkeys(names)) or NO_ALGORITHM


def asking(result: Tensor, algorithm: str, name: str) -> Tensor:
    """Return the same network whose layers ask for an algorithm, their names beginning with `name`."""
    made: dict[Tensor, Tensor] = {}
    for i, old in enumerate(collected([result])):
        made[old] = old
        if old.producers:
            producers = [made[p] for p in old.producers]
            if _competing(old):
                attributes = replace(old.node.attributes, algorithm=algorithm)
                made[old] = apply(old.node.op, producers, attributes, name=f"{name}/{i}")
            else:
                made[old] = apply(old.node.op, producers, old.node.attributes)
    return made[result]


def graph_of(
    rows: Mapping[Case, Sequence[str]], dtype: str, known: str
) -> tuple[Graph, dict[str, np.ndarray]]:
    """Return a graph of the cases, each by each of its algorithms, and its inputs in float64; operands in `known` are constants."""
    outputs, inputs = {}, {}
    for case, names in rows.items():
        operands: dict[str, object] = {}
        for name, array in case.arrays().items():
            operands[name] = dsl.constant(array, dtype=dtype)
            if name not in known:
                inputs[f"{case.id}{name}"] = array
                operands[name] = dsl.input(f"{case.id}{name}", array.shape, dtype)
        result = case.call(operands)
        for name in names:
            label = f"{case.id}/{name}"
            outputs[label] = asking(result, name, label) if name else result
    return dsl.graph(outputs, name="aesara"), inputs


def check_obeyed(model: CompiledModel, asked: Mapping[Case, Sequence[str]]) -> None:
    """Assert that every algorithm asked for runs a layer of the case."""
    chosen = {**model.plan.choices, **model.plan.gradients}
    ran: dict[str, set[str]] = {}
    for layer, choice in chosen.items():
        label = layer.rpartition("/")[0]
        ran.setdefault(label, set()).add(choice.algorithm)
    for case, names in asked.items():
        for name in filter(None, names):
            assert name in ran[f"{case.id}/{name}"], (case.id, name)


def part_of_all(part: int, count: int) -> Sequence[Case]:
    """Return one of `count` parts of all cases, alike ones together: what differs in a flip alone has the same kernels."""

    def geometry(case: Case) -> str:
        return str([(k, v) for k, v in sorted(case.keywords.items()) if k != "filter_flip"])

    alike = sorted(cases(), key=lambda c: (c.op, str(c.shapes), geometry(c)))
    begin, end = (len(alike) * p // count for p in (part, part + 1))
    return alike[begin:end]


def check(rows: Sequence[Case], dtype: str, known: str = WEIGHTS) -> None:
    """Compare the cases, by each algorithm that takes them, with Aesara's answers."""
    asked = {case: algorithms(case, dtype) for case in rows}
    graph, inputs = graph_of(asked, dtype, known)
    model = compile(graph, threads=1)
    check_obeyed(model, asked)
    given = {n.name: inputs[n.name].astype(dtype) for n in model.graph.inputs}
    results = model.load(threads=1).run(given)
    # The answers are rounded, too: where windows see zeros only, some are 1e-15 instead of 0.
    limits = bounds(model, inputs) if dtype == "float32" else dict.fromkeys(results, 0.0)
    wrong = []
    for case, names in asked.items():
        for name in names:
            label = f"{case.id}/{name}"
            assert results[label].shape == case.answer.shape
            excess = np.abs(results[label] - case.answer) - limits[label] - EXACTNESS
            if not (excess <= 0).all():
                wrong.append((label, float(excess.max()), case.op, case.keywords))
    assert not wrong


# ---- a sample --------------------------------------------------------------------------------------------------------


def _sample_by_every_algorithm() -> list[Case]:
    """Return a few cases of each algorithm."""
    chosen: dict[Case, None] = {}
    for name in TAKEN["float32"]:
        # Cases that no algorithm competes for are of many kinds.
        count = SAMPLE if name else 3 * SAMPLE
        chosen |= dict.fromkeys(sample([c for c in cases() if name in algorithms(c, "float32")], count))  # fmt: skip
    return list(chosen)


@pytest.mark.parametrize("known", [WEIGHTS, ""], ids=["weights known", "weights given"])
def test_a_sample_in_float64(known):
    check(sample(cases(), SAMPLE_OF_ALL), "float64", known)


@pytest.mark.parametrize("part", range(2))
def test_a_sample_by_every_algorithm(part):
    check(_sample_by_every_algorithm()[part::2], "float32")


@pytest.mark.parametrize("dtype", TAKEN)
def test_nothing_is_left_out(dtype):
    assert Counter(name for case in cases() for name in algorithms(case, dtype)) == TAKEN[dtype]
    parts = [part_of_all(part, PARTS[dtype]) for part in range(PARTS[dtype])]
    assert all(parts)
    assert len({case for part in parts for case in part}) == len(cases()) == 2139


# ---- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS["float64"]))
def test_all_in_float64(part):
    check(part_of_all(part, PARTS["float64"]), "float64", WEIGHTS if part % 2 else "")


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS["float32"]))
def test_all_by_every_algorithm(part):
    check(part_of_all(part, PARTS["float32"]), "float32")
