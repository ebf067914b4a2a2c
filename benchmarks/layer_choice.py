"""How good the cost model's choice of an algorithm is: every algorithm of every layer, measured as the tuner measures.

python -m benchmarks.layer_choice [--below 1] [--classes 3x3s1,dw3] [--layers GLOB] [--log FILE] [--json FILE]

Each algorithm has the setting that the model thinks best or, with --log, the fastest recorded one. Kernels are built, checked against
float64 and timed in a process of their own, in turns, with another copy of the weights at every call. A layer's neighbours keep their
channels in blocks, so an algorithm on plain data has the time of the copies before and behind it added, measured in a module.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.arguments import check_rounds, exit_code, names, say
from benchmarks.layer_list import CLASSES, Layer, layers
from benchmarks.layer_model import NODE, LayerModel
from benchmarks.layer_report import algorithms_table, choices, choices_table
from benchmarks.layer_runs import AlgorithmResult
from benchmarks.run_facts import RunFacts, write_document
from convc.cli.exits import BUG
from convc.cli.render import console
from convc.compiler import compile as compile_model
from convc.errors import InputError
from convc.runtime.threads import check_threads
from convc.schedules.algorithm import Problem
from convc.schedules.backend import backend_of
from convc.schedules.dual import solved
from convc.schedules.offers import offers_of
from convc.schedules.plan import Knobs
from convc.schedules.policy import Policy
from convc.schedules.tuned import Records
from convc.target import Target, parse_target
from convc.tuning.calibration import calibration
from convc.tuning.jobs import Build, Setup, Time
from convc.tuning.knowledge import knowledge
from convc.tuning.pool import Pool

__all__ = ["LayerChoice", "compare_algorithms", "main"]

# Short rounds, each over the machine's pace, and their median: the least would be the one whose pace was overestimated most.
_ROUND_SECONDS: Final = 0.003
# An algorithm that takes so much longer than the fastest in the first rounds gets no others.
_FIRST_ROUNDS: Final = 3
_HOPELESS: Final = 2.0
# A result further off than this, of its greatest value, is wrong and not inexact.
_WRONG: Final = 1e-3
_MEMORY: Final = 4 << 30
_ESTIMATE: Final = Policy(by="heuristic")


class LayerChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One layer's algorithms, compared.

    Attributes:
        layer, kind, key: its id, class and convolution.
        algorithms: those that work, the one chosen by estimate among them.
        copies: seconds of both copies, where an algorithm on plain data came near; they are in its time.
        errors: by algorithm, why there is no time.
    """

    layer: str
    kind: str
    key: str
    algorithms: tuple[AlgorithmResult, ...]
    copies: float | None
    errors: dict[str, str]


def compare_algorithms(
    layer: Layer, target: Target, pool: Pool, records: Records, *, rounds: int, seed: int
) -> LayerChoice:
    """Return the times of every algorithm that takes the layer.

    Args:
        layer: which.
        target: the machine, with the number of threads as its cores.
        pool: of one worker.
        records: settings to take where there are some; the choice itself is by estimate.
        rounds: in which each algorithm is timed once.
        seed: of the data and the order.
    """
    problem = Problem(layer.spec)
    guessed = offers_of(problem, target, _ESTIMATE, {}).candidates
    estimates = {c.algorithm: c.seconds for c in guessed if c.seconds is not None}
    chosen = min(estimates, key=lambda name: estimates[name])
    settings: dict[str, Knobs] = {
        c.algorithm: c.knobs
        for c in offers_of(problem, target, Policy(), records).candidates
        if c.algorithm in estimates
    }
    pool.forget()
    jobs = [
        Build(handle, problem, target, name, knobs, seed)
        for handle, (name, knobs) in enumerate(settings.items())
    ]
    answers, errors = pool.build(jobs), {}
    samples: dict[str, list[float]] = {}
    accuracy: dict[str, float] = {}
    for job in jobs:
        answer = answers[job.handle]
        if answer.status != "ok":
            errors[job.algorithm] = f"{answer.status}: {answer.message}"
        elif answer.error > _WRONG:
            errors[job.algorithm] = f"error {answer.error:.2g} of the greatest result"
        else:
            samples[job.algorithm], accuracy[job.algorithm] = [], answer.error
    running = [job for job in jobs if job.algorithm in samples]
    shuffle = random.Random(seed).shuffle
    for number in range(rounds):
        shuffle(running)
        for job in running:
            answer = pool.time(Time(job.handle, 1, _ROUND_SECONDS))
            if answer.status == "ok":
                samples[job.algorithm] += answer.samples
            else:
                errors[job.algorithm] = f"{answer.status}: {answer.message}"
        if number == _FIRST_ROUNDS - 1:
            so_far = {name: statistics.median(rows) for name, rows in samples.items() if rows}
            least = min(so_far.values(), default=0.0)
            running = [j for j in running if so_far.get(j.algorithm, 0.0) <= _HOPELESS * least]
    times = {
        name: statistics.median(rows)
        for name, rows in samples.items()
        if rows and name not in errors
    }
    times, copies = _with_copies(layer, problem, target, settings, times, seed)
    rows = tuple(
        AlgorithmResult(name, name == chosen, estimates[name], time, accuracy[name], dict(settings[name]))
        for name, time in times.items()
    )  # fmt: skip
    return LayerChoice(
        layer=layer.name,
        kind=layer.kind,
        key=layer.spec.key,
        algorithms=rows,
        copies=copies,
        errors=errors,
    )


def _with_copies(
    layer: Layer,
    problem: Problem,
    target: Target,
    settings: Mapping[str, Knobs],
    times: Mapping[str, float],
    seed: int,
) -> tuple[dict[str, float], float | None]:
    """Return the times with both copies added where data and result are plain, and what those take if they matter."""
    blocked, plain = {}, {}
    for name, seconds in times.items():
        algorithm = backend_of(target).algorithm(name)
        wants = algorithm.operands(solved(problem, algorithm, target), target, settings[name])
        in_blocks = wants.data.block or wants.result.block
        (blocked if in_blocks else plain)[name] = seconds
    if not blocked or not plain or min(plain.values()) > _HOPELESS * min(blocked.values()):
        return dict(times), None
    fastest = min(blocked, key=lambda name: blocked[name])
    copies = _copies(LayerModel(layer.spec, seed), fastest, target.cores)
    return {name: s + copies * (name in plain) for name, s in times.items()}, copies


def _copies(model: LayerModel, algorithm: str, threads: int) -> float:
    """Return the seconds that a module of one layer takes to put its data into blocks and the result back in order."""
    made = compile_model(model.graph, threads=threads, policy=_ESTIMATE, algo_for={NODE: algorithm})
    profile = made.load(threads=threads).profile(model.feed, 20)
    return sum(min(t.seconds) for t in profile if t.step.op == "reorder")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.layer_choice",
        description="Measure every algorithm of every layer, and say how often the one chosen by estimate is the fastest.",
    )
    known = ",".join(name for name, _ in CLASSES)
    add = parser.add_argument
    add("--below", type=float, default=1.0, metavar="GMAC", help="only layers with fewer; default 1")  # fmt: skip
    add("--classes", default="", metavar="CLASS,...", help=f"only layers of these classes, of {known}")  # fmt: skip
    add("--layers", default="*", metavar="GLOB", help="only layers whose id matches, as in 'r50_*'")
    add("--log", type=Path, metavar="FILE", help="take each algorithm's fastest setting of this tuning log")  # fmt: skip
    add("--threads", type=int, default=1, metavar="N", help="default 1")
    add("--rounds", type=int, default=24, metavar="N", help="of 3 ms an algorithm; default 24")
    add("--seed", type=int, default=0, metavar="N", help="of the data and the order; default 0")
    add("--json", type=Path, metavar="FILE", help="write one JSON document; it grows with every layer")  # fmt: skip
    return parser


def _run(given: argparse.Namespace) -> int:
    rounds, target = check_rounds(given.rounds), parse_target(cores=check_threads(given.threads))
    fitting = layers(names(given.classes), given.layers)
    wanted = [layer for layer in fitting if layer.spec.flops < 2e9 * given.below]
    if not wanted:
        least = min(layer.spec.flops for layer in fitting) / 2e9
        raise InputError(f"--below must leave a layer; got {given.below:g}, and the smallest has {least:g} GMAC.")  # fmt: skip
    records = knowledge(target, [given.log]).records if given.log is not None else {}
    if given.log is not None and not records:
        raise InputError(
            f"--log must have records of this device for {target.cores} thread(s); got '{given.log}' without any."
        )
    facts = RunFacts.begin((), rounds, target.cores)
    results: list[LayerChoice] = []

    def write() -> None:
        if given.json is not None:
            write_document(given.json, {"layers": results}, facts)

    write()  # a path that cannot be written to shows now, not after the measurement
    reference = calibration(target, say).reference.get(target.cores, 0.0)
    with Pool(Setup(target, _MEMORY, reference=reference), 1) as pool:
        for number, layer in enumerate(wanted, 1):
            say(f"{layer.name}, {number} of {len(wanted)}")
            results.append(
                compare_algorithms(layer, target, pool, records, rounds=rounds, seed=given.seed)
            )
            write()
    facts = facts.ended()
    write()
    say("")
    screen = console()
    screen.print(algorithms_table(results))
    screen.print(choices_table(results))
    screen.print(str(choices(results)), markup=False)
    failures = [f"error: {r.layer}: {name}: {text}" for r in results for name, text in r.errors.items()]  # fmt: skip
    for line in (*failures, *facts.lines()):
        screen.print(line, markup=False)
    return BUG if any(not any(a.chosen for a in r.algorithms) for r in results) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; return the exit code: 0 only if the chosen algorithm works for every layer."""
    given = _parser().parse_args(arguments)
    return exit_code(lambda: _run(given))


if __name__ == "__main__":
    sys.exit(main())
