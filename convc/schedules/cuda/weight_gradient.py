"""Weight gradient of a convolution on a device: an implicit matrix product whose long sum over images and points is split.

THE ALGORITHM   acc[z, k, m] = sum over i of left[z, i, k] patch[z, i, m]       z: part of the sum, group
                left[z, i, k] = dy[n, k, p...]         patch[z, i, m] = x[n, c, p stride + r dilation - pad...], 0 outside
                i = (n, p...), m = (c, r...)           both looked up when needed and never stored
                dw[k, c, r...] = sum over the parts of acc, one after the other, by a second kernel where there are several
WHEN            1-D, 2-D, 3-D, all float types; any stride, dilation, padding and group
COST            C/group R S K FMAs a point of dy; the ends of tiles are padded with zeros, so that groups of few channels are mostly those
ACCURACY        one chain of multiply-adds for each part, then one over the parts, in the sums' type, always in this order
SOURCE          Chetlur et al., arXiv:1410.0759 (backward filter convolution as implicit GEMM); NVIDIA CUTLASS (split K)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tvm import s_tir, te, tirx

from convc.ir.ops.conv import accumulator
from convc.ir.spec import ConvSpec
from convc.ir.types import numpy_dtype
from convc.schedules.algorithm import Operands
from convc.schedules.cuda.model import launched_cycles, product_cycles
from convc.schedules.cuda.product import Block, Loop, schedule_with, share_copy, tile_product
from convc.schedules.cuda.tiles import tiles
from convc.schedules.layout import PLAIN, Halo, Layout
from convc.schedules.matrices import ravel, unravel
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.policy import Policy
from convc.target import Target

__all__ = ["NAME", "ON_REQUEST", "compute", "cycles", "gradient_layout", "knobs", "knobs_within", "operands", "schedule", "space", "supports", "workspace"]  # fmt: skip

NAME: Final = "direct"
ON_REQUEST: Final = ""

# Float types that the product's kernels are tested with.
_TYPES: Final = ("float32", "float16", "bfloat16", "float64")

# Blocks along the axis of a grid that counts parts and groups, at most.
_GRID: Final = 65535

# Parts of the sum: fewer than those from which on warps would add them up, each thread reading from another place.
_SPLITS: Final = (1, 2, 4, 8, 16, 32, 48)

# Terms of a part, at least.
_PART: Final = 64

# Without asking for more, a kernel has so much shared memory.
_SHARED: Final = 48 << 10

# Of its banks, one row of a tile begins so many behind the one before: neighbouring threads write neighbouring rows.
_BANKS: Final = 32
_PADDING: Final = 4

# Elements of a buffer whose index is an int32.
_INDICES: Final = 2**31


@dataclass(frozen=True, slots=True)
class _Extents:
    """One product's: channels of the result by (input channel, tap), summed over (image, point); in all and in whole tiles."""

    channels: int
    pixels: int
    depth: int
    padded_channels: int
    padded_pixels: int
    padded_depth: int

    @staticmethod
    def of(spec: ConvSpec, knobs: Knobs) -> _Extents:
        channels, pixels = spec.out_channels // spec.group, math.prod(spec.weight[1:])
        depth = spec.data[0] * math.prod(spec.output[2:])

        def whole(extent: int, tile: int) -> int:
            return -(-extent // tile) * tile

        return _Extents(
            channels, pixels, depth,
            whole(channels, knobs["channels"]), whole(pixels, knobs["pixels"]), whole(-(-depth // knobs["split"]), knobs["step"]),
        )  # fmt: skip


def supports(spec: ConvSpec, target: Target) -> Unsupported | None:
    """Return why the convolution's weight gradient is not computed this way, or None.

    Args:
        spec: the forward convolution.
        target: the machine.
    """
    if 0 in (*spec.data, *spec.output):
        return Unsupported("data must not be empty")
    if spec.dtype not in _TYPES:
        return Unsupported(f"element type must be {', '.join(_TYPES)}; got {spec.dtype}")
    if spec.group > _GRID:
        return Unsupported(f"groups must be at most {_GRID}; got {spec.group}")
    if next(space(spec, target), None) is None:
        return Unsupported(f"sums of tiles must be fewer than {_INDICES}; got more")
    return None


def space(spec: ConvSpec, target: Target) -> Iterator[Knobs]:
    """Yield legal tiles, and parts of the sum."""
    size = numpy_dtype(spec.dtype).itemsize
    whole = _Extents.of(spec, {"channels": 1, "pixels": 1, "step": 1, "split": 1})
    for tile in tiles(target.gpu, whole.channels, whole.pixels, itemsize=size):
        rows = sum(n + (_PADDING - n) % _BANKS for n in (tile["channels"], tile["pixels"]))
        if rows * tile["step"] * tile["stages"] * max(4, size) > _SHARED:
            continue
        for split in _SPLITS:
            knobs = {**tile, "split": split}
            if _sums(spec, knobs) >= _INDICES:
                continue
            if split == 1 or (whole.depth >= _PART * split and split * spec.group <= _GRID):
                yield knobs


def knobs(spec: ConvSpec, target: Target) -> Knobs:
    """Return the tile and the parts of the sum that the model finds fastest."""
    return min(space(spec, target), key=lambda k: _cycles(spec, target, k))


def knobs_within(spec: ConvSpec, target: Target, policy: Policy) -> Knobs:
    """Return the fastest of those whose partial sums keep the policy's limit, or of the least sums where none do."""
    limit = policy.workspace_limit
    if limit is None:
        return knobs(spec, target)
    bound = max(limit, min(workspace(spec, k) for k in space(spec, target)))
    fitting = [k for k in space(spec, target) if workspace(spec, k) <= bound]
    return min(fitting, key=lambda k: _cycles(spec, target, k))


def workspace(spec: ConvSpec, knobs: Knobs) -> int:
    """Return bytes of the sums that a second kernel adds up."""
    return numpy_dtype(accumulator(spec.dtype)).itemsize * _sums(spec, knobs)


def _sums(spec: ConvSpec, knobs: Knobs) -> int:
    m = _Extents.of(spec, knobs)
    sums = knobs["split"] * spec.group * m.padded_channels * m.padded_pixels
    return sums if _is_in_parts(spec, knobs) else 0


def _cycles(spec: ConvSpec, target: Target, knobs: Knobs) -> float:
    m, wide = _Extents.of(spec, knobs), 2 if accumulator(spec.dtype) == "float64" else 1
    # The model's right side is looked up; here the left one is, too.
    both = {**knobs, "vector": knobs["vector"] * knobs["pixels"] / (knobs["pixels"] + knobs["channels"])}  # fmt: skip
    products = knobs["split"] * spec.group
    work = wide * product_cycles(
        target.gpu, products, m.padded_channels, m.padded_pixels, m.padded_depth, both
    )
    return launched_cycles(target.gpu, work, spec.nbytes, workspace(spec, knobs))


def _is_in_parts(spec: ConvSpec, knobs: Knobs) -> bool:
    """Whether a second kernel adds up sums: parts, and groups', whose tiles TVM's loops would not store in place."""
    return knobs["split"] > 1 or spec.group > 1


def cycles(spec: ConvSpec, target: Target, knobs: Knobs) -> float:
    """Return clocks of the products, or of the bytes if those take longer, and of the launches."""
    return _cycles(spec, target, knobs)


def operands(spec: ConvSpec, knobs: Knobs) -> Operands:
    """Return plain layouts."""
    return Operands(PLAIN, Halo(), PLAIN)


def gradient_layout(knobs: Knobs) -> Layout:
    """Return the layout of dy."""
    return PLAIN


def compute(spec: ConvSpec, knobs: Knobs) -> list[te.Tensor]:
    """Return x, dy, dw; blocks `left`, `patch`, `acc`, and where sums are in parts `total`."""
    m, groups, split, step = _Extents.of(spec, knobs), spec.group, knobs["split"], knobs["step"]
    x = te.placeholder(spec.data, spec.dtype, name="data")
    dy = te.placeholder(spec.output, spec.dtype, name="gradient")
    wide = accumulator(spec.dtype)
    group_c, points = spec.weight[1], spec.output[2:]
    steps = m.padded_depth // step
    zero = tirx.const(0, spec.dtype)

    def place(z: Any, s: Any, i: Any) -> tuple[Any, list[Any], list[Any]]:
        """Return the term of a sum, whether there is one, and its image and point."""
        term = (z // groups * m.padded_depth if split > 1 else 0) + s * step + i
        inside = [term < m.depth] if split * m.padded_depth != m.depth else []
        return term, inside, unravel(term, (1, *points))

    def left(z: Any, s: Any, i: Any, k: Any) -> Any:
        _, conditions, (n, *at) = place(z, s, i)
        if m.padded_channels != m.channels:
            conditions.append(k < m.channels)
        element = dy(n, z % groups * m.channels + k, *at)
        return tirx.if_then_else(tirx.all(*conditions), element, zero) if conditions else element

    def patch(z: Any, s: Any, i: Any, pixel: Any) -> Any:
        _, conditions, (n, *at) = place(z, s, i)
        if m.padded_pixels != m.pixels:
            conditions.append(pixel < m.pixels)
        c, *taps = unravel(pixel, (1, *spec.kernel))
        index = []
        for axis, (p, r) in enumerate(zip(at, taps, strict=True)):
            stride, pad, extent = spec.strides[axis], spec.pads[axis], spec.data[2 + axis]
            position = p * stride + r * spec.dilations[axis] - pad
            reach = (points[axis] - 1) * stride + spec.effective_kernel[axis] - pad
            conditions += [position >= 0] if pad > 0 else []
            conditions += [position < extent] if reach > extent else []
            index.append(position)
        element = x(n, z % groups * group_c + c, *index)
        return tirx.if_then_else(tirx.all(*conditions), element, zero) if conditions else element

    z_extent = split * groups
    w = te.compute((z_extent, steps, step, m.padded_channels), left, name="left")
    v = te.compute((z_extent, steps, step, m.padded_pixels), patch, name="patch")
    s, i = te.reduce_axis((0, steps), "s"), te.reduce_axis((0, step), "i")
    acc = te.compute(
        (z_extent, m.padded_channels, m.padded_pixels),
        lambda z, k, p: te.sum(
            w[z, s, i, k].astype(wide) * v[z, s, i, p].astype(wide), axis=[s, i]
        ),
        name="acc",
    )

    def sum_of(z: Any, k: Any, at: tuple[Any, ...]) -> Any:
        # Written out for one group: of one channel TVM would take k // 1 for an index of its own.
        group, channel = (k // m.channels, k % m.channels) if groups > 1 else (0, k)
        return acc[z * groups + group, channel, ravel(at, (1, *spec.kernel))]

    if not _is_in_parts(spec, knobs):
        return [x, dy, te.compute(spec.weight, lambda k, *at: sum_of(0, k, at).astype(spec.dtype), name="result")]  # fmt: skip
    part = te.reduce_axis((0, split), "part")
    total = te.compute(spec.weight, lambda k, *at: te.sum(sum_of(part, k, at), axis=part), name="total")  # fmt: skip
    if wide == spec.dtype:
        return [x, dy, total]
    return [x, dy, te.compute(spec.weight, lambda *at: total(*at).astype(spec.dtype), name="narrow")]  # fmt: skip


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
