"""The kernels of CUTLASS as object files: each instance compiled once on a machine, all that a module needs joined with CUDA's runtime.

nvcc takes 45 s of one core and 3.6 GB for an instance (2026-11, nvcc 13.0). They are kept in the user's cache folder by the contents of
everything that they are made of, so that a second model, or a tuner's second trial, has them at once.

What is joined: the kernels' host code, which launches through CUDA's runtime, and that runtime from its archive, none of whose names are
seen outside. A module with CUTLASS in it needs the driver to run, as one without.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Final

from convc.errors import LoweringError, ToolchainError
from convc.object_cache import kept
from convc.runtime.libraries.cutlass import (
    NATIVE,
    Kernel,
    compile_shim,
    compile_table,
    require_cutlass,
)
from convc.schedules.backend import Progress
from convc.schedules.cuda import nvcc
from convc.target import Gpu

__all__ = [
    "BIAS",
    "KERNEL",
    "OPTIONS",
    "architectures",
    "compile_kernel",
    "kernel_objects",
    "objects_for",
]

# A function's attributes: the name of the kernel that it calls, and which of its parameters is the bias.
KERNEL: Final = "convc.cutlass.kernel"
BIAS: Final = "convc.cutlass.bias"

# NDEBUG: with assertions in it, ptxas cannot see that no function is called between two wgmma and waits after each (its note C7510).
OPTIONS: Final = ("-O1", "-DNDEBUG", "--expt-relaxed-constexpr")
_KERNEL_BYTES: Final = 4 << 30
# How often the wait for them looks whether it was interrupted, in seconds.
_LOOK: Final = 0.1


def objects_for(
    functions: Sequence[Any], code: bytes, gpu: Gpu, progress: Progress
) -> tuple[bytes, ...]:
    """Return the object files that a module's host code needs to call CUTLASS.

    Args:
        functions: those of the module that call it.
        code: the contents of the host code's object file.
        gpu: the device.
        progress: called with (kernels done, all of them, which one nvcc begins or has done).

    Raises:
        ToolchainError: if headers, nvcc or g++ are missing.
        LoweringError: if a compiler refuses a source.
    """
    kernels = sorted({_called(f) for f in functions}, key=lambda k: k.name)
    return (
        *kernel_objects(kernels, gpu, progress),
        compile_shim(),
        compile_table(kernels, code),
    )


def _called(function: Any) -> Kernel:
    kernel = Kernel.parse(str(function.attrs[KERNEL]))
    if BIAS not in function.attrs:
        return kernel
    # The type that it is stored in: a bias of a model in half precision may have stayed float32.
    dtype = str(function.params[int(function.attrs[BIAS])].dtype)
    return kernel.with_bias("float32") if dtype == "float32" else kernel


def architectures(kernel: Kernel, gpu: Gpu) -> tuple[str, ...]:
    """Return what a kernel is compiled for, in nvcc's words: wgmma and TMA are of 9.0a alone."""
    if kernel.form == "ampere":
        return tuple(nvcc.generate(gpu))
    return tuple(nvcc.hopper_alone())


def kernel_objects(kernels: Sequence[Kernel], gpu: Gpu, progress: Progress) -> tuple[bytes, ...]:
    """Return one object file with the kernels' functions and CUDA's runtime, whose names are its own.

    Ctrl-C and a kernel that fails end every nvcc that runs for it.
    """
    require_cutlass()
    cudart = nvcc.static_cudart()
    told, stop = _Told(progress, len(kernels)), threading.Event()
    with ThreadPoolExecutor(_workers(len(kernels))) as pool:
        running = [pool.submit(compile_kernel, k, gpu, told, stop) for k in kernels]
        try:
            # In short waits: TVM's code generator leaves Python's handler of Ctrl-C so that a long one would go on (SA_RESTART).
            left: set[Future[bytes]] = set(running)
            while left:
                done, left = wait(left, _LOOK, FIRST_EXCEPTION)
                for each in done:
                    each.result()
        finally:
            stop.set()
            for each in running:
                each.cancel()
    parts = [each.result() for each in running]
    return (_joined(parts, [k.symbol for k in kernels], cudart),)


class _Told:
    """How far the kernels are, said from several threads one at a time."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self._lock = threading.Lock()
        progress(0, total, "")

    def began(self, name: str) -> None:
        with self._lock:
            self._progress(self._done, self._total, f"nvcc compiles {name}")

    def ended(self, name: str, seconds: float | None) -> None:
        """Say that a kernel is there: compiled in so many seconds, or from the cache."""
        took = "was compiled before" if seconds is None else f"took nvcc {seconds:.0f} s"
        with self._lock:
            self._done += 1
            self._progress(self._done, self._total, f"{name} {took}")


def _workers(kernels: int) -> int:
    """Return how many nvcc run side by side: as many as there are cores and memory for."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(kernels, len(os.sched_getaffinity(0)), memory // _KERNEL_BYTES))


def compile_kernel(
    kernel: Kernel, gpu: Gpu, told: _Told | None = None, stop: threading.Event | None = None
) -> bytes:
    """Return a kernel's object file, from the cache where it was compiled before.

    Args:
        kernel: the instance.
        gpu: the device.
        told: is told when nvcc begins, and when the file is there.
        stop: set by another thread to end nvcc, or the wait for another process that compiles the same.

    Raises:
        ToolchainError: if headers or nvcc are missing.
        LoweringError: if nvcc refuses it.
        CancelledError: if it was stopped.
    """
    headers = require_cutlass()
    codes = architectures(kernel, gpu)
    folders = (NATIVE, *headers.folders)
    words = nvcc.object_options(codes, OPTIONS)
    made_of = (kernel.source, *words, nvcc.version(), *map(_contents, folders))
    seconds: list[float] = []

    def make() -> bytes:
        if told is not None:
            told.began(kernel.name)
        began = time.perf_counter()
        made = nvcc.compile_object(kernel.source, codes, folders, OPTIONS, stop)
        seconds.append(time.perf_counter() - began)
        return made

    content = kept("cutlass", made_of, make, stop)
    if told is not None:
        told.ended(kernel.name, seconds[0] if seconds else None)
    return content


@functools.cache
def _contents(folder: Path) -> str:
    """Return a hash of all headers below a folder: 0.1 s for CUTLASS's 25 MB."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".h", ".hpp", ".inl", ".cuh"):
            content = file.read_bytes()
            digest.update(f"{file.relative_to(folder)}:{len(content)}:".encode() + content)
    return digest.hexdigest()


def _joined(parts: Sequence[bytes], symbols: Sequence[str], archive: Path) -> bytes:
    """Return the objects and what they need of the archive as one object, in which only the symbols are global."""
    driver = shutil.which("g++")
    if driver is None:
        raise ToolchainError(
            "a module with CUTLASS in it must find the compiler 'g++'; got none on PATH. Install it with `apt-get install g++`."
        )
    with tempfile.TemporaryDirectory(prefix="convc-") as name:
        folder = Path(name)
        files = []
        for index, part in enumerate(parts):
            files.append(f"kernel{index}.o")
            (folder / files[-1]).write_bytes(part)
        # Inline functions come in groups, of which the linker keeps one among all objects; those here are nobody else's.
        _run([driver, "-r", "-nostdlib", "-Wl,--force-group-allocation", "-o", "joined.o", *files, str(archive)], folder)  # fmt: skip
        objcopy = _run([driver, "-print-prog-name=objcopy"], folder).strip()
        keep = [f"--keep-global-symbol={symbol}" for symbol in symbols]
        _run([objcopy, *keep, "joined.o"], folder)
        return (folder / "joined.o").read_bytes()


def _run(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        shown = " ".join([Path(command[0]).name, *command[1:]])
        raise LoweringError(f"`{shown}` must succeed; got exit code {done.returncode}:\n{done.stderr.strip()[:4000]}")  # fmt: skip
    return done.stdout
