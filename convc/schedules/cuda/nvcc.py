"""CUDA C to machine code by nvcc: for every capability asked for, at compile time, never when a module is loaded.

nvcc is asked for exact arithmetic: no --use_fast_math, which TVM's own call adds. FMA contraction stays on, as in every other target.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from convc.errors import LoweringError, ToolchainError
from convc.schedules.cuda import wgmma
from convc.schedules.cuda.compiler_run import run
from convc.target import Gpu

__all__ = ["Resources", "compile_object", "compile_source", "find_nvcc", "generate", "hopper_alone", "object_options", "ptxas_words", "resources", "static_cudart", "version"]  # fmt: skip

# Where CUDA's own packages put it; PATH goes first.
_PLACES: Final = ("/usr/local/cuda/bin/nvcc", "/opt/cuda/bin/nvcc")


@dataclass(frozen=True, slots=True)
class Resources:
    """What one kernel takes, as ptxas says.

    Attributes:
        registers: of a thread.
        shared_bytes: of a block, known at compile time.
        stack_bytes, spill_bytes: local memory of a thread; spills are registers that did not fit.
    """

    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int


def find_nvcc() -> Path | None:
    """Return nvcc's file: from PATH, CUDA_HOME, or where CUDA's packages put it."""
    home = os.environ.get("CUDA_HOME")
    named = [shutil.which("nvcc"), f"{home}/bin/nvcc" if home else None, *_PLACES]
    return next((Path(p) for p in named if p and Path(p).is_file()), None)


def _nvcc() -> Path:
    path = find_nvcc()
    if path is None:
        raise ToolchainError(
            "building for cuda must find nvcc; got none on PATH, in CUDA_HOME or in /usr/local/cuda. "
            "Install CUDA's compiler, version 13: apt-get install cuda-nvcc-13-0, or `pip install nvidia-cuda-nvcc`."
        )
    return path


@functools.cache
def _supported(nvcc: Path) -> frozenset[int]:
    shown = subprocess.run(
        [str(nvcc), "--list-gpu-code"], capture_output=True, text=True, check=False, timeout=60
    )
    return frozenset(int(n) for n in re.findall(r"sm_(\d+)\b", shown.stdout))


def generate(gpu: Gpu) -> list[str]:
    """Return nvcc's words for machine code for all of a target's capabilities, and PTX of the least one if it asks for that."""
    codes = [f"-gencode=arch=compute_{sm},code=sm_{sm}" for sm in gpu.every_sm]
    if gpu.ptx:
        least = min(gpu.every_sm)
        codes.append(f"-gencode=arch=compute_{least},code=compute_{least}")
    return codes


def hopper_alone() -> list[str]:
    """Return nvcc's words for machine code with wgmma and TMA, which is of 9.0a alone."""
    return [f"-gencode=arch=compute_{wgmma.ARCHITECTURE},code=sm_{wgmma.ARCHITECTURE}"]


def compile_source(source: str, gpu: Gpu) -> bytes:
    """Return a fat binary of CUDA C for all of a target's capabilities; with wgmma in it, of which there is one, for 9.0a.

    Raises:
        ToolchainError: if there is no nvcc, or it does not know a capability.
        LoweringError: if nvcc refuses the source, which is a bug in convc.
    """
    nvcc = _nvcc()
    unknown = [sm for sm in gpu.every_sm if sm not in _supported(nvcc)]
    if unknown:
        known = ", ".join(map(str, sorted(_supported(nvcc))))
        raise ToolchainError(f"sm must be one of nvcc's ({nvcc}): {known}; got {unknown[0]}.")
    codes = generate(gpu)
    if wgmma.needs_architecture(source):
        if not gpu.warpgroups:
            raise LoweringError(f"wgmma must be compiled for sm 90 alone, without PTX; got sm {', '.join(map(str, gpu.every_sm))}{' and PTX' if gpu.ptx else ''}.")  # fmt: skip
        codes = hopper_alone()
    flags = ["--use_fast_math"] if gpu.fast_math else []
    with tempfile.TemporaryDirectory(prefix="convc-") as name:
        folder = Path(name)
        (folder / "kernels.cu").write_text(source)
        _run([str(nvcc), "-fatbin", "-O3", *codes, *flags, "kernels.cu", "-o", "out"], folder)
        return (folder / "out").read_bytes()


def object_options(codes: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    """Return all that `compile_object` tells nvcc but where files are: with the source and the headers it decides about the object."""
    hidden = "-Xcompiler=-fPIC,-fvisibility=hidden,-fvisibility-inlines-hidden,-fno-gnu-unique"
    return ["-c", "-std=c++17", *codes, hidden, *options]


def compile_object(
    source: str,
    codes: Sequence[str],
    folders: Sequence[Path],
    options: Sequence[str] = (),
    stop: threading.Event | None = None,
) -> bytes:
    """Return a relocatable object file of CUDA C++ with host code in it, everything hidden, for a shared library.

    Args:
        source: its text.
        codes: architectures in nvcc's words, see `generate`.
        folders: of headers.
        options: more for nvcc.
        stop: set by another thread to end nvcc.

    Raises:
        ToolchainError: if there is no nvcc.
        LoweringError: if nvcc refuses the source.
        CancelledError: if it was stopped.
    """
    with tempfile.TemporaryDirectory(prefix="convc-") as name:
        folder = Path(name)
        (folder / "kernel.cu").write_text(source)
        includes = [f"-I{f}" for f in folders]
        words = [*object_options(codes, options), *includes, "kernel.cu", "-o", "out.o"]
        _run([str(_nvcc()), *words], folder, stop)
        return (folder / "out.o").read_bytes()


@functools.cache
def version() -> str:
    """Return what nvcc says about itself."""
    shown = subprocess.run([str(_nvcc()), "--version"], capture_output=True, text=True, check=False, timeout=60)  # fmt: skip
    return shown.stdout


@functools.cache
def static_cudart() -> Path:
    """Return CUDA's runtime as an archive, from beside nvcc: what nvcc's host code calls; it needs the driver alone.

    Raises:
        ToolchainError: if it is not there.
    """
    asked = [str(_nvcc()), "-dryrun", "-x", "cu", "-c", os.devnull]
    shown = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    folders = [Path(f) for f in re.findall(r'"-L([^"]+)"', shown.stderr)]
    for folder in folders:
        if (file := folder / "libcudart_static.a").is_file():
            return file.resolve()
    raise ToolchainError(
        f"nvcc must have libcudart_static.a beside it; got none in {', '.join(map(str, folders)) or 'any folder'}. "
        "Install it: apt-get install cuda-cudart-dev-13-0, or `pip install nvidia-cuda-runtime`."
    )


def resources(source: str, sm: int) -> dict[str, Resources]:
    """Return what every kernel of a source takes on one capability; with wgmma in it, on 9.0a."""
    code = wgmma.ARCHITECTURE if wgmma.needs_architecture(source) else str(sm)
    return parse_resources(ptxas_words(source, code, ("-O3",)))


def ptxas_words(source: str, code: str, options: Sequence[str]) -> str:
    """Return what ptxas says about the kernels of a source on one architecture, by nvcc's name for it, as in "90a"."""
    with tempfile.TemporaryDirectory(prefix="convc-") as name:
        folder = Path(name)
        (folder / "kernels.cu").write_text(source)
        generate = f"-gencode=arch=compute_{code},code=sm_{code}"
        return _run([str(_nvcc()), "-cubin", generate, "-Xptxas", "-v", *options, "kernels.cu", "-o", "out"], folder)  # fmt: skip


def parse_resources(text: str) -> dict[str, Resources]:
    """Return kernel name -> resources from ptxas' messages.

    Example:
        >>> text = '''ptxas info    : Compiling entry function 'k' for 'sm_90'
        ... ptxas info    : Function properties for k
        ...     8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
        ... ptxas info    : Used 40 registers, used 1 barriers, 8192 bytes smem'''
        >>> parse_resources(text)
        {'k': Resources(registers=40, shared_bytes=8192, stack_bytes=8, spill_bytes=16)}
    """
    found = {}
    for part in text.split("Compiling entry function '")[1:]:
        used = re.search(r"Used (\d+) registers", part)
        frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part)  # fmt: skip
        shared = re.search(r"(\d+) bytes smem", part)
        if used and frame:
            stack, stores, loads = map(int, frame.groups())
            found[part.partition("'")[0]] = Resources(
                int(used[1]), int(shared[1]) if shared else 0, stack, stores + loads
            )
    return found


def _run(command: list[str], folder: Path, stop: threading.Event | None = None) -> str:
    done = run(command, folder, stop)
    if done.returncode:
        raise LoweringError(
            f"`{' '.join([Path(command[0]).name, *command[1:]])}` must succeed; got exit code {done.returncode}:\n"
            f"{(done.stderr or done.stdout).strip()[:4000]}"
        )
    return done.stderr
