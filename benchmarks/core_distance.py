"""python -m benchmarks.core_distance: how far this machine's cores are from each other, which decides what a second thread is worth.

A line of the cache goes from one core to the other and back: 55 to 80 ns where both share an L3, several times as long between parts of a
processor or between sockets. A virtual machine's cores may be moved from one to the other while it runs: times on two threads compare
only while they stay.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from benchmarks.arguments import exit_code
from convc.deploy.libconvc import find_compiler, run
from convc.errors import InputError

__all__ = ["core_distance", "main"]

_SOURCE: Final = Path(__file__).with_suffix(".cc")
_ROUNDS: Final = 2000


def core_distance(first: int, second: int) -> float:
    """Return the seconds in which a line of the cache goes from one core to the other and back.

    Raises:
        InputError: if this process may not run on one of them, or both are one.
    """
    if first == second or not {first, second} <= os.sched_getaffinity(0):
        cores = sorted(os.sched_getaffinity(0))
        raise InputError(f"cores must be two of {cores}; got {first} and {second}.")
    seconds = _measure()(first, second, _ROUNDS)
    if seconds < 0:
        raise InputError(f"cores must be free to run on; got {first} and {second}, and the system refused.")  # fmt: skip
    return seconds


@cache
def _measure() -> Callable[[int, int, int], float]:
    with tempfile.TemporaryDirectory(prefix="convc-distance-") as scratch:
        folder = Path(scratch)
        library = folder / "libdistance.so"
        run([find_compiler("g++"), "-O2", "-shared", "-fPIC", "-pthread", _SOURCE, "-o", library], folder)  # fmt: skip
        function = ctypes.CDLL(str(library)).core_distance
    function.restype = ctypes.c_double
    return function


def _run(given: argparse.Namespace) -> int:
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        raise InputError(f"cores must be two at least; got {first} alone.")
    for _ in range(given.times):
        found = (f"{first}-{other} {core_distance(first, other) * 1e9:.0f} ns" for other in others)
        sys.stdout.write(", ".join(found) + "\n")
        sys.stdout.flush()
        time.sleep(given.pause)
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """Print and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.core_distance", description=__doc__)
    add = parser.add_argument
    add("--times", type=int, default=10, help="how often (default: 10)")
    add("--pause", type=float, default=0.5, help="seconds between them (default: 0.5)")
    given = parser.parse_args(words)
    return exit_code(lambda: _run(given))


if __name__ == "__main__":
    sys.exit(main())
