"""Build small real modules: kernels by TVM, `main` from the manifest's own steps, linked by `convc.lowering.package`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import s_tir, te
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own name
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as builder

from convc.errors import PackageError
from convc.lowering.package import link
from convc.runtime import Argument, Manifest, Step, TargetInfo, Tensor, aligned_empty
from convc.runtime.elf import find_sections
from convc.runtime.manifest import buffer_bytes
from convc.runtime.package import WEIGHTS_SECTION
from convc.runtime.seal import SEAL_BYTES, seal_of

TARGET = TargetInfo("llvm", "x86_64-linux-gnu", "x86-64-v3", ("avx2", "fma"))


@dataclass(frozen=True)
class Kernel:
    """A step's windows and its definition: all but the last window in, the last one out."""

    symbol: str
    arguments: tuple[Argument, ...]
    compute: Callable[..., te.Tensor] | tvm.tirx.PrimFunc
    parallel: bool = False
    vectorize: bool = True


@T.prim_func(s_tir=True)
def bfloat16_main(
    weights: T.Buffer((64,), "uint8"),
    arena: T.Buffer((64,), "uint8"),
    X: T.Buffer((64,), "bfloat16"),
    Y: T.Buffer((64,), "bfloat16"),
):
    """Y = X, as an entry function of its own: a call from one function to another loses the bfloat16 type."""
    T.func_attr({"global_symbol": "main", "tirx.noalias": True})
    for i in T.serial(64):
        Y[i] = X[i]


@T.prim_func(s_tir=True)
def copy_strided(a: T.handle, b: T.handle):
    """B = A + 1 where B is every row's first half of a wider matrix."""
    A = T.match_buffer(a, (8, 16), "float32")
    B = T.match_buffer(b, (8, 16), "float32", strides=[32, 1])
    for i, j in T.grid(8, 16):
        with T.sblock("copied"):
            vi, vj = T.axis.remap("SS", [i, j])
            B[vi, vj] = A[vi, vj] + T.float32(1)


def primfunc(kernel: Kernel) -> tvm.tirx.PrimFunc:
    if isinstance(kernel.compute, tvm.tirx.PrimFunc):
        return kernel.compute.with_attr("global_symbol", kernel.symbol)
    *inputs, _ = kernel.arguments
    operands = [
        te.placeholder(argument.shape, argument.dtype, name=f"A{i}")
        for i, argument in enumerate(inputs)
    ]
    result = kernel.compute(*operands)
    schedule = s_tir.Schedule(te.create_prim_func([*operands, result]))
    block = schedule.get_sblock(result.op.name)
    loops = schedule.get_loops(block)
    if kernel.vectorize:
        schedule.vectorize(schedule.split(loops[-1], [None, 16])[1])
    if kernel.parallel:
        schedule.parallel(loops[0])
    return schedule.mod["main"].with_attr("global_symbol", kernel.symbol)


def main_of(manifest: Manifest) -> tvm.tirx.PrimFunc:
    """Return the entry function: each step called with windows into main's own arguments."""
    with IRBuilder() as ib:
        with builder.prim_func(s_tir=True):
            builder.func_name("main")
            builder.func_attr({"global_symbol": "main", "tirx.noalias": True})
            buffers: dict[tuple[str, int], tvm.tirx.Buffer] = {}
            for space, size in (
                ("weights", manifest.weights_bytes),
                ("arena", manifest.arena_bytes),
            ):
                buffers[space, 0] = builder.arg(
                    space, builder.buffer((buffer_bytes(size),), "uint8")
                )
            for space, tensors in (("input", manifest.inputs), ("output", manifest.outputs)):
                for i, tensor in enumerate(tensors):
                    made = builder.buffer(tensor.shape, tensor.dtype)
                    buffers[space, i] = builder.arg(f"{space}{i}", made)
            for step in manifest.steps:
                windows = [window(buffers[a.space, a.index], a) for a in step.arguments]
                builder.evaluate(T.call_cpacked(step.symbol, *windows))
        return ib.get()


def window(buffer: tvm.tirx.Buffer, argument: Argument) -> tvm.tirx.Expr:
    shape = T.tvm_stack_make_shape(*argument.shape, dtype="handle")
    strides = T.tvm_stack_make_shape(*argument.strides, dtype="handle") if argument.strides else 0
    data = T.handle_add_byte_offset(buffer.data, argument.offset)
    zero = tvm.tirx.const(0, argument.dtype)
    return T.tvm_stack_make_array(
        data, shape, strides, len(argument.shape), zero, 0, dtype="handle"
    )


def objects(kernels: Sequence[Kernel], manifest: Manifest, folder: Path) -> list[Path]:
    """Return TVM's object file with the manifest's entry function and the kernels."""
    return [
        compiled({"main": main_of(manifest)} | {k.symbol: primfunc(k) for k in kernels}, folder)
    ]


def compiled(functions: dict[str, tvm.tirx.PrimFunc], folder: Path) -> Path:
    target = tvm.target.Target({"kind": "llvm", "mcpu": TARGET.mcpu})
    path = folder / "code.o"
    tvm.compile(tvm.IRModule(functions), target).mod.write_to_file(str(path))
    return path


def manifest_of(
    name: str,
    kernels: Sequence[Kernel],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    *,
    arena_bytes: int = 0,
    weights_bytes: int = 0,
) -> Manifest:
    return Manifest(
        name=name,
        convc="0.1.0",
        tvm="0.27.0.post1",
        tvm_ffi="0.1.14.post1",
        target=TARGET,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        arena_bytes=arena_bytes,
        weights_bytes=weights_bytes,
        steps=tuple(
            Step(k.symbol, f"node_{k.symbol}", "elementwise", arguments=k.arguments)
            for k in kernels
        ),
    )


def build(
    folder: Path,
    kernels: Sequence[Kernel],
    manifest: Manifest,
    weights: Sequence[tuple[int, NDArray]] = (),
) -> Path:
    path = folder / f"{manifest.name}.so"
    link(objects(kernels, manifest, folder), manifest, weights, path)
    return path


ROWS, COLUMNS = 8, 64
BLOCK = ROWS * COLUMNS * 4
SCALE = np.arange(-32, 32, dtype=np.float32)
SHIFT = np.arange(COLUMNS, dtype=np.float32) % 7
MATRIX = (ROWS, COLUMNS)


def affine(folder: Path) -> Path:
    """x (8, 64) -> y = x * SCALE + SHIFT and z = its row sums, with weights, arena, an offset and a strided window."""
    scale = Argument("weights", (COLUMNS,), "float32")
    shift = Argument("weights", (COLUMNS,), "float32", offset=4096)
    x = Argument("input", MATRIX, "float32")
    scaled = Argument("arena", MATRIX, "float32", offset=BLOCK)
    y = Argument("output", MATRIX, "float32")
    z = Argument("output", (ROWS,), "float32", index=1)

    def multiply(a: te.Tensor, s: te.Tensor) -> te.Tensor:
        return te.compute(MATRIX, lambda i, j: a[i, j] * s[j], name="scaled")

    def add(a: te.Tensor, s: te.Tensor) -> te.Tensor:
        return te.compute(MATRIX, lambda i, j: a[i, j] + s[j], name="shifted")

    def total(a: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, COLUMNS), name="k")
        return te.compute((ROWS,), lambda i: te.sum(a[i, k], axis=k), name="total")

    kernels = (
        Kernel("scale", (x, scale, scaled), multiply),
        Kernel("shift", (scaled, shift, y), add, parallel=True),
        Kernel("total", (y, z), total, vectorize=False),
    )
    manifest = manifest_of(
        "affine",
        kernels,
        [Tensor("x", MATRIX, "float32")],
        [Tensor("y", MATRIX, "float32"), Tensor("z", (ROWS,), "float32")],
        arena_bytes=2 * BLOCK,
        weights_bytes=4096 + 4 * COLUMNS,
    )
    return build(folder, kernels, manifest, [(0, SCALE), (4096, SHIFT)])


def affine_reference(x: NDArray) -> tuple[NDArray, NDArray]:
    y = x * SCALE + SHIFT
    return y, y.sum(axis=1)


def unary(
    folder: Path,
    name: str,
    dtype: str,
    function: Callable[..., object],
    shape: tuple[int, ...] = (64,),
) -> Path:
    """x -> y = function(x), without weights and arena."""
    ends = Argument("input", shape, dtype), Argument("output", shape, dtype)

    def compute(a: te.Tensor) -> te.Tensor:
        return te.compute(shape, lambda *i: function(a(*i)), name="result")

    kernels = (Kernel(f"{name}_kernel", ends, compute, vectorize=dtype == "float32"),)
    manifest = manifest_of(name, kernels, [Tensor("x", shape, dtype)], [Tensor("y", shape, dtype)])
    return build(folder, kernels, manifest)


def bfloat16(folder: Path) -> Path:
    """x -> y = x, in bfloat16."""
    ports = [Tensor("x", (64,), "bfloat16")], [Tensor("y", (64,), "bfloat16")]
    manifest = manifest_of("brain", (), *ports)
    path = folder / "brain.so"
    link([compiled({"main": bfloat16_main}, folder)], manifest, [], path)
    return path


def concatenation(folder: Path) -> Path:
    """a, b (8, 16) -> y (8, 32) = [a + 1, b + 1]: two inputs, and steps that write strided windows of one output."""
    half, whole = (ROWS, 16), (ROWS, 32)
    left = Argument("output", half, "float32", strides=(32, 1))
    right = Argument("output", half, "float32", offset=64, strides=(32, 1))
    kernels = (
        Kernel("left", (Argument("input", half, "float32"), left), copy_strided),
        Kernel("right", (Argument("input", half, "float32", index=1), right), copy_strided),
    )
    manifest = manifest_of(
        "concatenation",
        kernels,
        [Tensor("a", half, "float32"), Tensor("b", half, "float32")],
        [Tensor("y", whole, "float32")],
    )
    return build(folder, kernels, manifest)


def burn(folder: Path) -> Path:
    """x (64,) -> y: 64 independent rows of work, about 100 ms on one core, shared out over the threads."""
    ends = Argument("input", (64,), "float32"), Argument("output", (64,), "float32")

    def compute(a: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, 400_000), name="k")
        return te.compute(
            (64,), lambda i: te.sum(a[i] * (k % 3).astype("float32"), axis=k), name="work"
        )

    kernels = (Kernel("work", ends, compute, parallel=True, vectorize=False),)
    ports = [Tensor("x", (64,), "float32")], [Tensor("y", (64,), "float32")]
    return build(folder, kernels, manifest_of("burn", kernels, *ports))


def placed(array: NDArray, offset: int) -> NDArray:
    """Return a copy of the array that starts `offset` bytes behind a 64-byte boundary."""
    memory = aligned_empty((array.nbytes + 64,), np.uint8)
    copy = memory[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    assert copy.ctypes.data % 64 == offset % 64
    return copy


class Foreign:
    """A tensor of another library: memory reached through DLPack alone."""

    def __init__(self, array: NDArray, device: tuple[int, int] = (1, 0)) -> None:
        self.array, self.device, self.exports = array, device, 0

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, **options: object) -> object:
        self.exports += 1
        return self.array.__dlpack__(**options)


def resealed(data: bytes | bytearray) -> bytes:
    """Return the damaged file with a seal that fits it, so that the damage reaches what reads behind the seal."""
    try:
        weights = find_sections(bytes(data), (WEIGHTS_SECTION,))[WEIGHTS_SECTION]
    except (PackageError, KeyError):
        return bytes(data)
    return bytes(data[:-SEAL_BYTES]) + seal_of(bytes(data[:-SEAL_BYTES]), weights)
