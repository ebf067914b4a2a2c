"""S-TIR to machine code for CPUs: TVM's own pipeline with two settings and five passes of ours.

Rewrite (KeepOnStack):
    tile = TVMBackendAllocWorkspace(1792)   # TVM's choice for anything local, a call per tile
    -->
    tile = alloca(1792)                     # which LLVM then promotes to registers
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import tvm
import tvm_ffi
from tvm import tirx

from convc.schedules.backend import Progress
from convc.schedules.findings import note_scratch, one_function
from convc.schedules.llvm.byte_stores import together
from convc.schedules.llvm.byte_tables import permuted
from convc.schedules.llvm.dots import in_bytes
from convc.schedules.llvm.rounding import by_instruction, in_halves
from convc.schedules.llvm.short_loops import write_out
from convc.schedules.llvm.tap_quads import loaded
from convc.target import Target

__all__ = ["build", "compile_objects"]

PIPELINE: Final = "convc"

# One stack frame of a worker thread must hold it; larger scratch goes to TVM's workspace pool.
_STACK_BYTES: Final = 64 << 10


def _keep(statement: Any) -> Any:
    size = math.prod(int(d) for d in statement.buffer.shape)
    nbytes = size * tvm.DataType(statement.buffer.dtype).itemsize
    if nbytes > _STACK_BYTES:
        note_scratch(nbytes)
        return statement
    annotations = dict(statement.annotations) if statement.annotations else {}
    annotations["disable_lower_builtin"] = tirx.IntImm("int32", 1)
    return tirx.AllocBuffer(statement.buffer, annotations)


@tirx.transform.prim_func_pass(opt_level=0, name="convc.KeepOnStack")
def _keep_on_stack(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: Any) -> tirx.PrimFunc:
    with one_function():
        return func.with_body(tvm_ffi.structural_map(func.body, (tirx.AllocBuffer, _keep)))


@tirx.transform.prim_func_pass(opt_level=0, name="convc.InBytes")
def _in_bytes(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: Any) -> tirx.PrimFunc:
    return in_halves(in_bytes(loaded(func)))


@tirx.transform.prim_func_pass(opt_level=0, name="convc.Permuted")
def _permuted(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: Any) -> tirx.PrimFunc:
    return permuted(func)


@tirx.transform.prim_func_pass(opt_level=0, name="convc.WriteOut")
def _write_out(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: Any) -> tirx.PrimFunc:
    return write_out(func)


@tirx.transform.prim_func_pass(opt_level=0, name="convc.ByteStores")
def _byte_stores(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: Any) -> tirx.PrimFunc:
    return together(func)


def _pipeline() -> tuple[Any, Any, Any]:
    base, _, device = tirx.get_tir_pipeline("s_tir")

    def host() -> tvm.transform.Pass:
        return tvm.ir.transform.Sequential(
            [
                _keep_on_stack,
                _in_bytes,
                _permuted,
                _write_out,
                tirx.transform.UnrollLoop(),
                _byte_stores,
                tirx.transform.LowerTVMBuiltin(),
                tirx.transform.LowerIntrin(),
            ]
        )

    return base, host, device


@cache
def _register() -> None:
    # TVM takes only the name of a registered pipeline; the name is ours alone.
    tirx.register_tir_pipeline(PIPELINE, _pipeline)


def build(mod: tvm.IRModule, target: Target) -> tvm.runtime.Executable:
    """Return the machine code of a module whose functions are all scheduled."""
    _register()
    # The runtime checks every array before the entry sees it, and the entry alone calls kernels. TVM's own checks of the same
    # arguments were two thirds of the compile time of a module with 120 inputs and outputs (11.9 s against 3.5 s), and they
    # refuse bfloat16, which they take for uint16.
    # LLVM finds common subexpressions itself: without TVM's pass the code is as large (0.2 % of 25 Winograd kernels) and as fast
    # (ResNet-50, MobileNetV2, U-Net: medians within 0.5 %), and those kernels compile in 0.88 of the time.
    config = {"tirx.disable_assert": True, "tirx.disable_cse_tir": True}
    with tvm.transform.PassContext(config=config):
        return tvm.compile(by_instruction(mod, target), target=target.tvm(), tir_pipeline=PIPELINE)


def compile_objects(mod: tvm.IRModule, target: Target, progress: Progress) -> tuple[bytes, ...]:
    """Return the contents of the module's one object file."""
    executable = build(mod, target)
    with TemporaryDirectory(prefix="convc-") as folder:
        path = Path(folder) / "kernels.o"
        executable.mod.write_to_file(str(path))
        return (path.read_bytes(),)
