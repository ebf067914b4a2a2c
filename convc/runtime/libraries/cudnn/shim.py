"""The shim's machine code: compiled by g++ against tvm_ffi's headers when a module with cuDNN in it is exported."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import tvm_ffi

from convc.errors import LoweringError, ToolchainError

__all__ = ["NATIVE", "compile_shim"]

NATIVE: Final = Path(__file__).parent / "native"
# Hidden but for the two entries: another module's copy must not be taken for this one's.
_FLAGS: Final = ("-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-fvisibility-inlines-hidden")


@cache
def compile_shim(options: Sequence[str] = ("-c",)) -> bytes:
    """Return the shim's object file; 3 s, once in a process.

    Args:
        options: of g++; a shared library instead with ("-shared",).

    Raises:
        ToolchainError: if there is no g++.
        LoweringError: if it refuses the shim.
    """
    driver = shutil.which("g++")
    if driver is None:
        raise ToolchainError(
            "a module with cuDNN in it must find the compiler 'g++'; got none on PATH. Install it with `apt-get install g++`."
        )
    include = f"-I{tvm_ffi.libinfo.find_include_path()}"
    with tempfile.TemporaryDirectory(prefix="convc-") as folder:
        output = Path(folder) / "shim.o"
        # By a relative name from its own folder: no path of this machine gets into the object.
        command = [driver, *_FLAGS, *options, include, "shim.cc", "-o", str(output)]
        done = subprocess.run(command, cwd=NATIVE, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LoweringError(f"`g++ shim.cc` must succeed; got:\n{done.stderr.strip()[:4000]}")
        return output.read_bytes()
