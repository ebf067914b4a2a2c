"""Which name a module's file is given to the dynamic loader by.

The loader takes a name that it knows for the library that it has: a file that was compiled anew at the same path, while a module of the old
one is alive, would run the old code on the new weights. Such a file is loaded through a link of another name; the loader then
looks at the file itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["loadable_name"]

# Path -> (device, inode) of what this process loaded from there first. A file that is still mapped keeps its inode.
_FIRST: dict[str, tuple[int, int]] = {}


@contextmanager
def loadable_name(path: Path) -> Iterator[str]:
    """Yield the name to load the file at `path` by: its own, or that of a link which lives as long as the context."""
    name, found = str(path.absolute()), os.stat(path)
    identity = found.st_dev, found.st_ino
    if _FIRST.setdefault(name, identity) == identity:
        yield name
        return
    with TemporaryDirectory(prefix="convc-") as folder:
        link = Path(folder) / path.name
        link.symlink_to(name)
        yield str(link)
