"""Which kernels of CUTLASS a convolution may have: tiles known to compile, what each template can address, and how long each takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from convc.ir.spec import ConvSpec
from convc.ir.types import numpy_dtype
from convc.runtime.libraries.cutlass import FORMS, Kernel
from convc.schedules.cuda.model import LAUNCH_SECONDS, memory_cycles
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.rank import raised
from convc.target import Gpu

__all__ = ["EIGHT", "eights", "kernel_cycles", "kernel_of", "refusal", "sums_bytes", "tiles"]

# Channels of 16 bytes: what TMA, cp.async and the epilogue's stores move at once.
EIGHT: Final = 8

_PRODUCTS: Final = ("hopper_cooperative", "hopper_pingpong")

# form -> (pixels, channels, step, cluster, stages); tests/cutlass/test_real_kernels.py (slow) asks nvcc for each of them without spills.
# Hopper's convolution has one warp group of consumers: 128 x 128 sums are 128 registers of each of its threads, and no tile is larger.
_TILES: Final[dict[str, tuple[tuple[int, int, int, int, int], ...]]] = {
    "hopper": (
        (128, 128, 64, 1, 0), (128, 64, 64, 1, 0), (64, 128, 64, 1, 0), (64, 64, 64, 1, 0), (128, 128, 64, 2, 0),
    ),
    "hopper_cooperative": ((128, 128, 64, 1, 0), (128, 256, 64, 1, 0), (256, 128, 64, 2, 0)),
    "hopper_pingpong": ((64, 128, 64, 1, 0), (64, 64, 64, 1, 0)),
    "ampere": ((128, 128, 32, 1, 4), (128, 64, 32, 1, 4), (64, 128, 32, 1, 4), (64, 64, 32, 1, 5)),
}  # fmt: skip

# Of sums in parts, where there are too few tiles for the device: small maps at small batches.
_SUM_TILES: Final[dict[str, tuple[int, int, int, int, int]]] = {
    "hopper_pingpong": (64, 128, 64, 1, 0), "ampere": (64, 64, 32, 1, 5),
}  # fmt: skip
_PARTS: Final = (2, 3, 4, 6, 8, 12, 16)
# Steps that a part has at least, and how many numbers of parts are tried with a tile.
_LEAST_STEPS: Final = 4
_TRIED: Final = 2

# Multiply-adds of half precision in a multiprocessor's clock: wgmma 4096 FLOP on 9.0; of mma.sync `Gpu` knows TF32's, half of them.
_WGMMA: Final = 2048.0
# Of the peak that a good kernel reaches: cuBLAS 0.78 to 0.81 for 8192^3 in bfloat16 on an H200. Not measured for these kernels.
_SHARE: Final = 0.7
# Clocks of a block before its first product and behind its last, which Hopper's matrix products overlap with another tile.
_EDGES: Final = 1500.0
# What narrow tiles lose, as they read more of the other operand for each product.
_HALF: Final = 32

_LEAST_SM: Final = 80
# Bits of a filter's positions that Ampere's iterators keep.
_MOST_TAPS: Final = 32
_MOST_BYTES: Final = 1 << 31
# cuTensorMapEncodeIm2col (CUDA driver API): strides of 1 to 8; corners and offsets in 16 bits for all axes together.
_MOST_STRIDE: Final = 8


def eights(channels: int) -> int:
    """Return channels filled up to whole eights.

    Example:
        >>> eights(8), eights(9)
        (8, 16)
    """
    return -(-channels // EIGHT) * EIGHT


def kernel_of(rank: int, dtype: str, knobs: Knobs) -> Kernel:
    """Return the kernel that knobs name, for 2 or 3 spatial axes and a bias of the data's type."""
    form = FORMS[knobs["form"]]
    tile = (knobs["pixels"], knobs["channels"], knobs["step"], knobs["cluster"], knobs["stages"])
    return Kernel(form, 2 if form in _PRODUCTS else rank, dtype, *tile, sums=knobs["split"] > 1)


def refusal(form: str, spec: ConvSpec, gpu: Gpu) -> Unsupported | None:
    """Return why the kernels of a form do not compute a convolution on a device, or None."""
    if form == "ampere":
        if (least := min(gpu.every_sm)) < _LEAST_SM:
            return Unsupported(
                f"every sm must be at least {_LEAST_SM} for tensor cores; got {least}"
            )
        return _too_large(spec) or _too_many_taps(spec)
    if not gpu.warpgroups:
        return Unsupported(f"wgmma and TMA are of sm 90 alone; got sm {', '.join(map(str, gpu.every_sm))}{' and PTX' if gpu.ptx else ''}")  # fmt: skip
    if form == "hopper":
        return _too_large(spec) or _out_of_reach(raised(spec))
    plain = all(k == 1 for k in spec.kernel) and all(s == 1 for s in spec.strides)
    if not plain or any(spec.pads):
        return Unsupported(f"a matrix product must have a filter of one tap, stride 1, no pads; got filter {spec.kernel}, strides {spec.strides}, pads {spec.pads}")  # fmt: skip
    return _too_large(spec)


def _too_large(spec: ConvSpec) -> Unsupported | None:
    # Offsets of elements are 32 bits.
    width = numpy_dtype(spec.dtype).itemsize
    for what, shape in (("data", spec.data), ("weight", spec.weight), ("result", spec.output)):
        n, c, *rest = shape
        nbytes = width * n * -(-c // EIGHT) * EIGHT * math.prod(rest)
        if nbytes >= _MOST_BYTES:
            return Unsupported(f"{what} must be less than 2^31 bytes; got {nbytes}")
    return None


def _too_many_taps(spec: ConvSpec) -> Unsupported | None:
    if max(spec.kernel) > _MOST_TAPS:
        return Unsupported(f"a filter must have at most {_MOST_TAPS} taps along an axis; got {spec.kernel}")  # fmt: skip
    return None


def _out_of_reach(spec: ConvSpec) -> Unsupported | None:
    """Return why TMA cannot copy patches of the image; of CUTLASS's `can_implement` and the driver's own limits."""
    n = spec.rank
    bits = 16 // n
    corner, reach = 1 << (bits - 1), (1 << bits) - 1
    for axis in range(n):
        lower, upper = spec.pads[axis], spec.pads[n + axis]
        span = (spec.kernel[axis] - 1) * spec.dilations[axis]
        if spec.strides[axis] > _MOST_STRIDE:
            return Unsupported(f"strides must be at most {_MOST_STRIDE}; got {spec.strides}")
        if span >= reach:
            return Unsupported(f"(taps - 1) * dilation must be less than {reach}; got {span} along spatial axis {axis}")  # fmt: skip
        if lower > corner or not -corner <= upper - span < corner:
            return Unsupported(f"pads must be at most {corner}, and {-corner} to {corner - 1} beyond (taps - 1) * dilation; got {lower} and {upper} for {span}")  # fmt: skip
    return None


def tiles(spec: ConvSpec, gpu: Gpu) -> Iterator[Knobs]:
    """Yield the settings that compute a convolution, of every form, Hopper's first; tiles much larger than the result are left out."""
    pixels, _, channels = _product(spec)
    for form, rows in _TILES.items():
        if refusal(form, spec, gpu) is not None:
            continue
        least = min(row[0] for row in rows), min(row[1] for row in rows)
        for m, n, step, cluster, stages in rows:
            if (m > least[0] and m >= 2 * pixels) or (n > least[1] and n >= 2 * channels):
                continue
            if m * cluster > max(pixels, least[0]):
                continue
            yield {
                "form": FORMS.index(form),
                "pixels": m,
                "channels": n,
                "step": step,
                "cluster": cluster,
                "stages": stages,
                "split": 1,
            }
    yield from _in_parts(spec, gpu)


def _in_parts(spec: ConvSpec, gpu: Gpu) -> Iterator[Knobs]:
    """Yield the settings that share a sum out among blocks: the numbers of parts that fill the device best, for a tile of each kind."""
    pixels, depth, channels = _product(spec)
    for form, (m, n, step, cluster, stages) in _SUM_TILES.items():
        if refusal(form, spec, gpu) is not None:
            continue
        blocks = -(-pixels // m) * -(-channels // n)
        usable = [
            parts
            for parts in _PARTS
            if blocks * parts <= gpu.sms
            and _part_steps(spec, step, parts) >= _LEAST_STEPS
            and parts <= -(-depth // step)
            # A product's part is so many channels of every row, of which TMA reads whole eights.
            and (form == "ampere" or depth % (parts * EIGHT) == 0)
        ]
        for parts in usable[-_TRIED:]:
            yield {
                "form": FORMS.index(form), "pixels": m, "channels": n, "step": step, "cluster": cluster, "stages": stages, "split": parts
            }  # fmt: skip


def _part_steps(spec: ConvSpec, step: int, parts: int) -> int:
    """Return the steps of a part: its share of the channels of each tap, in whole steps."""
    _, depth, _ = _product(spec)
    share = -(-depth // parts)
    return math.prod(spec.kernel) * -(-share // step)


def sums_bytes(spec: ConvSpec, knobs: Knobs) -> int:
    """Return the bytes of a sum's parts, 0 where it is in one."""
    pixels, _, channels = _product(spec)
    split = knobs["split"]
    return 4 * split * pixels * -(-channels // EIGHT) * EIGHT if split > 1 else 0


def _product(spec: ConvSpec) -> tuple[int, int, int]:
    """Return (M, K, N): points of the result, channels of one tap, filters."""
    n, channels, *space = spec.output
    return n * math.prod(space), -(-spec.in_channels // EIGHT) * EIGHT, channels


def kernel_cycles(spec: ConvSpec, gpu: Gpu, knobs: Knobs) -> float:
    """Return clocks of one launch: whole waves of tiles, or the bytes.

    The numbers are of data sheets: none of these kernels ran on a device yet.
    """
    pixels, _, channels = _product(spec)
    m, n, split = knobs["pixels"], knobs["channels"], knobs["split"]
    form = FORMS[knobs["form"]]
    steps = _part_steps(spec, knobs["step"], split)
    rate = _WGMMA if form != "ampere" else 2.0 * gpu.tf32_macs
    rate *= _SHARE * (n / (n + _HALF)) * (m / (m + _HALF))
    blocks = split * -(-pixels // m) * -(-channels // n)
    # Ampere's blocks of 4 warps run two at a time, one's edges behind the other's products.
    edges = _EDGES if form == "hopper" else _EDGES / 2
    work = -(-blocks // gpu.sms) * (steps * m * n * knobs["step"] / rate + edges)
    # Parts are written and read once more by a kernel of ours.
    moved = memory_cycles(gpu, 2 * sums_bytes(spec, knobs))
    launches = 2 if split > 1 else 1
    return (
        max(work, memory_cycles(gpu, spec.nbytes))
        + moved
        + launches * LAUNCH_SECONDS * gpu.clock_hz
    )
