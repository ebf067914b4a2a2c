"""The shim's machine code: compiled by g++ against tvm_ffi's headers when a module with cuDNN in it is exported."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import tvm_ffi

from convc.errors import LoweringError, ToolchainError
from convc.runtime.libraries.cudnn.description import CALL

__all__ = ["NATIVE", "compile_shim", "forwarders", "objects_for"]

NATIVE: Final = Path(__file__).parent / "native"
# Hidden but for the entries, and nothing unique in a process: another module's copy must not be taken for this one's.
_FLAGS: Final = (
    "-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-fvisibility-inlines-hidden", "-fno-gnu-unique",
)  # fmt: skip


def forwarders(code: bytes) -> str:
    """Return C++ that forwards each numbered name of the shim in an object file, as TVM declares one function anew for every call of it.

    Example:
        >>> print(forwarders(b"__tvm_ffi_main __tvm_ffi_convc_cudnn __tvm_ffi_convc_cudnn.7 "), end="")
        extern "C" int __tvm_ffi_convc_cudnn(void*, const void*, int, void*);
        extern "C" __attribute__((visibility("hidden"))) int forward0(void*, const void*, int, void*) __asm__("__tvm_ffi_convc_cudnn.7");
        int forward0(void* a, const void* b, int c, void* d) { return __tvm_ffi_convc_cudnn(a, b, c, d); }
    """
    names = sorted(set(re.findall(rb"\b%b\.\d+" % CALL.encode(), code)))
    parameters = "(void*, const void*, int, void*)"
    lines = [f'extern "C" int {CALL}{parameters};\n'] if names else []
    for number, name in enumerate(map(bytes.decode, names)):
        hidden = '__attribute__((visibility("hidden")))'
        lines.append(f'extern "C" {hidden} int forward{number}{parameters} __asm__("{name}");\n')
        body = f"{{ return {CALL}(a, b, c, d); }}"
        lines.append(f"int forward{number}(void* a, const void* b, int c, void* d) {body}\n")
    return "".join(lines)


def objects_for(code: bytes) -> tuple[bytes, ...]:
    """Return the object files that a module's host code needs to call cuDNN.

    Args:
        code: the contents of its object file.

    Raises:
        ToolchainError, LoweringError: as `compile_shim`.
    """
    text = forwarders(code)
    return (
        (compile_shim(), _compiled(text.encode(), ("-c", "-x", "c++"), "-"))
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
    return _compiled(None, (*options, *more), source)


def _compiled(text: bytes | None, options: tuple[str, ...], source: str) -> bytes:
    driver = shutil.which("g++")
    if driver is None:
        raise ToolchainError(
            "a module with cuDNN in it must find the compiler 'g++'; got none on PATH. Install it with `apt-get install g++`."
        )
    include = f"-I{tvm_ffi.libinfo.find_include_path()}"
    with tempfile.TemporaryDirectory(prefix="convc-") as folder:
        output = Path(folder) / "shim.o"
        # By a relative name from its own folder: no path of this machine gets into the object.
        command = [driver, *_FLAGS, *options, include, source, "-o", str(output)]
        done = subprocess.run(command, cwd=NATIVE, input=text, capture_output=True, check=False)
        if done.returncode:
            raise LoweringError(
                f"`g++ {source}` must succeed; got:\n{done.stderr.decode(errors='replace').strip()[:4000]}"
            )
        return output.read_bytes()
