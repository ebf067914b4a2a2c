"""convc.lock: the plan of one model, pinned. The same lock and the same versions give the same module, byte for byte."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from convc.errors import TuningError
from convc.ir.graph import Graph
from convc.schedules.backend import backend_of
from convc.schedules.plan import Chain, Choice, Plan
from convc.schedules.select import is_convolution, problem_of
from convc.schedules.table import TEMPLATE
from convc.target import Target
from convc.toolchain import installed_version
from convc.version import VERSION

__all__ = ["Lock", "LockedLayer", "lock_of", "read_lock"]

FORMAT: Final = 1


class LockedLayer(msgspec.Struct, frozen=True):
    """One layer's pinned choice, and the problem it was made for."""

    workload: str
    algorithm: str
    knobs: dict[str, int]
    reason: str


class LockedChain(msgspec.Struct, frozen=True, kw_only=True):
    """Layers that one kernel computes."""

    layers: tuple[str, ...]
    knobs: dict[str, int]
    reason: str


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """A pinned plan and everything else that the module's bytes depend on.

    Attributes:
        format: of this file.
        versions: convc's, TVM's, tvm-ffi's and the schedules'.
        target: str(Target) and the number of threads planned for.
        graph_sha256: of the model.
        options: as the module's manifest has them.
        layers: by node name.
        chains: of layers that run as one kernel.
        module_sha256: of the module that was made with it; "" before there is one.
    """

    format: int = FORMAT
    versions: dict[str, str]
    target: str
    threads: int
    graph_sha256: str
    options: dict[str, str]
    layers: dict[str, LockedLayer]
    chains: tuple[LockedChain, ...] = ()
    module_sha256: str = ""

    def write(self, path: Path) -> None:
        """Write it, replacing what was there only once it is complete."""
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=1) + b"\n")  # fmt: skip
        partial.replace(path)

    def plan(self, graph: Graph, target: Target, graph_sha256: str) -> Plan:
        """Return the pinned plan.

        Raises:
            TuningError: if it was made with other versions, for another target or model, or does not fit the graph.
        """
        for subject, wanted, found in (
            ("versions", self.versions, versions()),
            ("target", f"{self.target}, {self.threads} threads", f"{target}, {target.cores} threads"),
            ("model", self.graph_sha256, graph_sha256),
        ):  # fmt: skip
            if wanted != found:
                raise TuningError(
                    f"lock must be for this {subject}; got {_shown(wanted)}, and here is {_shown(found)}. Write a new one with --lock."
                )
        choices = {}
        for node in graph.nodes:
            if not is_convolution(node):
                continue
            layer, problem = self.layers.get(node.name), problem_of(graph, node)
            if layer is None or layer.workload != problem.key:
                got = "no such layer" if layer is None else layer.workload
                raise TuningError(
                    f"lock's layer '{node.name}' must be {problem.key}; got {got}. Write a new one with --lock."
                )
            algorithm = backend_of(target).algorithm(layer.algorithm)
            names = set(algorithm.knobs(problem, target)) if not algorithm.supports(problem, target) else set()  # fmt: skip
            if set(layer.knobs) != names:
                raise TuningError(
                    f"lock's layer '{node.name}' must have the knobs of {layer.algorithm}, {', '.join(sorted(names)) or 'which does not take it'}; "
                    f"got {', '.join(sorted(layer.knobs))}. Write a new one with --lock."
                )
            choices[node.name] = Choice(layer.algorithm, layer.knobs, layer.reason, source="lock")
        return Plan(choices, tuple(Chain(c.layers, c.knobs, c.reason) for c in self.chains))


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
    layers = {
        name: LockedLayer(
            problem_of(graph, graph[name]).key, choice.algorithm, dict(choice.knobs), choice.reason
        )
        for name, choice in plan.choices.items()
    }
    return Lock(
        versions=versions(),
        target=str(target),
        threads=target.cores,
        graph_sha256=graph_sha256,
        options=dict(options),
        layers=layers,
        chains=tuple(
            LockedChain(layers=c.layers, knobs=dict(c.knobs), reason=c.reason) for c in plan.chains
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
