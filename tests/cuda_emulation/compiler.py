"""g++ for the doubles and for translated kernels, each result kept by the hash of all that went into it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Final

from tests.cuda_emulation.translate import translate

__all__ = ["CompileError", "compile_kernels", "device_library"]

NATIVE: Final = Path(__file__).parent / "native"
_CXX: Final = os.environ.get("CXX", "g++")
_COMMON: Final = (
    "-std=c++17",
    "-fPIC",
    "-fno-strict-aliasing",
    "-fwrapv",
    "-ffp-contract=off",
    "-shared",
)
# Checks of indices, of alignment and of the stack's end, and garbage in what a kernel reads before it writes it: a tenth of the time.
_KERNEL_FLAGS: Final = (
    "-O1",
    "-w",
    "-fsanitize=bounds,alignment",
    "-fsanitize-undefined-trap-on-error",
    "-fstack-clash-protection",
    "-ftrivial-auto-var-init=pattern",
)
_DEVICE_SOURCES: Final = (
    "engine.cpp",
    "shared_memory.cpp",
    "device_memory.cpp",
    "tensor_core.cpp",
    "entry_points.cpp",
    "driver_entry_points.cpp",
)
_KEEP_SECONDS: Final = 7 * 24 * 3600


class CompileError(RuntimeError):
    """g++ refused the translated kernels."""


@cache
def _folder() -> Path:
    """Return the folder of compiled files, without those that nobody wanted for a week."""
    default = Path(tempfile.gettempdir()) / f"convc-cuda-emulation-{os.getuid()}"
    folder = Path(os.environ.get("CONVC_CUDA_EMULATION_CACHE", default))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_file() and time.time() - path.stat().st_mtime > _KEEP_SECONDS:
            path.unlink(missing_ok=True)
    return folder


@cache
def _headers_key() -> bytes:
    found = sorted(NATIVE.rglob("*"))
    return b"".join(p.read_bytes() for p in found if p.suffix in (".h", ".cpp"))


def _write(path: Path, text: str) -> None:
    """Write a file at once: another process may be compiling it."""
    partial = path.with_suffix(f".{os.getpid()}.text")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _run(command: list[str], output: Path) -> None:
    """Run g++ towards a name of its own, and put the result in place at once."""
    partial = output.with_suffix(f".{os.getpid()}.partial")
    done = subprocess.run(
        [*command, "-o", str(partial)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CompileError(f"{_CXX} failed:\n{done.stderr[:4000]}")
    partial.replace(output)


@cache
def _kernel_command() -> tuple[str, ...]:
    """Return g++ with the kernels' header precompiled, which saves two thirds of a small kernel's time."""
    includes = (f"-I{NATIVE}", f"-I{NATIVE / 'include'}")
    compile_only = (_CXX, *_COMMON[:-1], *_KERNEL_FLAGS, *includes)
    key = hashlib.sha256(_headers_key() + repr(compile_only).encode()).hexdigest()[:32]
    folder = _folder() / f"header-{key}"
    if not (folder / "kernel.h.gch").exists():
        folder.mkdir(exist_ok=True)
        _run([*compile_only, "-x", "c++-header", str(NATIVE / "kernel.h")], folder / "kernel.h.gch")
    return (_CXX, *_COMMON, *_KERNEL_FLAGS, f"-I{folder}", *includes)


def compile_kernels(source: str) -> bytes:
    """Return the ELF shared object that stands for the cubin of some CUDA C.

    Raises:
        CompileError: if g++ refuses it.
        UnknownInstructionError: if it holds PTX that is not emulated.
    """
    code = translate(source).code
    command = _kernel_command()
    key = hashlib.sha256(code.encode() + _headers_key() + repr(command).encode()).hexdigest()[:32]
    output = _folder() / f"{key}.so"
    if not output.exists():
        path = _folder() / f"{key}.cpp"
        _write(path, code)
        _run([*command, str(path)], output)
    output.touch()
    return output.read_bytes()


def device_library() -> tuple[Path, Path]:
    """Return the doubles of libcudart.so.13 and libcuda.so.1, built at first use."""
    command = [_CXX, *_COMMON, "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-psabi"]
    key = hashlib.sha256(_headers_key() + repr(command).encode()).hexdigest()[:32]
    folder = _folder() / f"device-{key}"
    runtime, driver = folder / "libcudart.so.13", folder / "libcuda.so.1"
    if not driver.exists():
        folder.mkdir(exist_ok=True)
        versions = folder / "versions.map"
        # The version that NVIDIA's library gives its symbols, which libtvm_runtime_cuda.so asks for.
        _write(versions, "libcudart.so.13 { global: *; };\n")
        sources = [str(NATIVE / name) for name in _DEVICE_SOURCES]
        _run(
            [
                *command,
                *sources,
                "-Wl,-soname,libcudart.so.13",
                f"-Wl,--version-script={versions}",
                "-ldl",
            ],
            runtime,
        )
        # Empty: it needs the other, where the driver's entry points are too.
        _run(
            [*command, "-x", "c++", os.devnull, "-x", "none", "-Wl,-soname,libcuda.so.1",
             "-Wl,--no-as-needed", str(runtime)],
            driver,
        )  # fmt: skip
    return runtime, driver
