"""Which pools of a graph join the convolution before them, see `pooled`.

Rewrite:
    %y = conv(%x, %w, %b);  %z = max_pool(%y)        (two kernels, y in memory)
    -->
    [%y %z]                                          (one, in the algorithm of y)
Unless:
    y has another reader or is a graph output; the algorithm computes no strips of rows; one kernel is not faster: by measured times of
    both together, once as one kernel and once one behind the other, else by estimate. Both estimates have the convolution's own in
    common, so that its error is no part of the comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from convc.ir.graph import Graph, Node
from convc.schedules import pooled_model as model
from convc.schedules.algorithm import Algorithm, Problem
from convc.schedules.backend import Backend, backend_of
from convc.schedules.plan import Chain, Choice, Knobs, Unsupported
from convc.schedules.policy import Policy
from convc.schedules.pooled import NAME, Pooled, window_of
from convc.schedules.properties import breach
from convc.schedules.sharing import LAUNCH
from convc.schedules.tuned import Measurement, Records
from convc.schedules.winograd import CAUTION
from convc.target import Target

__all__ = ["PooledLayer", "best_setting", "pool_behind", "pooled_layers", "possible_pools"]

# What one kernel saves must be so much of the pool's own time; and where it takes another tile than the convolution's own, so much of
# both: the model's error for two tiles is a few percent, more where the convolution's tile was measured.
_OF_THE_POOL: Final = 0.25
_OF_BOTH: Final = 0.03
_OF_BOTH_TUNED: Final = 0.1


@dataclass(frozen=True, slots=True)
class PooledLayer:
    """A pool that one kernel computes together with the convolution before it.

    Attributes:
        chain: what the plan takes in; None where two kernels are faster.
        choice: the convolution's, with the knobs that it has in the kernel, and the reason, also of two kernels.
    """

    chain: Chain | None
    choice: Choice


def pool_behind(graph: Graph, node: Node, problem: Problem) -> tuple[Node, Pooled] | None:
    """Return the pool that alone reads a convolution's result, and what the two pose; None if there is none."""
    readers = graph.users[node.name]
    if len(readers) != 1 or node.name in graph.output_values:
        return None
    (pool,) = readers
    window = window_of(graph, pool)
    if window is None or pool.inputs != (node.name,):
        return None
    return pool, Pooled(problem.widened, window)


def possible_pools(
    graph: Graph, problems: Mapping[str, Problem], target: Target, policy: Policy
) -> list[tuple[tuple[str, str], Pooled]]:
    """Return the convolutions and pools that some algorithm could compute together: their names, and what they pose.

    Args:
        graph: after all passes.
        problems: of the convolutions that may be.
        target: the machine.
        policy: what the choice may be of.
    """
    backend = backend_of(target)
    if not backend.chains or not policy.allows(NAME) or policy.require:
        return []
    found = []
    for node in graph.nodes:
        behind = pool_behind(graph, node, problems[node.name]) if node.name in problems else None
        if behind is not None and any(
            model.supports(behind[1], a) is None for a in backend.algorithms
        ):
            found.append(((node.name, behind[0].name), behind[1]))
    return found


def pooled_layers(
    graph: Graph,
    problems: Mapping[str, Problem],
    choices: Mapping[str, Choice],
    target: Target,
    backend: Backend,
    policy: Policy,
    records: Records,
) -> dict[str, PooledLayer]:
    """Return the convolutions with a pool behind them, by name, each with what becomes of it.

    Args:
        graph: after all passes.
        problems: of the convolutions that may be.
        choices: what each runs alone.
        target: the machine.
        backend: of the target.
        policy: what the choice may be of.
        records: measurements by `Pooled.key`, among others.
    """
    if not backend.chains or not policy.allows(NAME) or policy.require:
        return {}
    found = {}
    for node in graph.nodes:
        behind = pool_behind(graph, node, problems[node.name]) if node.name in problems else None
        if behind is not None:
            pool, posed = behind
            choice = choices[node.name]
            compared = _Compared(posed, choice, backend, target, policy, records)
            found[node.name] = compared.answer(node.name, pool.name)
    return found


def best_setting(
    posed: Pooled,
    algorithm: Algorithm,
    own: Knobs,
    target: Target,
    policy: Policy,
    *,
    others: bool,
    measured: bool = False,
) -> tuple[Knobs, float] | Unsupported:
    """Return the setting that the model finds fastest, with its cycles; or why no strip fits or is allowed.

    Args:
        posed: the two.
        algorithm: one that `model.supports` them.
        own: its knobs of the convolution alone.
        target: the machine.
        policy: what the setting may be.
        others: whether other tiles of `winograd` than its own may be taken.
        measured: whether its own tile has a record, whose measured error was judged.
    """
    rows, breaches = [], []
    for knobs in model.options(posed, algorithm, own, target, others=others):
        judged = measured and {**knobs, **own} == knobs
        facts = model.properties(posed, algorithm, target, knobs)
        broken = breach(facts, policy, measured=judged)
        if broken:
            breaches.append(broken)
        else:
            rows.append((model.cycles(posed, algorithm, target, knobs), -knobs["strip"], knobs))
    if not rows:
        return Unsupported(breaches[0] if breaches else "no strip of rows fits the L2 cache")
    cycles, _, knobs = min(rows, key=lambda row: (row[0] * _caution(row[2]), row[1]))
    return knobs, cycles


def _caution(knobs: Knobs) -> float:
    """Return how much faster by estimate a setting must be, since it is less accurate, see `winograd`."""
    return 1 + CAUTION * (knobs.get("m", 0) > 4)


@dataclass(frozen=True, slots=True)
class _Compared:
    """One convolution and its pool, together and apart."""

    posed: Pooled
    own: Choice
    backend: Backend
    target: Target
    policy: Policy
    records: Records

    def answer(self, layer: str, pool: str) -> PooledLayer:
        """Return what becomes of the two nodes of these names."""
        algorithm = self.backend.algorithm(self.own.algorithm)
        refusal = model.supports(self.posed, algorithm)
        if isinstance(refusal, Unsupported):
            return self._apart(pool, refusal.reason)
        if (won := self._in_network()) is not None:
            if not won.knobs["strip"]:
                return self._apart(pool, "two kernels are the fastest measured in a network")
            return self._together(layer, pool, won.knobs, "the fastest measured in a network")
        measured = self._measured(algorithm)
        if measured is not None:
            together, apart = measured
            ratio = f"measured {apart.seconds / together.seconds:.2f} x faster than two"
            if together.seconds >= apart.seconds:
                return self._apart(pool, f"one kernel {ratio}")
            return self._together(layer, pool, together.knobs, ratio)
        # A tile that was measured is kept before one that the model likes better.
        free = self.own.source in ("estimate", "neighbour")
        answers = [self._estimated(layer, pool, algorithm, others) for others in (free, not free)]
        return next((a for a in answers if a.chain is not None), answers[0])

    def _estimated(self, layer: str, pool: str, algorithm: Algorithm, others: bool) -> PooledLayer:
        """Return what the model says of the fastest strips, of the convolution's own tile or also of others."""
        own, measured = self.own.knobs, self.own.source == "record"
        best = best_setting(self.posed, algorithm, own, self.target, self.policy, others=others, measured=measured)  # fmt: skip
        if isinstance(best, Unsupported):
            return self._apart(pool, best.reason)
        knobs, cycles = best
        together = self.backend.seconds(cycles * _caution(knobs), self.target)
        apart, alone = self._seconds_apart(algorithm)
        gain = _OF_BOTH if self.own.source in ("estimate", "neighbour") else _OF_BOTH_TUNED
        same = {**knobs, **self.own.knobs} == dict(knobs)
        ratio = f"estimated {apart / together:.2f} x faster than two"
        if apart - together < (_OF_THE_POOL * alone if same else gain * apart):
            return self._apart(pool, f"one kernel {ratio}")
        return self._together(layer, pool, knobs, ratio)

    def _seconds_apart(self, algorithm: Algorithm) -> tuple[float, float]:
        """Return the estimated seconds of two kernels, and of the pool's."""
        seconds, own = self.backend.seconds, self.own.knobs
        launch = LAUNCH * (self.target.cores > 1)
        pool = seconds(model.pool_cycles(self.posed, self.target, own["block"]), self.target)
        conv = algorithm.cycles(self.posed.layer, self.target, own) * _caution(own)
        return seconds(conv, self.target) + pool + launch, pool + launch

    def _in_network(self) -> Measurement | None:
        """Return the record of what was the fastest in a network, if there is one: of the algorithm that the convolution has here."""
        known = self.records.get(self.posed.key, ()) if self.policy.by == "time" else ()
        names = {*self.own.knobs, "strip"}
        rows = (m for m in known if m.untuned is not None and m.algorithm == self.own.algorithm and set(m.knobs) == names)  # fmt: skip
        return min(rows, key=lambda m: m.seconds, default=None)

    def _measured(self, algorithm: Algorithm) -> tuple[Measurement, Measurement] | None:
        """Return the fastest records of one kernel and of two, if there are both: of the algorithm and the blocks that were agreed on."""
        known = self.records.get(self.posed.key, ()) if self.policy.by == "time" else ()
        blocks = [self.own.knobs[name] for name in ("data_block", "block")]

        def allowed(knobs: Knobs) -> bool:
            facts = model.properties(self.posed, algorithm, self.target, knobs)
            return not breach(facts, self.policy, measured=True)

        rows = [
            m
            for m in known
            if m.algorithm == algorithm.name
            and m.error <= self.policy.record_error
            and set(m.knobs) == {*self.own.knobs, "strip"}
            and [m.knobs[name] for name in ("data_block", "block")] == blocks
            and allowed(m.knobs)
        ]
        by = [min((m for m in rows if bool(m.knobs["strip"]) == one), key=lambda m: m.seconds, default=None) for one in (True, False)]  # fmt: skip
        together, apart = by
        return None if together is None or apart is None else (together, apart)

    def _apart(self, pool: str, reason: str) -> PooledLayer:
        return PooledLayer(None, replace(self.own, reason=f"{self.own.reason}; '{pool}' apart: {reason}"))  # fmt: skip

    def _together(self, layer: str, pool: str, knobs: Knobs, ratio: str) -> PooledLayer:
        own = {name: value for name, value in knobs.items() if name != "strip"}
        reason = f"one kernel with '{pool}', {ratio}"
        choice = replace(self.own, knobs=own, reason=f"{self.own.reason}; {reason}")
        chain = Chain((layer, pool), {"strip": knobs["strip"]}, reason, NAME)
        return PooledLayer(chain, choice)
