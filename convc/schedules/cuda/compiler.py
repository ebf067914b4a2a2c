"""S-TIR to object files for a CUDA device: host code by LLVM, kernels by nvcc, both in one library.

TVM's pipeline would compile kernels only where a CUDA driver is installed, and with approximate arithmetic; elsewhere it puts their
source into the library, to be compiled when it is loaded. Here the pipeline always stops at the source, nvcc makes the machine code, and
the module that TVM's CUDA runtime will load is written with that in place of the source.

Rewrite (of the library's embedded module):
    "cuda", launch parameters of each kernel, source
    -->
    "cubin", launch parameters of each kernel, fat binary
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import tvm
import tvm_ffi
from tvm import tirx

from convc.errors import LoweringError, ToolchainError
from convc.runtime.libraries import cudnn
from convc.schedules.backend import Progress
from convc.schedules.cuda import cutlass_objects, nvcc
from convc.schedules.cuda.cluster import clustered
from convc.schedules.cuda.copies import own_copies
from convc.schedules.cuda.dependent_launch import begin_early, most_early_blocks
from convc.schedules.findings import note_scratch, one_function
from convc.target import Gpu, Target

__all__ = ["LIBRARY", "OPTIONS", "SHIMS", "build", "compile_objects", "pipeline", "source_of"]

_PIPELINE: Final = "convc.cuda"

# Loops stay loops in the source: nvcc unrolls what is marked, and needs a third of the time that it takes for written-out code.
OPTIONS: Final[dict[str, Any]] = {
    "tirx.UnrollLoop": {"explicit_unroll": 0},
    "tirx.use_async_copy": True,
}

# A function's attribute: the library whose shim it calls; and by that name, (the functions that call it, host code, device, progress) ->
# the objects that the host code needs.
LIBRARY: Final = "convc.library"
Shim = Callable[[Sequence[Any], bytes, Gpu, Progress], tuple[bytes, ...]]
SHIMS: Final[dict[str, Shim]] = {
    "cudnn": lambda functions, code, gpu, progress: cudnn.objects_for(code),
    "cutlass": cutlass_objects.objects_for,
}

# How TVM declares a kernel in its CUDA C, once before its body and once with it.
_KERNEL: Final = re.compile(r"__global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\(")

# The name and form of an embedded module are tvm_ffi's (module.h: tvm_ffi_library_bin): 8 bytes of size, then so many bytes.
_BLOB: Final = """\
    .section .rodata
    .globl __tvm_ffi__library_bin
    .balign 16
__tvm_ffi__library_bin:
    .incbin "library.bin"
    .section .note.GNU-stack, "", @progbits
"""


@contextlib.contextmanager
def _stop_at_source() -> Iterator[None]:
    """Keep TVM from calling a compiler of its own while a device or driver is present."""
    name = "TVM_COMPILE_FORCE_FALLBACK"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _note(statement: Any) -> Any:
    shape = math.prod(int(extent) for extent in statement.buffer.shape)
    note_scratch(shape * tvm.DataType(statement.buffer.dtype).itemsize)
    return statement


@tirx.transform.prim_func_pass(opt_level=0, name="convc.NoteWorkspace")
def _note_workspace(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: Any) -> tirx.PrimFunc:
    """Count what kernels of one function hand to each other: host code is left with allocations on the device only."""
    with one_function():
        tvm_ffi.structural_map(func.body, (tirx.AllocBuffer, _note))
    return func


def pipeline(gpu: Gpu) -> str:
    """Return the name of TVM's passes with ours between them."""
    return _registered(most_early_blocks(gpu))


@functools.cache
def _registered(early_blocks: float) -> str:
    base, host, device = tirx.get_tir_pipeline("s_tir")
    sequence = tvm.ir.transform.Sequential

    def made() -> tuple[Any, Any, Any]:
        ours = [own_copies, begin_early(early_blocks)]
        return base, lambda: sequence([_note_workspace, host()]), lambda: sequence([device(), *ours])  # fmt: skip

    # TVM takes only the name of a registered pipeline; the names are ours alone.
    name = f"{_PIPELINE}.{early_blocks}"
    tirx.register_tir_pipeline(name, made)
    return name


def build(mod: tvm.IRModule, target: Target) -> Any:
    """Return TVM's host module of scheduled functions; the source of their kernels is imported by it."""
    tvm_target = target.tvm()
    with _stop_at_source(), tvm_target, tvm.transform.PassContext(opt_level=3, config=OPTIONS):
        return tvm.compile(mod, target=tvm_target, tir_pipeline=pipeline(target.gpu)).mod


def source_of(module: Any) -> str:
    """Return the CUDA C of a module's kernels, as nvcc is to have it, "" if it has none."""
    return clustered(_printed(module))


def _printed(module: Any) -> str:
    """Return the CUDA C as TVM has it."""
    kernels = [m for m in module.imports if m.kind == "cuda"]
    return kernels[0].inspect_source("cuda") if kernels else ""


def compile_objects(mod: tvm.IRModule, target: Target, progress: Progress) -> tuple[bytes, ...]:
    """Return the contents of the object files of the host code and of the kernels.

    Raises:
        ToolchainError: if nvcc or g++ is missing, or does not know the target.
        LoweringError: if TVM writes modules in another form than expected.
    """
    host = build(mod, target)
    source = source_of(host)
    with tempfile.TemporaryDirectory(prefix="convc-") as name:
        folder = Path(name)
        host.write_to_file(str(folder / "host.o"))
        code = (folder / "host.o").read_bytes()
        calls = _Calls(progress)
        objects = [code, *_shims(mod, code, target.gpu, calls.library)]
        if source:
            count = len(set(_KERNEL.findall(source)))
            calls.own(0, f"nvcc compiles {count} kernels of the module's own")
            binary = nvcc.compile_source(source, target.gpu)
            calls.own(1, "")
            objects.append(_assembled(embed(_packed(host), _printed(host), binary), folder))
        return tuple(objects)


class _Calls:
    """How far other compilers are: a library's kernels, then the module's own."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._total = progress, 0

    def library(self, done: int, total: int, what: str) -> None:
        self._total = total
        self._progress(done, total + 1, what)

    def own(self, done: int, what: str) -> None:
        self._progress(self._total + done, self._total + 1, what)


def _shims(mod: tvm.IRModule, code: bytes, gpu: Gpu, progress: Progress) -> Iterator[bytes]:
    """Yield the objects of each library that a function of the module calls."""
    callers: dict[str, list[Any]] = {}
    for function in mod.functions.values():
        if function.attrs and LIBRARY in function.attrs:
            callers.setdefault(str(function.attrs[LIBRARY]), []).append(function)
    for name in sorted(callers):
        yield from SHIMS[name](callers[name], code, gpu, progress)


def _packed(host: Any) -> bytes:
    """Return what TVM would embed into the library."""
    pack = tvm_ffi.get_global_func("runtime.ModulePackImportsToTensor")
    return pack(host).numpy().tobytes()


def embed(blob: bytes, source: str, binary: bytes) -> bytes:
    """Return an embedded library whose one CUDA module holds machine code instead of source.

    Form, all numbers 8 bytes: size of the rest; ...; "cuda", module's size, module = format, table of kernels, code; strings and bytes
    begin with their length.

    Raises:
        LoweringError: if the blob has another form.
    """
    text = source.encode()
    old_format, kind = _counted(b"cuda"), _counted(b"cuda")
    tail = _counted(text)
    start = blob.find(kind)
    size_at = start + len(kind)
    if start < 0 or not blob.endswith(tail) or len(blob) < size_at + 8:
        raise LoweringError("TVM's embedded module must end in the kernels' source; got another form.")  # fmt: skip
    (size,) = struct.unpack_from("<Q", blob, size_at)
    module = blob[size_at + 8 :]
    if size != len(module) or not module.startswith(old_format):
        raise LoweringError("TVM's embedded module must be one CUDA module; got another form.")
    table = module[len(old_format) : len(module) - len(tail)]
    new = _counted(b"cubin") + table + _counted(binary)
    body = blob[8:size_at] + _counted(new)
    return struct.pack("<Q", len(body)) + body


def _counted(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def _assembled(blob: bytes, folder: Path) -> bytes:
    driver = shutil.which("g++")
    if driver is None:
        raise ToolchainError(
            "building a module must find the compiler 'g++'; got none on PATH. Install it with `apt-get install g++`."
        )
    (folder / "library.bin").write_bytes(blob)
    (folder / "kernels.s").write_text(_BLOB)
    command = [driver, "-c", "kernels.s", "-o", "kernels.o"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoweringError(f"`g++ -c kernels.s` must succeed; got:\n{done.stderr.strip()}")
    return (folder / "kernels.o").read_bytes()
