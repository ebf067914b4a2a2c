"""One run of a compiler that takes long: on Ctrl-C, or when a neighbour fails, it ends whole and leaves nothing behind.

nvcc is a driver: what computes for minutes are its children. So it has a process group of its own, which is killed as one when this
thread is interrupted (Ctrl-C) or somebody says `stop`, and its temporary files lie in a folder of ours, since whoever is killed cannot
clear up. Of a process that is itself killed (SIGTERM, SIGKILL) the compiler outlives it and ends by itself, minutes later.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Final

__all__ = ["run"]

# How often a compiler that is running looks whether it is to stop, in seconds.
_LOOK: Final = 0.1


def run(
    command: Sequence[str], folder: Path, stop: threading.Event | None = None
) -> subprocess.CompletedProcess[str]:
    """Return what a command said and its exit code, as `subprocess.run` with its output captured.

    Args:
        command: to run in `folder`, which also takes its temporary files.
        folder: one that the caller removes.
        stop: set by another thread to end the command and all that it started.

    Raises:
        CancelledError: if it was stopped.
        OSError: if there is no such command.
    """
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=os.environ | {"TMPDIR": str(folder)},
    )  # fmt: skip
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                out, err = process.communicate(timeout=_LOOK if stop is not None else None)
                return subprocess.CompletedProcess(command, process.returncode, out, err)
            if stop is not None and stop.is_set():
                raise CancelledError
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
