"""A child process that believes in a GPU: it answers calls one by one, and its death is an error with its last words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, Final

__all__ = ["EmulationError", "Worker"]

_ROOT: Final = Path(__file__).parents[2]
_LAST_WORDS: Final = 2000


class EmulationError(RuntimeError):
    """What the emulated device or its compiler refused, or how the process that runs it ended."""


class Worker:
    """Runs functions of `tests.cuda_emulation` in a child that has called `device.install` first.

    The child starts with the first call and again after a crash, and ends with the parent: it reads the end of its pipe.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker

    def call(self, function: str, *arguments: Any) -> Any:
        """Return the result of "module:function" called in the child with pickled arguments.

        Raises:
            EmulationError: with the child's traceback if it raised, with its last words if it died.
        """
        connection = self._connection or self._start()
        try:
            connection.send((function, arguments))
            kind, payload = connection.recv()
        except (EOFError, ConnectionError) as error:
            raise EmulationError(self._epitaph()) from error
        if kind == "error":
            raise EmulationError(payload)
        return payload

    def close(self) -> None:
        """End the child."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.wait()
        self._connection = self._process = None

    def _start(self) -> Connection:
        ours, theirs = Pipe()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(_ROOT), os.environ.get("PYTHONPATH", ""))),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cuda_emulation.child", str(theirs.fileno())],
            cwd=_ROOT,
            env=environment,
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stderr=self._stderr,
        )
        theirs.close()
        self._connection = ours
        return ours

    def _epitaph(self) -> str:
        process = self._process
        assert process is not None
        self.close()
        code = process.returncode
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._stderr.seek(0)
        words = self._stderr.read().decode(errors="replace")[-_LAST_WORDS:]
        return f"the emulation's process ended with {how}; its last words:\n{words}"
