"""The double of cuDNN (double.cpp), built at first use."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from convc.runtime.libraries.cudnn.shim import NATIVE

__all__ = ["build_double"]


def build_double(version: int = 92800, options: Sequence[str] = ()) -> Path:
    """Return the double's shared library, built at first use of its source; `options` of g++."""
    source = Path(__file__).parent / "double.cpp"
    key = hashlib.sha256(
        source.read_bytes()
        + (NATIVE / "abi.h").read_bytes()
        + " ".join((str(version), *options)).encode()
    ).hexdigest()[:16]
    output = Path(tempfile.gettempdir()) / f"convc-cudnn-double-{os.getuid()}-{key}.so"
    if not output.exists():
        command = ["g++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-fPIC", "-shared",
                   f"-DCUDNN_DOUBLE_VERSION={version}", f"-I{NATIVE}", *options, str(source), "-o"]  # fmt: skip
        partial = output.with_suffix(f".{os.getpid()}")
        subprocess.run([*command, str(partial)], check=True)
        partial.replace(output)
    return output
