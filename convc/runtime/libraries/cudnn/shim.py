"""The shim's machine code: compiled by g++ against tvm_ffi's headers when a module with cuDNN in it is exported."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from convc.runtime.libraries.cudnn.description import CALL
from convc.runtime.libraries.shim import compiled, forwarders

__all__ = ["NATIVE", "compile_shim", "objects_for"]

NATIVE: Final = Path(__file__).parent / "native"


def objects_for(code: bytes) -> tuple[bytes, ...]:
    """Return the object files that a module's host code needs to call cuDNN.

    Args:
        code: the contents of its object file.

    Raises:
        ToolchainError, LoweringError: as `compile_shim`.
    """
    text = forwarders(code, CALL)
    return (
        (compile_shim(), compiled("cuDNN", NATIVE, ("-c",), text=text))
        if text
        else (compile_shim(),)
    )


@cache
def compile_shim(options: Sequence[str] = ("-c",), source: str = "shim.cc") -> bytes:
    """Return the shim's object file; 3 s, once in a process.

    Args:
        options: of g++; a shared library instead with ("-shared",).
        source: another file that includes the shim.

    Raises:
        ToolchainError: if there is no g++.
        LoweringError: if it refuses the shim.
    """
    # The shim's own headers lie beside it: no path is needed, and none gets into the object.
    more = () if source == "shim.cc" else (f"-I{NATIVE}",)
    return compiled("cuDNN", NATIVE, (*options, *more), source)
