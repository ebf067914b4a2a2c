"""Tune the benchmark's layers, as `convc tune` tunes a model's: how the shipped logs come by more than the networks' own layers.

python -m benchmarks.tune_layers [--below 1] [--classes 3x3s1,dw3] [--layers GLOB] [--threads 1] [--time 20m] [--log FILE]

Ctrl-C keeps everything; the same command goes on. Layers have no bias or activation here: a network's layer with one takes their
records as those of a like layer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.arguments import exit_code, names
from benchmarks.layer_list import layers
from convc.cli.exits import INTERRUPTED
from convc.cli.parameters import parse_duration
from convc.cli.render import Output
from convc.cli.tune_view import TuneView
from convc.errors import InputError
from convc.runtime.threads import check_threads
from convc.schedules.algorithm import Problem
from convc.target import parse_target
from convc.tuning.calibration import calibration
from convc.tuning.device import log_path
from convc.tuning.knowledge import own_folder
from convc.tuning.log import Log
from convc.tuning.options import Options, default_jobs
from convc.tuning.session import Session
from convc.tuning.tasks import Task, distinct

__all__ = ["layer_tasks", "main"]


def layer_tasks(classes: Sequence[str], pattern: str, below: float) -> tuple[Task, ...]:
    """Return the distinct layers of these classes and names with less than `below` GMAC, each once.

    Raises:
        UnknownNameError: for a class that does not exist, or a pattern that matches nothing.
        InputError: if none is small enough.
    """
    fitting = layers(classes, pattern)
    small = [layer for layer in fitting if layer.spec.flops < 2e9 * below]
    if not small:
        least = min(layer.spec.flops for layer in fitting) / 2e9
        raise InputError(f"--below must leave a layer; got {below:g}, and the smallest of {len(fitting)} has {least:.3g} GMAC.")  # fmt: skip
    return distinct(Task(Problem(layer.spec), (layer.name,)) for layer in small)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune_layers", description="Tune the layers of benchmarks/layers.csv.")  # fmt: skip
    parser.add_argument("--below", type=float, default=1.0, metavar="GMAC", help="only smaller layers; default 1")  # fmt: skip
    parser.add_argument("--classes", default="", metavar="CLASS,...", help="default: all")
    parser.add_argument("--layers", default="*", metavar="GLOB", help="of ids, as in 'r50_*'")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--time", default="20m", help="for all layers together; default 20m")
    parser.add_argument("--jobs", type=int, default=default_jobs(), help="processes that build")
    parser.add_argument("--log", type=Path, metavar="FILE", help="default: this device's where `convc tune` writes")  # fmt: skip
    return parser


def _run(given: argparse.Namespace) -> int:
    tasks = layer_tasks(names(given.classes), given.layers, given.below)
    target = parse_target(cores=check_threads(given.threads))
    log = given.log or log_path(own_folder(), target)
    output = Output()
    view = TuneView(output)
    options = Options(seconds=parse_duration(given.time), jobs=given.jobs)
    session = Session(tasks, target, Log(log), calibration(target, view.note), options)
    for note in session.notes:
        output.warn(note)
    interrupted = False
    with view.watching(session):
        try:
            session.run(view.changed)
        except KeyboardInterrupt:
            interrupted = True
    done = sum(layer.done for layer in session.layers)
    counts = ", ".join(f"{n} {status}" for status, n in session.counts.items()) or "none"
    print(f"{done} of {len(tasks)} layers done in {session.spent:.0f} s; trials: {counts}; records are in {log}")  # fmt: skip
    if done < len(tasks):
        print("the same command goes on from here")
    return INTERRUPTED if interrupted else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Tune, say what became of each layer when it is done, and return the exit code."""
    given = _parser().parse_args(arguments)
    return exit_code(lambda: _run(given))


if __name__ == "__main__":
    sys.exit(main())
