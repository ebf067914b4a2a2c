"""The child process in which candidates are built, checked and timed: whatever one does, only this process suffers.

Started as `python -c "from convc.tuning.worker import main; main(FD)"` by `pool`, which kills it when a job takes too long. It ends by
itself when its pipe closes, and with its parent, however that dies.
"""

from __future__ import annotations

import ctypes
import importlib
import resource
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

from convc.tuning.jobs import Answer, Setup

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main(descriptor: int) -> None:
    """Serve jobs from the pipe at a file descriptor until it closes."""
    # The parent alone answers Ctrl-C. And a kernel that hangs must not outlive a parent that was killed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    connection = Connection(descriptor)
    setup: Setup = connection.recv()
    if setup.initializer:
        module, _, function = setup.initializer.partition(":")
        getattr(importlib.import_module(module), function)()
    # Not before: what an initializer puts in place, a device for example, TVM must find when it is imported.
    from convc.tuning.bench import Bench

    if setup.target.device is None:
        # A device's driver reserves address space for all of the device's memory at once.
        _limit_memory(setup.memory_bytes)
    with TemporaryDirectory(prefix="convc-tune-") as folder:
        bench = Bench(setup, Path(folder))
        connection.send(Answer("ok"))
        while True:
            try:
                job = connection.recv()
            except EOFError:
                return
            connection.send(bench.answer(job))


def _limit_memory(nbytes: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + nbytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
