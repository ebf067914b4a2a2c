"""python -m benchmarks.thread_shares MODEL.onnx --threads 8: how evenly threads share the work, more of them than this machine may have.

A module for so many threads runs on one: wherever it would launch them, the parts follow one another, each timed by itself, and a launch
counts as long as its longest part. What this leaves out: launches themselves, memory and caches that cores share, and that a part finds in
L2 what the one before it read. So it finds parts that are too few or uneven; it is no measurement of such a machine.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import msgspec

import convc
import convc.runtime.profile
from benchmarks.arguments import check_rounds, exit_code, say
from convc.cli.render import Column, console, seconds, table
from convc.deploy.libconvc import find_compiler, run
from convc.errors import InputError
from convc.inputs import random_inputs

__all__ = ["Share", "main"]

_SOURCE: Final = Path(__file__).with_suffix(".cc")


class Share(msgspec.Struct, frozen=True):
    """A step: its seconds on so many threads, and of all their work together."""

    node: str
    algorithm: str
    key: str
    alone: float
    shared: float

    def lost(self, threads: int) -> float:
        """Return the seconds beyond those of evenly shared work.

        Example:
            >>> Share("y", "direct", "", 8.0, 1.5).lost(8)
            0.5
        """
        return self.shared - self.alone / threads


@dataclass(frozen=True, slots=True)
class _Clock:
    """The clock of this thread's own time, less what threads side by side would have saved."""

    hidden: Callable[[], float]

    def shared(self) -> float:
        return time.thread_time() - self.hidden()


@contextmanager
def _profiled_by(clock: object) -> Iterator[None]:
    """Let steps be timed by a function of no arguments."""
    real = convc.runtime.profile.time
    convc.runtime.profile.time = SimpleNamespace(perf_counter=clock)  # type: ignore[assignment]
    try:
        yield
    finally:
        convc.runtime.profile.time = real


def _measure(path: Path, threads: int, rounds: int) -> list[Share]:
    """Return the steps of a module, in the process in which launches are replaced."""
    library = ctypes.CDLL(None)
    library.ConvcShares(threads)
    library.ConvcHidden.restype = ctypes.c_double
    module = convc.load(path)
    fed = random_inputs(module.inputs, 0)
    with _profiled_by(_Clock(library.ConvcHidden).shared):
        shared = module.profile(fed, rounds)
    with _profiled_by(time.thread_time):
        alone = module.profile(fed, rounds)
    return [
        Share(a.step.node, a.step.algorithm or a.step.op, a.step.key, a.median, s.median)
        for a, s in zip(alone, shared, strict=True)
    ]


def _run(given: argparse.Namespace) -> int:
    if given.child:
        sys.stdout.buffer.write(msgspec.json.encode(_measure(given.model, given.threads, given.rounds)))  # fmt: skip
        return 0
    if given.threads < 1:
        raise InputError(f"--threads must be at least 1; got {given.threads}.")
    rounds = check_rounds(given.rounds)
    with tempfile.TemporaryDirectory(prefix="convc-shares-") as scratch:
        folder = Path(scratch)
        launch = folder / "libshares.so"
        run([find_compiler("g++"), "-O2", "-shared", "-fPIC", _SOURCE, "-o", launch], folder)
        say(f"compiling {given.model.name} for {given.threads} threads")
        path = convc.compile(given.model, threads=given.threads).export(folder / "model.so")
        say("running it on one")
        words = [sys.executable, "-m", "benchmarks.thread_shares", str(path), "--child"]
        words += ["--threads", str(given.threads), "--rounds", str(rounds)]
        preload = " ".join([str(launch), *os.environ.get("LD_PRELOAD", "").split()])
        done = subprocess.run(words, env=os.environ | {"LD_PRELOAD": preload}, stdout=subprocess.PIPE, check=False)  # fmt: skip
    if done.returncode:
        # It has said why.
        return done.returncode
    _print(msgspec.json.decode(done.stdout, type=list[Share]), given.threads, given.top)
    return 0


def _print(shares: Sequence[Share], threads: int, top: int) -> None:
    if not shares:
        say("no steps: nothing is shared.")
        return
    alone, shared = sum(s.alone for s in shares), sum(s.shared for s in shares)
    columns = (Column("step"), Column("by"), Column("work", True), Column("shared", True), Column("times faster", True), Column("lost", True))  # fmt: skip
    worst = sorted(shares, key=lambda s: -s.lost(threads))[:top]
    rows = [
        (s.node, s.algorithm, seconds(s.alone), seconds(s.shared), f"{s.alone / s.shared:.1f}", seconds(s.lost(threads)))
        for s in worst
    ]  # fmt: skip
    rows.append(("all", "", seconds(alone), seconds(shared), f"{alone / shared:.1f}", seconds(shared - alone / threads)))  # fmt: skip
    console().print(table(f"Shared by {threads} threads, {len(shares)} steps, those that lose most", columns, rows))  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Compile, run and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.thread_shares", description=__doc__)
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL.onnx")
    add("--threads", type=int, default=8, help="default 8")
    add("--rounds", type=int, default=9, help="runs of each step; default 9")
    add("--top", type=int, default=12, metavar="N", help="steps to show; default 12")
    add("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    return exit_code(lambda: _run(given))


if __name__ == "__main__":
    sys.exit(main())
