"""CUDA's own headers, which the doubles' and the shims' declarations are compared with."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

__all__ = ["toolkit_headers"]


def toolkit_headers() -> Path:
    """Return the folder of cuda.h; where there is no CUDA toolkit the calling test is skipped."""
    nvcc = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), nvcc and Path(nvcc).parents[1], "/usr/local/cuda"]
    for home in homes:
        if home and (Path(home) / "include" / "cuda.h").exists():
            return Path(home) / "include"
    pytest.skip(
        "declarations are compared with cuda.h; there is none here, and CUDA_HOME names no toolkit"
    )
