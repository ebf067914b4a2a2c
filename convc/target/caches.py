"""The data caches of the machine that this process runs on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

__all__ = ["host_caches"]

# Linux lists the caches that the first core sees. Python's os.sysconf knows the C library's names for them on no system.
_FOLDER: Final = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def host_caches(folder: Path = _FOLDER) -> dict[int, int]:
    """Return the bytes of each level's data or unified cache; empty where the system does not tell.

    Example:
        >>> host_caches(Path("no such folder"))
        {}
    """
    found: dict[int, int] = {}
    for index in sorted(folder.glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))  # fmt: skip
        except OSError:
            continue
        written = re.fullmatch(r"(\d+)([KMG]?)", size)
        if kind != "Instruction" and level.isdigit() and written:
            found[int(level)] = int(written[1]) * _UNITS[written[2]]
    return {level: size for level, size in found.items() if size}
