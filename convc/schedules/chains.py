"""Chains: which expand, depthwise and project layers of a graph run as one kernel, see `bottleneck`.

Rewrite:
    %e = conv(%x, %w1);  %d = conv(%e, %w2) {group = 96};  %y = conv(%d, %w3)      (three kernels, e and d in memory)
    -->
    [%e %d %y]                                                                   (one)
Unless:
    e or d has another reader or is a graph output; a layer is pinned; one kernel is not found faster than its layers: by
    measured times where both have them, else by the cost model's times of both, since a measured time cannot be compared with an
    estimate
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.types import numpy_dtype
from convc.schedules import bottleneck_model as model
from convc.schedules.algorithm import Problem
from convc.schedules.backend import backend_of
from convc.schedules.bottleneck import Bottleneck
from convc.schedules.plan import Chain, Knobs, Unsupported
from convc.schedules.policy import Policy
from convc.schedules.sharing import LAUNCH
from convc.schedules.tuned import Measurement, Records
from convc.target import Target

__all__ = [
    "NAME",
    "Alone",
    "PossibleChain",
    "chain_problem",
    "chains_of",
    "possible_chains",
]

NAME: Final = "bottleneck"

# What zeros around the data of a padded layer, a kernel of their own, take longer on several threads, in seconds. Measured on an Intel
# Xeon: 85 us on one and 169 on two for the 18 of a MobileNetV2.
_SHARED_BORDER: Final = 4e-6

# Of a value that threads share out otherwise than its reader's, part comes from another core's cache, at so many bytes a second: on
# two threads the three kernels of a block of 384 channels at 14 x 14 took 91 us each alone, where both cores had all data, and 113 us
# behind one another; its chain 114.
_HANDED_OVER: Final = 13e9

# The model is not better than this, and where the layers were measured, and so found faster settings than its own, than that. Of 24
# chains of MobileNetV2 on Zen 4 (in modules with and without them, step by step in turns, 2026-11-27) the model's ratio of together to
# apart is 0.98 of the measured one in the geometric mean, 0.87 to 1.03.
_GAIN: Final = 0.95
_GAIN_OVER_TUNED: Final = 0.9
# Slower than this by estimate, a chain is not measured.
_HOPELESS: Final = 1.15


@dataclass(frozen=True, slots=True)
class Alone:
    """A layer that may be part of a chain.

    Attributes:
        problem: what it poses.
        seconds: measured, where its choice rests on a record of its own.
        by_rows: whether its threads share out rows evenly, so that each reads what it has written itself in a layer like that before.
    """

    problem: Problem
    seconds: float | None = None
    by_rows: bool = False


@dataclass(frozen=True, slots=True)
class PossibleChain:
    """Layers that one kernel can compute, with the model's best knobs.

    Attributes:
        layers: names, first to last.
        problem: what they pose.
        knobs: the model's.
        together, apart: the model's seconds for one kernel, and for one each.
        beside: seconds of what `apart` has that is no layer's own work: launches, a border of zeros.
    """

    layers: tuple[str, ...]
    problem: Bottleneck
    knobs: Knobs
    together: float
    apart: float
    beside: float


def possible_chains(
    graph: Graph, problems: Mapping[str, Problem], target: Target, policy: Policy
) -> list[PossibleChain]:
    """Return the chains that there could be and that are not hopeless by estimate; some have layers in common.

    Args:
        graph: after all passes.
        problems: of the layers that may be part of one.
        target: the machine.
        policy: what the choice may be of.
    """
    backend = backend_of(target)
    if not backend.chains or not policy.allows(NAME) or policy.require:
        return []
    found = []
    for node in graph.nodes:
        middle = problems.get(node.name)
        if middle is None or not 1 < middle.spec.group == middle.spec.in_channels:
            continue
        for layers in _candidates(graph, node, problems):
            chain = _possible(layers, problems, target, policy)
            if chain is not None and chain.together <= _HOPELESS * chain.apart:
                found.append(chain)
    return found


def chains_of(
    graph: Graph,
    layers: Mapping[str, Alone],
    target: Target,
    policy: Policy,
    records: Records | None = None,
) -> tuple[Chain, ...]:
    """Return the chains that are faster than their layers.

    Args:
        graph: after all passes.
        layers: those that may be part of one.
        target: the machine.
        policy: what the choice may be of.
        records: measurements by `Bottleneck.key`, among others.
    """
    problems = {name: layer.problem for name, layer in layers.items()}
    possible = possible_chains(graph, problems, target, policy)
    compared = [_Compared.of(chain, layers, target, policy, records or {}) for chain in possible]
    # Seconds saved by estimate are no rival to measured ones.
    known = {name for row in compared if row.measured for name in row.chain.layers}
    rivals = [row for row in compared if row.measured or known.isdisjoint(row.chain.layers)]
    options = [(row.saved, row.taken()) for row in rivals if row.pays]
    # A pointwise layer between two depthwise ones (MobileNetV1) could end one chain or begin the other: the greater gain first.
    taken: set[str] = set()
    found = []
    for _, chain in sorted(options, key=lambda option: -option[0]):
        if taken.isdisjoint(chain.layers):
            taken.update(chain.layers)
            found.append(chain)
    order = {node.name: i for i, node in enumerate(graph.nodes)}
    return tuple(sorted(found, key=lambda chain: order[chain.layers[0]]))


def _candidates(graph: Graph, middle: Node, problems: Mapping[str, Problem]) -> list[list[str]]:
    """Return the names of layers that could be one chain around a depthwise one: with its expansion, its projection, both."""
    before = graph[middle.inputs[0]]
    expands = before.name in problems and _only_reader(graph, before, middle)
    readers = graph.users[middle.name]
    after = readers[0] if readers else None
    projects = (
        after is not None
        and after.name in problems
        and after.inputs[0] == middle.name
        and _only_reader(graph, middle, after)
    )
    firsts = ([before.name], []) if expands else ([],)
    lasts = ([after.name], []) if projects and after is not None else ([],)
    return [[*first, middle.name, *last] for first in firsts for last in lasts if first or last]


def _only_reader(graph: Graph, value: Node, reader: Node) -> bool:
    """Whether nothing but one operand of `reader` needs the value."""
    once = graph.users[value.name] == (reader,) and reader.inputs.count(value.name) == 1
    return once and value.op != CONSTANT and value.name not in graph.output_values


def _possible(
    layers: Sequence[str], problems: Mapping[str, Problem], target: Target, policy: Policy
) -> PossibleChain | None:
    """Return the layers as a chain, if one kernel takes them and the policy allows it."""
    posed = chain_problem([problems[name] for name in layers])
    if isinstance(model.supports(posed, target), Unsupported):
        return None
    backend, knobs = backend_of(target), model.knobs(posed, target)
    limit = policy.workspace_limit
    if limit is not None and model.workspace(posed, knobs) > limit:
        return None
    several = target.cores > 1
    beside = LAUNCH * several * (len(layers) - 1)
    if posed.expand is not None and any(posed.depthwise.spec.pads):
        beside += target.core.border + _SHARED_BORDER * several
    apart = backend.seconds(model.cycles_apart(posed, target, knobs), target) + beside
    together = backend.seconds(model.cycles(posed, target, knobs), target)
    return PossibleChain(tuple(layers), posed, knobs, together, apart, beside)


@dataclass(frozen=True, slots=True)
class _Compared:
    """A possible chain beside its layers: seconds of both, measured or estimated, and what the ratio must be.

    Of measured seconds apart `handed` are estimated: for what passes from core to core.
    """

    chain: PossibleChain
    knobs: Knobs
    together: float
    apart: float
    measured: bool
    gain: float
    handed: float = 0.0

    @staticmethod
    def of(
        chain: PossibleChain,
        layers: Mapping[str, Alone],
        target: Target,
        policy: Policy,
        records: Records,
    ) -> _Compared:
        known = records.get(chain.problem.key, ()) if policy.by == "time" else ()
        limit = policy.workspace_limit
        rows = [
            m
            for m in known
            if m.algorithm == NAME
            and m.error <= policy.record_error
            and set(m.knobs) == set(chain.knobs)
            and (limit is None or model.workspace(chain.problem, m.knobs) <= limit)
        ]
        if any(m.untuned is not None for m in known):
            return _Compared.in_network(chain, rows, known)
        best = min(rows, key=lambda m: m.seconds, default=None)
        knobs = chain.knobs if best is None else best.knobs
        alone = [layers[name] for name in chain.layers]
        measured = [layer.seconds for layer in alone if layer.seconds is not None]
        if best is not None and len(measured) == len(alone):
            handed = _handed_over(alone, target)
            apart = sum(measured) + chain.beside + handed
            return _Compared(chain, knobs, best.seconds, apart, True, 1.0, handed)
        gain = _GAIN_OVER_TUNED if measured else _GAIN
        return _Compared(chain, knobs, chain.together, chain.apart, False, gain)

    @staticmethod
    def in_network(
        chain: PossibleChain, usable: Sequence[Measurement], known: Sequence[Measurement]
    ) -> _Compared:
        """Return what records from a network say: one kernel, by those of them that may be used, or one each."""
        best = min(known, key=lambda m: m.seconds)
        if best not in usable:
            return _Compared(chain, chain.knobs, 1.0, 0.0, True, 1.0)
        # What it saved there is not known: its layers were not timed one by one. More than any estimate, it was tried.
        return _Compared(chain, best.knobs, best.seconds, math.inf, True, 1.0)

    @property
    def saved(self) -> float:
        return self.apart - self.together

    @property
    def pays(self) -> bool:
        return self.together <= self.gain * self.apart

    def taken(self) -> Chain:
        *others, _ = self.chain.layers
        names = " and ".join(f"'{name}'" for name in others)
        if math.isinf(self.apart):
            return Chain(self.chain.layers, self.knobs, f"one kernel with {names}, the fastest measured in a network")  # fmt: skip
        how = "measured" if self.measured else "estimated"
        times = f"{self.apart / self.together:.2f} x faster than {len(self.chain.layers)}"
        if self.handed:
            times += f" with {self.handed * 1e6:.0f} us for what passes from core to core"
        return Chain(self.chain.layers, self.knobs, f"one kernel with {names}, {how} {times}")


def _handed_over(layers: Sequence[Alone], target: Target) -> float:
    """Return the seconds that layers measured alone take longer behind one another, since the threads do not share out rows alike."""
    nbytes = sum(
        numpy_dtype(before.problem.stored_spec.dtype).itemsize
        * math.prod(before.problem.spec.output)
        for before, after in itertools.pairwise(layers)
        if not (before.by_rows and after.by_rows)
    )
    return nbytes * (1 - 1 / target.cores) / _HANDED_OVER


def chain_problem(layers: Sequence[Problem]) -> Bottleneck:
    """Return the problem of two or three layers, of which one is depthwise."""
    layers = [layer.widened for layer in layers]
    at = next(i for i, p in enumerate(layers) if p.spec.group > 1)
    before, after = layers[:at], layers[at + 1 :]
    return Bottleneck(before[0] if before else None, layers[at], after[0] if after else None)
