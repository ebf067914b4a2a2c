"""One run of a compiler that takes long: it ends whole with whoever asked for it, however that ends, and leaves nothing behind.

nvcc is a driver: what computes for minutes are its children. So it has a process group of its own, which is killed as one when this
thread is interrupted (Ctrl-C) or somebody says `stop`, and its temporary files lie in a folder of ours, since whoever is killed cannot
clear up. Where this process is itself killed (kill -9) nothing here can run any more: a shell in the group waits for the end of a pipe
that this process alone can write to, which the system closes with it, and kills the group then. The folder stays behind in that case.
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

# The group's first process: the command beside one that reads the pipe, descriptor 3, until it ends. The command itself does not have it.
_LEASH: Final = """\
exec 3<&0 </dev/null
"$@" 3<&- &
command=$!
{ read -r never <&3; kill -s KILL -- -$$; } >/dev/null 2>&1 &
wait $command
code=$?
kill -s KILL $!
exit $code
"""


def run(
    command: Sequence[str], folder: Path, stop: threading.Event | None = None
) -> subprocess.CompletedProcess[str]:
    """Return what a command said and its exit code, as `subprocess.run` with its output captured.

    The code is a shell's: 128 and a signal's number if the command died of one, 127 if there is no such command.

    Args:
        command: to run in `folder`, which also takes its temporary files.
        folder: one that the caller removes.
        stop: set by another thread to end the command and all that it started.

    Raises:
        CancelledError: if it was stopped.
        OSError: if there is no `sh`.
    """
    process = subprocess.Popen(
        ["sh", "-c", _LEASH, "sh", *command], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, env=os.environ | {"TMPDIR": str(folder)},
    )  # fmt: skip
    # `communicate` would close it, and so say that we are gone.
    leash, process.stdin = process.stdin, None
    assert leash is not None
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
        leash.close()
