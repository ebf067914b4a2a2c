"""Where CUTLASS's headers are: CONVC_CUTLASS_PATH, or the package nvidia-cutlass; needed where a model is compiled, not where it runs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from convc.errors import ToolchainError

__all__ = ["VARIABLE", "Headers", "find_cutlass", "require_cutlass"]

VARIABLE: Final = "CONVC_CUTLASS_PATH"
# Of the templates in `native`: fusion with a bias of each channel and a convolution of sm_90 came with 3.8, asymmetric pads with 4.0.
_LEAST: Final = (4, 0)
_VERSION: Final = "include/cutlass/version.h"


@dataclass(frozen=True, slots=True)
class Headers:
    """CUTLASS's source tree: `include` and `tools/util/include` below `root`."""

    root: Path
    version: tuple[int, int, int]

    @property
    def folders(self) -> tuple[Path, Path]:
        """What nvcc is given with -I."""
        return self.root / "include", self.root / "tools/util/include"

    @property
    def problem(self) -> str:
        """Why modules cannot be built with them, "" if they can."""
        if self.version >= _LEAST:
            return ""
        return f"CUTLASS must be version {'.'.join(map(str, _LEAST))} or newer; got {self}"

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.version))}, {self.root}"


def _places() -> Iterator[Path]:
    for entry in map(Path, sys.path):
        yield entry / "cutlass_library" / "source"


def find_cutlass() -> Headers | None:
    """Return where CUTLASS is, None without it.

    Raises:
        ToolchainError: if the variable names a folder that is not CUTLASS's.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not (Path(named) / _VERSION).is_file():
            raise ToolchainError(
                f"{VARIABLE} must name CUTLASS's folder, with {_VERSION} in it; got '{named}'."
            )
        return _headers(Path(named))
    return next((_headers(p) for p in _places() if (p / _VERSION).is_file()), None)


def require_cutlass() -> Headers:
    """Return where CUTLASS is.

    Raises:
        ToolchainError: if there is none, or one that is too old; the message says how to get it.
    """
    found = find_cutlass()
    if found is None:
        raise ToolchainError(
            f"building a module with CUTLASS in it must find its headers; got none in {VARIABLE} or in the package nvidia-cutlass. "
            "Install them with `pip install 'convc[cutlass]'`, or compile the model with another algorithm. "
            "Where the module runs, nothing of CUTLASS is needed."
        )
    if found.problem:
        raise ToolchainError(
            f"{found.problem}. Modules with it must be built with newer headers: `pip install --upgrade 'convc[cutlass]'`."
        )
    return found


def _headers(root: Path) -> Headers:
    text = (root / _VERSION).read_text()
    numbers = [re.search(rf"#define CUTLASS_{part}\s+(\d+)", text) for part in ("MAJOR", "MINOR", "PATCH")]  # fmt: skip
    major, minor, patch = (int(n[1]) if n else 0 for n in numbers)
    return Headers(root, (major, minor, patch))
