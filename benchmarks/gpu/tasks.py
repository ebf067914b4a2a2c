"""The distinct layers of networks as a small file, so that they can be tuned where the networks are not, and the tuning itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path

import msgspec

from benchmarks.gpu.networks import FLOAT_TYPES
from benchmarks.training_networks import resnet18
from benchmarks.zoo import exported
from convc.compiler import reduced_graph
from convc.ir import Graph
from convc.schedules.algorithm import KIND, Problem
from convc.schedules.policy import Policy
from convc.schedules.weight_gradient_problem import WEIGHT_GRADIENT, WeightGradientProblem
from convc.target import Target
from convc.tuning.calibration import calibration
from convc.tuning.log import Log
from convc.tuning.options import Options
from convc.tuning.session import Session
from convc.tuning.subjects import Tunable
from convc.tuning.tasks import Task, tasks_of

__all__ = ["read_tasks", "tune", "write_tasks", "zoo_tasks"]


def zoo_tasks(
    names: Sequence[str], batches: Sequence[int], dtypes: Sequence[str], steps: Sequence[int] = ()
) -> tuple[Task, ...]:
    """Return the distinct layers of networks, a layer of several networks once.

    Args:
        names: of the zoo.
        batches: of each.
        dtypes: of `FLOAT_TYPES`, of networks and steps.
        steps: batches of ResNet-18's training step, whose layers have weights of run time and weight gradients.
    """
    found: dict[Tunable, tuple[str, ...]] = {}
    for name, graph in _graphs(names, batches, dtypes, steps):
        for task in tasks_of(graph):
            layers = tuple(f"{name}:{layer}" for layer in task.layers)
            found[task.problem] = (*found.get(task.problem, ()), *layers)
    return tuple(Task(problem, layers) for problem, layers in found.items())


def _graphs(
    names: Sequence[str], batches: Sequence[int], dtypes: Sequence[str], steps: Sequence[int]
) -> Iterator[tuple[str, Graph]]:
    for name, batch, dtype in product(names, batches, dtypes):
        yield name, reduced_graph(exported(name, batch=batch), dtype=FLOAT_TYPES[dtype])
    for batch, dtype in product(steps, dtypes):
        yield f"resnet18_step_{batch}", reduced_graph(resnet18(batch, dtype=dtype).graph)


def write_tasks(tasks: Iterable[Task], path: Path) -> None:
    """Write tasks, one JSON line each."""
    rows = ({"workload": t.subject.key, "layers": t.layers} for t in tasks)
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def _parsed(key: str) -> Problem | WeightGradientProblem:
    kind = WeightGradientProblem if key.startswith(f"{WEIGHT_GRADIENT}{KIND}") else Problem
    return kind.parse(key)


def read_tasks(path: Path) -> tuple[Task, ...]:
    """Return what `write_tasks` wrote."""
    rows = (msgspec.json.decode(line) for line in path.read_bytes().splitlines())
    return tuple(Task(_parsed(row["workload"]), tuple(row["layers"])) for row in rows)


def tune(
    tasks: Sequence[Task],
    target: Target,
    log: Path,
    options: Options,
    say: Callable[[str], None],
    done: Callable[[Session], None] = lambda _: None,
) -> Session:
    """Tune tasks on this machine's device; say what each layer has come to when it is done, and give the session to `done`."""
    session = Session(tasks, target, Log(log), calibration(target), options)
    for note in session.notes:
        say(note)
    said: set[int] = set()

    def changed() -> None:
        for index, layer in enumerate(session.layers):
            best = layer.search.best
            if layer.done and index not in said and best is not None:
                said.add(index)
                done(session)
                gain = f"{layer.baseline / best[1]:.2f} x" if layer.baseline else ""
                knobs = " ".join(f"{k}={v}" for k, v in best[0].knobs.items())
                say(f"{session.spent:5.0f} s  {layer.task.name}: {best[1] * 1e6:.1f} us {gain} {best[0].algorithm} {knobs}")  # fmt: skip

    session.run(changed)
    return session


def policy_of(algorithms: str) -> Policy:
    """Return a policy of the command line's algorithms, as `convc tune --algos` reads them."""
    return Policy().with_algorithms(algorithms)
