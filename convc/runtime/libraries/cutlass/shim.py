"""The shim's machine code: compiled by g++ when a module with CUTLASS in it is exported, beside the kernels that nvcc made."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from convc.runtime.libraries.cutlass.description import CALL
from convc.runtime.libraries.cutlass.kernels import Kernel, table
from convc.runtime.libraries.shim import compiled, forwarders

__all__ = ["NATIVE", "compile_shim", "compile_table"]

NATIVE: Final = Path(__file__).parent / "native"


@cache
def compile_shim() -> bytes:
    """Return the shim's object file; 2 s, once in a process.

    Raises:
        ToolchainError: if there is no g++.
        LoweringError: if it refuses the shim.
    """
    return compiled("CUTLASS", NATIVE, ("-c",), "shim.cc")


def compile_table(kernels: list[Kernel], code: bytes) -> bytes:
    """Return the object file with the table of a module's kernels, and with what forwards calls in its host code to the shim.

    Args:
        kernels: all of them.
        code: the contents of the host code's object file.
    """
    text = table(kernels) + forwarders(code, CALL)
    return compiled("CUTLASS", NATIVE, ("-c", "-I."), text=text)
