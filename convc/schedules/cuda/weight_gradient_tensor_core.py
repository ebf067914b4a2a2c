"""Weight gradient of a convolution on tensor cores: `weight_products` with `fragments`, both sides looked up.

THE ALGORITHM   `weight_products`; dy goes into shared memory as the lanes of a warp load packed weights elsewhere
WHEN            1-D, 2-D, 3-D, float32, float16 and bfloat16; any stride, dilation, padding and group
COST            as `weight_gradient`; what is looked up takes longer than the products do
ACCURACY        float16, bfloat16: products exact, a part's sum in float32 on the tensor core, which may cut off an eps every 16 terms;
                float32 by three TF32 products, see `mma`; parts always in the same order
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tvm import s_tir, te, tirx

from convc.ir.ops.conv import accumulator
from convc.ir.spec import ConvSpec
from convc.schedules.cuda import fragments
from convc.schedules.cuda.mma import too_old
from convc.schedules.cuda.model import launched_cycles
from convc.schedules.cuda.product import Block, Loop, schedule_with
from convc.schedules.cuda.warp_tiles import warp_cycles, warp_tiles
from convc.schedules.cuda.warps import warp_product
from convc.schedules.cuda.weight_products import (
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

NAME: Final = "tensor_core"
ON_REQUEST: Final = ""

_TYPES: Final = ("float32", "float16", "bfloat16")

# Words of a step that one thread looks up: with 36 and more, ptxas (CUDA 13, sm_80 and sm_90) spilled up to 1136 bytes, or kept them in
# local memory; of 80 settings with fewer two spilled 16 bytes.
_WORDS: Final = 32


def supports(spec: ConvSpec, target: Target) -> Unsupported | None:
    """Return why the convolution's weight gradient is not computed this way, or None.

    Args:
        spec: the forward convolution.
        target: the machine.
    """
    room = f"the device's shared memory, its registers and {_WORDS} words a thread looks up"
    refused = too_old(target) or refusal(spec, _TYPES)
    return refused or tiles_refusal(spec, _tiles(spec, target), room)


def space(spec: ConvSpec, target: Target) -> Iterator[Knobs]:
    """Yield legal tiles, and parts of the sum."""
    return split_up(spec, _tiles(spec, target))


def _tiles(spec: ConvSpec, target: Target) -> Iterator[Knobs]:
    whole = matrices(spec, {"channels": 1, "pixels": 1, "step": 1, "split": 1})
    many = 3 if spec.dtype == "float32" else 1
    tiles = warp_tiles(target.gpu, whole.channels, whole.pixels, spec.dtype, math=many, exact=False)
    return (tile for tile in tiles if _looked_up(tile, spec.dtype) <= _WORDS)


def _looked_up(tile: Knobs, dtype: str) -> float:
    """Return the words of a step that one thread looks up."""
    warps = (tile["channels"] // tile["warp_channels"]) * (tile["pixels"] // tile["warp_pixels"])
    words = (tile["channels"] + tile["pixels"]) * tile["step"] / fragments.elements_of(dtype)
    return words / (32 * warps)


def knobs(spec: ConvSpec, target: Target) -> Knobs:
    """Return the tile and the parts of the sum that the model finds fastest."""
    return knobs_within(spec, target, Policy())


def knobs_within(spec: ConvSpec, target: Target, policy: Policy) -> Knobs:
    """Return the fastest of those whose partial sums keep the policy's limit, or of those with the fewest where none do."""
    return fastest_within(spec, space(spec, target), lambda k: cycles(spec, target, k), policy)


def cycles(spec: ConvSpec, target: Target, knobs: Knobs) -> float:
    """Return clocks of the products, or of the bytes if those take longer, and of the launches."""
    m = matrices(spec, knobs)
    work = warp_cycles(
        target.gpu,
        m.products,
        m.padded_channels,
        m.padded_pixels,
        m.padded_depth,
        both_looked_up(knobs),
        spec.dtype,
    )
    return launched_cycles(target.gpu, work, spec.nbytes, workspace(spec, knobs))


def compute(spec: ConvSpec, knobs: Knobs) -> list[te.Tensor]:
    """Return x, dy, dw; blocks `weight` (dy in fragments), `patch`, `acc`, `flat`, and where sums are in parts `total`."""
    m = matrices(spec, knobs)
    x = te.placeholder(spec.data, spec.dtype, name="data")
    dy = te.placeholder(spec.output, spec.dtype, name="gradient")
    left, patch = sides(spec, m, x, dy)

    def element(z: Any, i: Any, k: Any) -> Any:
        return left(z, 0, i, k)

    _, acc = fragments.product(m, patch, spec.dtype, accumulator(spec.dtype), element)
    return [x, dy, finish(spec, m, acc)]


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `compute` scheduled: the products' kernel, and where there are parts one that adds them up."""
    return schedule_with(_product, ("weight", "patch", "acc", "flat"), func, knobs, target)


def _product(sch: s_tir.Schedule, knobs: Knobs, out: Block | None) -> None:
    warp_product(sch, knobs, out, _look_up)


def _look_up(
    sch: s_tir.Schedule, step: Loop, threads: int, knobs: Knobs
) -> tuple[tuple[Block, Block], list[Loop]]:
    """Let threads look up both sides of a step, neighbours neighbouring points, which lie together in x and dy."""
    patch, weight = sch.get_sblock("patch"), sch.get_sblock("weight")
    for block in (patch, weight):
        sch.set_scope(block, 0, "shared")
        sch.compute_at(block, step, preserve_unit_loops=True)
    *outer, words, pixels, e = sch.get_loops(patch)[-5:]
    sch.reorder(pixels, words)
    rests = [_shared_out(sch, [*outer, pixels, words], threads), e]
    *outer, tile, lane, word, e = sch.get_loops(weight)[-6:]
    # As `fragments` packs: terms 4 h + b of channels 8 r + a.
    a, b = sch.split(lane, [None, 4])
    h, r = sch.split(word, [None, 2])
    sch.reorder(*outer, tile, r, a, h, b, e)
    return (patch, weight), [*rests, _shared_out(sch, [*outer, tile, r, a, h, b], threads), e]


def _shared_out(sch: s_tir.Schedule, words: list[Loop], threads: int) -> Loop:
    """Let all threads of a block write words; return a thread's loop over its own."""
    rest, thread = sch.split(sch.fuse(*words), [None, threads])
    sch.bind(thread, "threadIdx.x")
    return rest
