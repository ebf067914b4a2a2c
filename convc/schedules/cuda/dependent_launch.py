"""Programmatic dependent launch: a kernel is brought onto the device while the one before it ends, and waits there for its results.

Networks of one image are rows of short kernels: in ResNet-50 in float16 most take 2 to 6 us, and from the end of one to the first
instruction of the next a device of 9.0 takes more than one. With this the next one's blocks are placed as soon as those before have left:

    __global__ void kernel(...) {
      cudaGridDependencySynchronize();               all before it have ended, and what they wrote is there
      ...

Every such kernel waits before it reads or writes anything, so whatever a kernel's end implies without this it implies with it: the one
before it has ended, which began only when the one before that had. One that follows a copy or a library's kernel waits for its whole end.

WHEN    all kernels of a row or none, which are those that a run launches, of one of the module's batch sizes: with it in those of few
        blocks alone MobileNetV2 took 0.203 ms in place of 0.186 (some of its kernels were others, too). All, where most are of a narrow
        type and have one block a multiprocessor at most. The wait is each block's: where blocks follow each other on a multiprocessor it
        comes with every one, and kernels that only move data take up to 1.8 times as long. On an H200 (2026-11-27), with it in every
        kernel, ResNet-50 and MobileNetV2 in float16 took 0.88 and 0.87 of the time at batch 1, 1.02 and 1.03 at batch 32; ResNet-50 in
        float32 at batch 1 1.23. With cudaTriggerProgrammaticLaunchCompletion at the beginning ResNet-50 in float16 took 0.98: blocks that
        wait take room. A target may ask for it in every kernel, or in none (`-early`).

SOURCE  CUDA C++ Programming Guide 13.0, "Programmatic Dependent Launch and Synchronization"; TVM's launch parameter of that name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import tvm
import tvm_ffi
from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call

from convc.schedules.cuda.mma import once
from convc.schedules.findings import note_early
from convc.schedules.part_names import part_of
from convc.target import Gpu
from convc.target.cuda import EARLY

__all__ = ["TAG", "begin_early", "most_early_blocks"]

# Fewer kernels are no row: a tuner's are one or two, and all of its settings are to be launched alike.
_ROW: Final = 8

# Bytes of a narrow type.
_NARROW: Final = 2

# TVM's name of the launch parameter, as its runtime spells it, and of the list of a kernel's.
TAG: Final = "tirx.use_programtic_dependent_launch"
_PARAMETERS: Final = "tirx.kernel_launch_params"

# Operands are read by ld.global.nc, which a compiler might move before a wait. It did not: in the machine code of ten kernels of ResNet-50
# and MobileNetV2 in half precision (nvcc 13.0, nvdisasm, 2026-11-27) the first access to global memory stands behind it. Pointers handed
# through an asm behind the wait would take no more registers, but are then generic ones (ld in place of ld.global) and no longer
# __restrict__.
# Guarded: the text is compiled for older ones, too, where what a kernel takes there is asked.
_WAIT: Final = "convc_wait_for_grids"
_SOURCE: Final = f"""\
static __device__ __forceinline__ void {_WAIT}() {{
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= {10 * EARLY}
  cudaGridDependencySynchronize();
#endif
}}
"""


def most_early_blocks(gpu: Gpu) -> float:
    """Return how many blocks a kernel has at most that gains by it: one a multiprocessor; 0 where not all devices of the code can.

    0, too, where the target asks for none, and no limit where it asks for all.

    Example:
        >>> from convc.target import parse_target
        >>> targets = ("sm_90", "sm_80", "sm_90,sm_80", "sm_90 -early=off", "sm_90 -early=on")
        >>> [most_early_blocks(parse_target(f"cuda -arch={words}").gpu) for words in targets]
        [132, 0, 0, 0, inf]
    """
    if not gpu.may_begin_early or gpu.early is False:
        return 0
    return math.inf if gpu.early else gpu.sms


def begin_early(most: float) -> Any:
    """Return the pass that lets kernels be placed early: those of each row of a module where most of them gain by it.

    Rewrite (of each kernel's body):
        body
        -->
        cudaGridDependencySynchronize(); body

    How many there are of each part is noted, see `convc.schedules.findings`.

    Args:
        most: see `most_early_blocks`.
    """

    @tvm.ir.transform.module_pass(opt_level=0, name="convc.BeginEarly")
    def rewrite(mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        rows: dict[int, list[Any]] = {}
        for name in mod.functions:
            rows.setdefault(part_of(name.name_hint), []).append(name)
        begun = {n: row for n, row in rows.items() if _gains([mod[name] for name in row], most)}
        for part, row in begun.items():
            note_early(part, len(row))
        early = {name: _early(mod[name]) for row in begun.values() for name in row}
        return tvm.IRModule({**dict(mod.functions.items()), **early}, attrs=mod.attrs)

    return rewrite


def _gains(kernels: Sequence[tirx.PrimFunc], most: float) -> bool:
    if math.isinf(most):
        return True
    short = sum(_blocks(f) <= most and _is_narrow(f) for f in kernels)
    return len(kernels) >= _ROW and 2 * short > len(kernels)


def _early(func: tirx.PrimFunc) -> tirx.PrimFunc:
    wait = cuda_func_call(_WAIT, source_code=once(_WAIT, _SOURCE))
    body = tirx.SeqStmt([tirx.Evaluate(wait), func.body])
    # The parameter of dynamic shared memory must stay last.
    parameters = [TAG, *map(str, func.attrs[_PARAMETERS])]
    return func.with_body(body).with_attr(_PARAMETERS, parameters)


def _is_narrow(func: tirx.PrimFunc) -> bool:
    """Whether a kernel reads or writes numbers of two bytes or one: layers of bytes, which no device has told, are as short as halves'."""
    types = (getattr(p.ty, "element_type", None) for p in func.params)
    return any(t is not None and tvm.DataType(str(t.dtype)).itemsize <= _NARROW for t in types)


def _blocks(func: tirx.PrimFunc) -> float:
    """Return how many blocks a kernel has; infinite if that is known at run time only."""
    extents: dict[str, float] = {}

    def noted(statement: Any) -> Any:
        tag = getattr(statement.node, "thread_tag", "")
        if statement.attr_key == "thread_extent" and tag.startswith("blockIdx"):
            known = isinstance(statement.value, tirx.IntImm)
            extents[tag] = int(statement.value) if known else math.inf
        return statement

    tvm_ffi.structural_map(func.body, (tirx.AttrStmt, noted))
    return math.prod(extents.values())
