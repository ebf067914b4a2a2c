"""What a compiler took minutes for, kept in the user's cache folder under the hash of everything that it was made of."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import platformdirs
from filelock import FileLock

__all__ = ["kept"]


def kept(kind: str, made_of: Iterable[str], make: Callable[[], bytes]) -> bytes:
    """Return what `make` returns, from the cache where it was made before.

    Processes that want the same one wait for the first of them. A file is complete or not there, whenever a process ends.

    Args:
        kind: the folder's name.
        made_of: all that decides about the contents: sources, options, the compiler's version.
        make: makes it.

    Raises:
        OSError: if the cache's folder cannot be written; XDG_CACHE_HOME names another.
    """
    digest = hashlib.sha256()
    for part in made_of:
        digest.update(f"{len(part)}:{part}".encode())
    path = Path(platformdirs.user_cache_dir("convc")) / kind / digest.hexdigest()
    if path.is_file():
        return path.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            partial = path.with_suffix(f".{os.getpid()}.partial")
            partial.write_bytes(make())
            partial.replace(path)
    return path.read_bytes()
