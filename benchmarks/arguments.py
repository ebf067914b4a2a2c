"""What the benchmarks' command lines share: lists joined by commas, checked numbers, a line that says what is going on, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks.peers import Peer, peers_named
from convc.cli.exits import REPORTED, report_error
from convc.errors import InputError
from convc.runtime.threads import check_threads

__all__ = ["NONE", "check_rounds", "exit_code", "names", "peers_of", "say", "threads_of"]

NONE = "none"


def names(text: str) -> list[str]:
    """Return the words between the commas, each once.

    Example:
        >>> names("a, b,,a")
        ['a', 'b']
    """
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def peers_of(text: str) -> tuple[Peer, ...]:
    """Return the peers that `--vs` names; "none" is nobody.

    Raises:
        UnknownNameError: for a peer that does not exist.
    """
    return () if text == NONE else peers_named(names(text))


def threads_of(text: str) -> list[int]:
    """Return the numbers of threads that `--threads` names.

    Raises:
        InputError: if one is no number, or not one that this machine can run.
    """
    words = names(text)
    if not words or not all(word.isdecimal() for word in words):
        raise InputError(f"--threads must be numbers joined by commas, as in 1,2; got '{text}'.")
    return [check_threads(int(word)) for word in words]


def check_rounds(rounds: int) -> int:
    """Return `rounds` if it is at least 1, else raise InputError."""
    if rounds < 1:
        raise InputError(f"--rounds must be at least 1; got {rounds}.")
    return rounds


def say(text: str) -> None:
    """Show what is going on, on one line of a terminal; nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def exit_code(run: Callable[[], int]) -> int:
    """Return what `run` returns; what it refuses is said in words, as by `convc`, and gives that error's exit code."""
    try:
        return run()
    except REPORTED as error:
        return report_error(error, as_json=False)
