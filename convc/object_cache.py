"""What a compiler took minutes for, kept in the user's cache folder under the hash of everything that it was made of."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import platformdirs
from filelock import FileLock, Timeout

__all__ = ["kept"]

# How often who waits for another process looks whether to stop, in seconds.
_LOOK: Final = 0.1


def kept(
    kind: str,
    made_of: Iterable[str],
    make: Callable[[], bytes],
    stop: threading.Event | None = None,
) -> bytes:
    """Return what `make` returns, from the cache where it was made before.

    Processes that want the same one wait for the first of them. A file is complete or not there, whenever a process ends.

    Args:
        kind: the folder's name.
        made_of: all that decides about the contents: sources, options, the compiler's version.
        make: makes it.
        stop: set by another thread to end the wait for another process; `make` looks at it for itself.

    Raises:
        CancelledError: if it was stopped.
        OSError: if the cache's folder cannot be written; XDG_CACHE_HOME names another.
    """
    digest = hashlib.sha256()
    for part in made_of:
        digest.update(f"{len(part)}:{part}".encode())
    path = Path(platformdirs.user_cache_dir("convc")) / kind / digest.hexdigest()
    if path.is_file():
        return path.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path, stop):
        if not path.is_file():
            content = make()
            partial = path.with_suffix(f".{os.getpid()}.partial")
            try:
                partial.write_bytes(content)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
    return path.read_bytes()


@contextmanager
def _locked(path: Path, stop: threading.Event | None) -> Iterator[None]:
    lock = FileLock(f"{path}.lock")
    while True:
        if stop is not None and stop.is_set():
            raise CancelledError
        try:
            lock.acquire(timeout=-1 if stop is None else _LOOK)
            break
        except Timeout:
            continue
    try:
        yield
    finally:
        lock.release()
