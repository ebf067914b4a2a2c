"""Weight gradient of a convolution on a device: an implicit matrix product whose long sum over images and points is split.

THE ALGORITHM   `weight_products`, on the float units
WHEN            1-D, 2-D, 3-D, all float types; any stride, dilation, padding and group
COST            C/group R S K FMAs a point of dy; the ends of tiles are padded with zeros, so that groups of few channels are mostly those
ACCURACY        one chain of multiply-adds for each part, then one over the parts, in the sums' type, always in this order
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tvm import s_tir, te, tirx

from convc.ir.ops.conv import accumulator
from convc.ir.spec import ConvSpec
from convc.ir.types import numpy_dtype
from convc.schedules.cuda.model import launched_cycles, product_cycles
from convc.schedules.cuda.product import Block, Loop, schedule_with, share_copy, tile_product
from convc.schedules.cuda.tiles import tiles
from convc.schedules.cuda.weight_products import (
    Side,
    both_looked_up,
    fastest_within,
    finish,
    gradient_layout,
    matrices,
    operands,
    properties,
    refusal,
    sides,
    split_up,
    tiles_refusal,
    workspace,
)
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.policy import Policy
from convc.target import Target

__all__ = ["NAME", "ON_REQUEST", "compute", "cycles", "gradient_layout", "knobs", "knobs_within", "operands", "properties", "schedule", "space", "supports"]  # fmt: skip

NAME: Final = "direct"
ON_REQUEST: Final = ""

# Float types that the product's kernels are tested with.
_TYPES: Final = ("float32", "float16", "bfloat16", "float64")

# Without asking for more, a kernel has so much shared memory.
_SHARED: Final = 48 << 10

# Of its banks, one row of a tile begins so many behind the one before: neighbouring threads write neighbouring rows.
_BANKS: Final = 32
_PADDING: Final = 4


def supports(spec: ConvSpec, target: Target) -> Unsupported | None:
    """Return why the convolution's weight gradient is not computed this way, or None.

    Args:
        spec: the forward convolution.
        target: the machine.
    """
    room = f"{_SHARED} bytes of shared memory and the device's registers"
    return refusal(spec, _TYPES) or tiles_refusal(spec, _tiles(spec, target), room)


def space(spec: ConvSpec, target: Target) -> Iterator[Knobs]:
    """Yield legal tiles, and parts of the sum."""
    return split_up(spec, _tiles(spec, target))


def _tiles(spec: ConvSpec, target: Target) -> Iterator[Knobs]:
    size = numpy_dtype(spec.dtype).itemsize
    whole = matrices(spec, {"channels": 1, "pixels": 1, "step": 1, "split": 1})
    for tile in tiles(target.gpu, whole.channels, whole.pixels, itemsize=size):
        rows = sum(n + (_PADDING - n) % _BANKS for n in (tile["channels"], tile["pixels"]))
        if rows * tile["step"] * tile["stages"] * max(4, size) <= _SHARED:
            yield tile


def knobs(spec: ConvSpec, target: Target) -> Knobs:
    """Return the tile and the parts of the sum that the model finds fastest."""
    return knobs_within(spec, target, Policy())


def knobs_within(spec: ConvSpec, target: Target, policy: Policy) -> Knobs:
    """Return the fastest of those whose partial sums keep the policy's limit, or of those with the fewest where none do."""
    return fastest_within(spec, space(spec, target), lambda k: cycles(spec, target, k), policy)


def cycles(spec: ConvSpec, target: Target, knobs: Knobs) -> float:
    """Return clocks of the products, or of the bytes if those take longer, and of the launches."""
    m, wide = matrices(spec, knobs), 2 if accumulator(spec.dtype) == "float64" else 1
    work = wide * product_cycles(
        target.gpu,
        m.products,
        m.padded_channels,
        m.padded_pixels,
        m.padded_depth,
        both_looked_up(knobs),
    )
    return launched_cycles(target.gpu, work, spec.nbytes, workspace(spec, knobs))


def compute(spec: ConvSpec, knobs: Knobs) -> list[te.Tensor]:
    """Return x, dy, dw; blocks `left`, `patch`, `acc`, and where sums are in parts `total`."""
    m, step = matrices(spec, knobs), knobs["step"]
    x = te.placeholder(spec.data, spec.dtype, name="data")
    dy = te.placeholder(spec.output, spec.dtype, name="gradient")
    wide, steps = accumulator(spec.dtype), m.padded_depth // step
    left, patch = sides(spec, m, x, dy)

    def looked_up(side: Side, extent: int, name: str) -> te.Tensor:
        shape = (m.products, steps, step, extent)
        return te.compute(shape, lambda z, s, i, at: side(z, s * step, i, at), name=name)

    w, v = looked_up(left, m.padded_channels, "left"), looked_up(patch, m.padded_pixels, "patch")
    s, i = te.reduce_axis((0, steps), "s"), te.reduce_axis((0, step), "i")
    acc = te.compute(
        (m.products, m.padded_channels, m.padded_pixels),
        lambda z, k, p: te.sum(
            w[z, s, i, k].astype(wide) * v[z, s, i, p].astype(wide), axis=[s, i]
        ),
        name="acc",
    )
    return [x, dy, finish(spec, m, acc)]


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `compute` scheduled: the products' kernel, and where there are parts one that adds them up."""
    return schedule_with(_product, ("left", "patch", "acc"), func, knobs, target)


def _product(sch: s_tir.Schedule, knobs: Knobs, out: Block | None) -> None:
    tile_product(sch, knobs, out, _operands)


def _operands(
    sch: s_tir.Schedule, step: Loop, threads: int, knobs: Knobs
) -> tuple[tuple[Block, Block], list[Loop]]:
    """Let threads look up both operands of a step, neighbours neighbouring points, which lie together in x and dy."""
    blocks, rests = (sch.get_sblock("patch"), sch.get_sblock("left")), []
    for block in blocks:
        sch.set_scope(block, 0, "shared")
        sch.compute_at(block, step, preserve_unit_loops=True)
        *_, i, p = sch.get_loops(block)
        sch.reorder(p, i)
        rests.append(share_copy(sch, block, 4, threads, 1))
        sch.storage_align(block, 0, axis=2, factor=_BANKS, offset=_PADDING)
    return blocks, rests
