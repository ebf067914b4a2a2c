"""`convc` on many files, each in a process of its own that is forked from one with everything imported: 5 ms and not 300 ms a file.

    python -m tests.deploy.command_server inspect --verify-checksums

For each path on standard input a line on standard output: the command's exit code, below 0 the signal that ended it, a blank, and the
first line of what it said on standard error.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from convc.cli import invoke, main

__all__ = ["exit_codes"]


def exit_codes(arguments: Sequence[str], paths: Sequence[Path]) -> list[tuple[int, str]]:
    """Return the exit code of `convc ARGUMENTS PATH` for each path, below 0 for a signal, and the first line of its standard error."""
    command = [sys.executable, "-m", "tests.deploy.command_server", *arguments]
    text = "".join(f"{path}\n" for path in paths)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    assert len(lines) == len(paths), done.stderr
    return [(int(code), said) for code, _, said in lines]


def _serve(arguments: Sequence[str]) -> None:
    importlib.import_module("convc.runtime")
    with contextlib.redirect_stderr(io.StringIO()):
        # An error of its own, so that what the command line imports when it runs is here before the first fork, too.
        assert invoke([*arguments, os.devnull]) != 0
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _become(["convc", *arguments, line.rstrip("\n")], writing)
        os.close(writing)
        with os.fdopen(reading, errors="replace") as stream:
            said = stream.read().partition("\n")[0]
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{code} {said}\n")
        sys.stdout.flush()


def _become(arguments: list[str], errors: int) -> NoReturn:
    """Be the command: with its own arguments, bug report and exit, its standard error in a pipe."""
    os.dup2(errors, 2)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    sys.argv = arguments
    code: object = 1
    try:
        main()
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    _serve(sys.argv[1:])
