"""convc.lock: the plan of one model, pinned. The same lock and the same versions give the same module, byte for byte."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from convc.errors import TuningError
from convc.ir.graph import Graph, Node
from convc.schedules.backend import backend_of
from convc.schedules.chain_kinds import misfit
from convc.schedules.dual import posed
from convc.schedules.library_algorithm import are_knobs_of, completed
from convc.schedules.op_choice import has_choice, op_algorithm, op_key
from convc.schedules.plan import Chain, Choice, Plan, Unsupported
from convc.schedules.select import is_convolution, problem_of
from convc.schedules.table import TEMPLATE
from convc.schedules.weight_gradient_problem import is_weight_gradient, weight_gradient_spec
from convc.schedules.weight_gradients import PLAIN_LOOPS, weight_gradient_named
from convc.target import Target
from convc.toolchain import installed_version
from convc.version import VERSION

__all__ = ["Lock", "LockedLayer", "LockedPlan", "joined", "lock_of", "read_lock"]

FORMAT: Final = 1


class LockedOther(msgspec.Struct, frozen=True):
    """What stands beside a library's call, for devices that refuse it."""

    algorithm: str
    knobs: dict[str, int]
    reason: str


class LockedLayer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One layer's pinned choice, and the problem it was made for."""

    workload: str
    algorithm: str
    knobs: dict[str, int]
    reason: str
    otherwise: LockedOther | None = None


class LockedChain(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes that run as one step."""

    layers: tuple[str, ...]
    knobs: dict[str, int]
    reason: str
    kind: str = "bottleneck"


class LockedPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A pinned plan for one CPU or device and, where the batch is symbolic, one batch size.

    Attributes:
        target: str(Target) and the number of threads planned for.
        batch: the number of samples; 0 where shapes are fixed.
        layers: convolutions by node name.
        gradients: weight gradients by node name.
        operations: other ops that have a choice, by node name.
        chains: of layers that run as one kernel.
    """

    target: str
    threads: int
    batch: int = 0
    layers: dict[str, LockedLayer]
    gradients: dict[str, LockedLayer] = {}
    operations: dict[str, LockedLayer] = {}
    chains: tuple[LockedChain, ...] = ()

    def choices(self, graph: Graph, target: Target) -> Plan:
        """Return the pinned plan.

        Raises:
            TuningError: if it was made for another target, or does not fit the graph.
        """
        _same("target", f"{self.target}, {self.threads} threads", f"{target}, {target.cores} threads")  # fmt: skip
        choices = {
            n.name: self._convolution(graph, n, target) for n in graph.nodes if is_convolution(n)
        }
        gradients = {
            n.name: self._gradient(graph, n, target) for n in graph.nodes if is_weight_gradient(n)
        }
        operations = {
            n.name: self._operation(graph, n, target) for n in graph.nodes if has_choice(n, target)
        }
        chains = tuple(Chain(c.layers, c.knobs, c.reason, c.kind) for c in self.chains)
        problems = {name: problem_of(graph, graph[name]) for name in choices}
        wrong = misfit(chains, graph, problems, choices, target)
        if wrong:
            raise TuningError(f"a lock must have chains that fit the graph; got {wrong}. Write a new one with --lock.")  # fmt: skip
        return Plan(choices, chains, gradients, operations)

    def _convolution(self, graph: Graph, node: Node, target: Target) -> Choice:
        problem = problem_of(graph, node)
        layer = _fitting(self.layers, node.name, problem.key)

        def with_knobs(locked: LockedLayer | LockedOther) -> Choice:
            algorithm = backend_of(target).algorithm(locked.algorithm)
            posing = posed(problem, algorithm, target)
            refused = isinstance(posing, Unsupported)
            names = set() if refused else set(algorithm.knobs(posing, target))
            return _with_knobs(node.name, *_completed(algorithm, locked, names))

        other = None if layer.otherwise is None else with_knobs(layer.otherwise)
        return replace(with_knobs(layer), otherwise=other)

    def _gradient(self, graph: Graph, node: Node, target: Target) -> Choice:
        spec = weight_gradient_spec(graph, node)
        layer = _fitting(self.gradients, node.name, spec.key)

        def with_knobs(locked: LockedLayer | LockedOther) -> Choice:
            if locked.algorithm == PLAIN_LOOPS:
                return _with_knobs(node.name, locked, set())
            row = weight_gradient_named(locked.algorithm, target)
            names = set() if row.supports(spec, target) else set(row.knobs(spec, target))
            return _with_knobs(node.name, *_completed(row, locked, names))

        other = None if layer.otherwise is None else with_knobs(layer.otherwise)
        return replace(with_knobs(layer), otherwise=other)

    def _operation(self, graph: Graph, node: Node, target: Target) -> Choice:
        layer = _fitting(self.operations, node.name, op_key(graph, node))
        row, types = op_algorithm(node, layer.algorithm, target), [n.type for n in graph.operands(node)]  # fmt: skip
        names = set() if row is None else set(row.knobs(node, types, target))
        other = None if layer.otherwise is None else _with_knobs(node.name, layer.otherwise, set())
        return replace(_with_knobs(node.name, layer, names), otherwise=other)


class Lock(LockedPlan, frozen=True, kw_only=True):
    """The pinned plans of a module and everything else that its bytes depend on.

    Attributes:
        format: of this file.
        versions: convc's, TVM's, tvm-ffi's and the schedules'.
        graph_sha256: of the model.
        options: as the module's manifest has them.
        others: the plans for its other CPUs and smaller batch sizes, in the module's order.
        module_sha256: of the module that was made with it; "" before there is one.
    """

    format: int = FORMAT
    versions: dict[str, str]
    graph_sha256: str
    options: dict[str, str]
    others: tuple[LockedPlan, ...] = ()
    module_sha256: str = ""

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Numbers of samples that there is code for, largest first; empty where shapes are fixed."""
        sizes = {plan.batch for plan in (self, *self.others)} - {0}
        return tuple(sorted(sizes, reverse=True))

    def write(self, path: Path) -> None:
        """Write it, replacing what was there only once it is complete."""
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=1) + b"\n")  # fmt: skip
        partial.replace(path)

    def plan(
        self, graph: Graph, target: Target, graph_sha256: str, part: int = 0, parts: int = 1
    ) -> Plan:
        """Return the plan of one of the module's parts: its CPUs, and of each the batch sizes, largest first.

        Raises:
            TuningError: if it was made with other versions, for another target or model, or does not fit the graph.
        """
        _same("versions", self.versions, versions())
        _same("model", self.graph_sha256, graph_sha256)
        plans = (self, *self.others)
        _same("number of CPUs and batch sizes", len(plans), parts)
        return plans[part].choices(graph, target)


def joined(locks: Sequence[Lock], batch_sizes: Sequence[int]) -> Lock:
    """Return the lock of a module from its parts' locks, in order.

    Args:
        locks: of each CPU and batch size, see `Lock.plan`.
        batch_sizes: numbers of samples, largest first; (0,) where shapes are fixed.
    """
    sized = [
        msgspec.structs.replace(lock, batch=batch_sizes[i % len(batch_sizes)])
        for i, lock in enumerate(locks)
    ]
    fields = LockedPlan.__struct_fields__
    others = (LockedPlan(**{name: getattr(lock, name) for name in fields}) for lock in sized[1:])
    return msgspec.structs.replace(sized[0], others=tuple(others))


def _same(subject: str, wanted: object, found: object) -> None:
    if wanted != found:
        raise TuningError(
            f"lock must be for this {subject}; got {_shown(wanted)}, and here is {_shown(found)}. Write a new one with --lock."
        )


def _fitting(layers: Mapping[str, LockedLayer], name: str, workload: str) -> LockedLayer:
    layer = layers.get(name)
    if layer is None or layer.workload != workload:
        got = "no such layer" if layer is None else layer.workload
        raise TuningError(
            f"lock's layer '{name}' must be {workload}; got {got}. Write a new one with --lock."
        )
    return layer


def _completed(
    row: object, locked: LockedLayer | LockedOther, names: set[str]
) -> tuple[LockedLayer | LockedOther, set[str]]:
    """Return the layer with knobs that its algorithm has got since, and those that it may have: a library's settled ones are more."""
    locked = msgspec.structs.replace(locked, knobs=dict(completed(row, locked.knobs)))
    fits = names and are_knobs_of(row, names, locked.knobs)
    return locked, set(locked.knobs) if fits else names


def _with_knobs(name: str, layer: LockedLayer | LockedOther, names: set[str]) -> Choice:
    if set(layer.knobs) != names:
        raise TuningError(
            f"lock's layer '{name}' must have the knobs of {layer.algorithm}, {', '.join(sorted(names)) or 'which does not take it'}; "
            f"got {', '.join(sorted(layer.knobs))}. Write a new one with --lock."
        )
    return Choice(layer.algorithm, layer.knobs, layer.reason, source="lock")


def _shown(value: object) -> str:
    return (
        ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    )


def versions() -> dict[str, str]:
    """Return the versions that a module's bytes depend on."""
    return {
        "convc": VERSION,
        "tvm": installed_version("apache-tvm") or "",
        "tvm_ffi": installed_version("apache-tvm-ffi") or "",
        "schedules": str(TEMPLATE),
    }


def lock_of(
    graph: Graph, plan: Plan, target: Target, graph_sha256: str, options: Mapping[str, str]
) -> Lock:
    """Return the lock of a plan."""

    def locked(choices: Mapping[str, Choice], key: Callable[[Node], str]) -> dict[str, LockedLayer]:
        return {
            name: LockedLayer(key(graph[name]), c.algorithm, dict(c.knobs), c.reason, other(c))
            for name, c in choices.items()
        }

    def other(choice: Choice) -> LockedOther | None:
        own = choice.otherwise
        return None if own is None else LockedOther(own.algorithm, dict(own.knobs), own.reason)

    return Lock(
        versions=versions(),
        target=str(target),
        threads=target.cores,
        graph_sha256=graph_sha256,
        options=dict(options),
        layers=locked(plan.choices, lambda n: problem_of(graph, n).key),
        gradients=locked(plan.gradients, lambda n: weight_gradient_spec(graph, n).key),
        operations=locked(plan.operations, lambda n: op_key(graph, n)),
        chains=tuple(
            LockedChain(layers=c.layers, knobs=dict(c.knobs), reason=c.reason, kind=c.kind)
            for c in plan.chains
        ),
    )


def read_lock(path: Path) -> Lock:
    """Return a lock file's contents.

    Raises:
        TuningError: if it is not one.
        OSError: if it cannot be read.
    """
    try:
        lock = msgspec.json.decode(path.read_bytes(), type=Lock)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TuningError(
            f"lock must be a file that --lock wrote; got '{path}': {error}."
        ) from None
    if lock.format != FORMAT:
        raise TuningError(f"lock must have format {FORMAT}; got {lock.format}. Write a new one with --lock.")  # fmt: skip
    return lock
