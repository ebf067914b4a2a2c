"""Where cuDNN is: an argument, CONVC_CUDNN_PATH, the package nvidia-cudnn-cu13, the system's loader; in this order."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from convc.errors import ToolchainError

__all__ = ["VARIABLE", "find_cudnn", "prepare"]

# Read by the shim as well, so that a program without Python can say where cuDNN is.
VARIABLE: Final = "CONVC_CUDNN_PATH"
_FILE: Final = "libcudnn.so.9"


def _places() -> Iterator[str]:
    for entry in map(Path, sys.path):
        yield from map(str, entry.glob(f"nvidia/cudnn/lib/{_FILE}"))
    yield _FILE


def find_cudnn(path: str | os.PathLike[str] | None = None) -> str | None:
    """Return cuDNN's file, or the name that the system's loader knows; None without one.

    Args:
        path: the library's file, or the folder it is in.

    Raises:
        ToolchainError: if the argument or the variable names something that is no library.
    """
    named = os.fspath(path) if path is not None else os.environ.get(VARIABLE)
    if named:
        file = Path(named) / _FILE if Path(named).is_dir() else Path(named)
        try:
            ctypes.CDLL(str(file))
        except OSError as error:
            origin = "cudnn" if path is not None else VARIABLE
            raise ToolchainError(
                f"{origin} must name cuDNN 9's library or its folder; got '{named}': {error}."
            ) from None
        return str(file)
    for candidate in _places():
        try:
            ctypes.CDLL(candidate)
        except OSError:
            continue
        return candidate
    return None


def prepare(path: str | os.PathLike[str] | None = None) -> str:
    """Return cuDNN's file after telling it to the shims of this process; to be called before a module with cuDNN in it runs.

    Raises:
        ToolchainError: if there is none, or one that is not cuDNN 9; the message says how to get it.
    """
    found = find_cudnn(path)
    if found is None:
        raise ToolchainError(
            f"a module with cuDNN in it must find {_FILE}; got none in {VARIABLE}, in the package nvidia-cudnn-cu13 or on the "
            "loader's path. Install it with `pip install nvidia-cudnn-cu13`, or compile the model with --cudnn off."
        )
    get_version = ctypes.CDLL(found).cudnnGetVersion
    get_version.restype = ctypes.c_size_t
    # Up to cuDNN 8 a version was major * 1000 + minor * 100 + patch.
    if (version := get_version()) // 10000 != 9:
        major = version // 10000 or version // 1000
        raise ToolchainError(
            f"cuDNN must be version 9; got version {major} ({version}) in '{found}'. "
            "Install it with `pip install nvidia-cudnn-cu13`."
        )
    os.environ[VARIABLE] = found
    return found
