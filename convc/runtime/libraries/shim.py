"""What the shims of all libraries share: C++ against tvm_ffi's headers, compiled when a module with a library in it is exported."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import tvm_ffi

from convc.errors import LoweringError, ToolchainError

__all__ = ["compiled", "forwarders"]

# Hidden but for the entries, and nothing unique in a process: another module's copy must not be taken for this one's.
_FLAGS: Final = (
    "-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-fvisibility-inlines-hidden", "-fno-gnu-unique",
)  # fmt: skip


def forwarders(code: bytes, call: str) -> str:
    """Return C++ that forwards each numbered name of a shim in an object file, as TVM declares one function anew for every call of it.

    Args:
        code: the contents of an object file.
        call: the shim's symbol.

    Example:
        >>> print(forwarders(b"__tvm_ffi_main __tvm_ffi_lib __tvm_ffi_lib.7 ", "__tvm_ffi_lib"), end="")
        extern "C" int __tvm_ffi_lib(void*, const void*, int, void*);
        extern "C" __attribute__((visibility("hidden"))) int forward0(void*, const void*, int, void*) __asm__("__tvm_ffi_lib.7");
        int forward0(void* a, const void* b, int c, void* d) { return __tvm_ffi_lib(a, b, c, d); }
    """
    names = sorted(set(re.findall(rb"\b%b\.\d+" % call.encode(), code)))
    parameters = "(void*, const void*, int, void*)"
    lines = [f'extern "C" int {call}{parameters};\n'] if names else []
    for number, name in enumerate(map(bytes.decode, names)):
        hidden = '__attribute__((visibility("hidden")))'
        lines.append(f'extern "C" {hidden} int forward{number}{parameters} __asm__("{name}");\n')
        body = f"{{ return {call}(a, b, c, d); }}"
        lines.append(f"int forward{number}(void* a, const void* b, int c, void* d) {body}\n")
    return "".join(lines)


def compiled(
    library: str, folder: Path, options: Sequence[str], source: str = "-", text: str | None = None
) -> bytes:
    """Return what g++ makes of a shim's source.

    Args:
        library: its name in messages.
        folder: where the source and its headers lie, and what their names are relative to: no path of this machine gets into the object.
        options: of g++; `-c` for an object file, `-shared` for a library.
        source: the file.
        text: the source itself, in place of a file.

    Raises:
        ToolchainError: if there is no g++.
        LoweringError: if it refuses the source.
    """
    driver = shutil.which("g++")
    if driver is None:
        raise ToolchainError(
            f"a module with {library} in it must find the compiler 'g++'; got none on PATH. Install it with `apt-get install g++`."
        )
    include = f"-I{tvm_ffi.libinfo.find_include_path()}"
    given = () if text is None else ("-x", "c++")
    with tempfile.TemporaryDirectory(prefix="convc-") as name:
        output = Path(name) / "shim.o"
        command = [driver, *_FLAGS, *options, *given, include, source, "-o", str(output)]
        done = subprocess.run(
            command,
            cwd=folder,
            input=None if text is None else text.encode(),
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise LoweringError(
                f"`g++ {source}` must succeed; got:\n{done.stderr.decode(errors='replace').strip()[:4000]}"
            )
        return output.read_bytes()
