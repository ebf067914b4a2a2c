"""Weight gradient of half precision on tensor cores, data and gradient in blocks of 8 channels: `weight_products` with `term_rows`.

THE ALGORITHM   `weight_products` on blocks of channels: of one term, eight channels of dy, or of x under one tap, are 16 bytes, one
                asynchronous copy into shared memory and one row of `ldmatrix.trans`; no element is looked up by itself
WHEN            1-D, 2-D, 3-D, float16 and bfloat16; any stride, dilation and padding; one group, or groups of whole blocks
COST            as `weight_gradient_tensor_core`, channels rounded up to blocks; a second kernel always, which brings sums to their places
ACCURACY        as `weight_gradient_tensor_core`
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

from tvm import te, tirx

from convc.ir.ops.conv import accumulator
from convc.ir.spec import ConvSpec
from convc.ir.types import numpy_dtype
from convc.schedules.algorithm import Operands
from convc.schedules.cuda import term_rows
from convc.schedules.cuda.adding import EIGHT, add_eights
from convc.schedules.cuda.indices import INDICES, indexed
from convc.schedules.cuda.mma import too_old
from convc.schedules.cuda.product import schedule_with
from convc.schedules.cuda.row_model import launched_rows, patch_rate, row_cycles
from convc.schedules.cuda.row_tiles import fills_stages, row_tiles
from convc.schedules.cuda.row_warps import row_product
from convc.schedules.cuda.weight_products import (
    fastest_of,
    finish,
    matrices,
    parts_of,
    refusal,
    sides,
)
from convc.schedules.layout import PLAIN, Halo, Layout
from convc.schedules.matrices import Matrices, ravel
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.policy import Policy
from convc.schedules.properties import Properties, sum_error
from convc.schedules.rank import raised
from convc.schedules.vector_gemm import lanes
from convc.target import Target

__all__ = ["NAME", "ON_REQUEST", "compute", "cycles", "gradient_layout", "knobs", "knobs_within", "operands", "properties", "schedule", "space", "supports"]  # fmt: skip

NAME: Final = "tensor_core_blocked"
ON_REQUEST: Final = ""

_TYPES: Final = ("float16", "bfloat16")
_E: Final = 8


def supports(spec: ConvSpec, target: Target) -> Unsupported | None:
    """Return why the convolution's weight gradient is not computed this way, or None.

    Args:
        spec: the forward convolution.
        target: the machine.
    """
    refused = too_old(target) or refusal(spec, _TYPES) or indexed(spec, _E)
    if refused is not None:
        return refused
    group_c, group_k = spec.weight[1], spec.out_channels // spec.group
    if spec.group > 1 and (group_c % _E or group_k % _E):
        return Unsupported(
            f"channels of a group must be multiples of {_E}; got {group_c} and {group_k}"
        )
    if not any(True for _ in space(spec, target)):
        return Unsupported(f"sums of tiles must be fewer than {INDICES}; got more")
    return None


def space(spec: ConvSpec, target: Target) -> Iterator[Knobs]:
    """Yield legal tiles, and parts of the sum."""
    whole = _matrices(spec, {"channels": _E, "pixels": _E, "step": 1, "split": 1})
    tiles = row_tiles(
        target.gpu,
        whole.channels * _E,
        whole.pixels * _E,
        spec.dtype,
        exact=False,
        warpgroups=target.gpu.warpgroups,
    )
    for tile in tiles:
        for split in parts_of(spec):
            knobs = {**tile, "split": split}
            if _sums(spec, knobs) < INDICES and fills_stages(tile, -(-whole.depth // split)):
                yield knobs


def knobs(spec: ConvSpec, target: Target) -> Knobs:
    """Return the tile and the parts of the sum that the model finds fastest."""
    return knobs_within(spec, target, Policy())


def knobs_within(spec: ConvSpec, target: Target, policy: Policy) -> Knobs:
    """Return the fastest of those whose sums keep the policy's limit, or of those with the fewest where none do."""
    return fastest_of(
        space(spec, target), lambda k: cycles(spec, target, k), lambda k: _nbytes(spec, k), policy
    )


def _matrices(spec: ConvSpec, knobs: Knobs) -> Matrices:
    """Return the extents of the products, channels and pixels in blocks."""
    blocks = {name: knobs[name] // _E for name in ("channels", "pixels")}
    return matrices(_of_blocks(spec), {**knobs, **blocks})


def _of_blocks(spec: ConvSpec) -> ConvSpec:
    """Return the convolution, of two axes at least, with blocks of channels in place of channels."""
    spec = raised(spec)
    n, c, *extents = spec.data
    k, per_group, *taps = spec.weight
    return replace(
        spec,
        data=(n, -(-c // _E), *extents),
        weight=(-(-k // _E), -(-per_group // _E), *taps),
    )


def _sums(spec: ConvSpec, knobs: Knobs) -> int:
    m = _matrices(spec, knobs)
    return m.products * m.padded_channels * m.padded_pixels * _E * _E


def _nbytes(spec: ConvSpec, knobs: Knobs) -> int:
    return numpy_dtype(accumulator(spec.dtype)).itemsize * _sums(spec, knobs)


def properties(spec: ConvSpec, knobs: Knobs) -> Properties:
    """Return them: the chain of a part, then that over the parts; all sums lie in memory before they come to their places."""
    additions = _matrices(spec, knobs).padded_depth + knobs["split"]
    return Properties(spec.flops, _nbytes(spec, knobs), sum_error(additions))


def cycles(spec: ConvSpec, target: Target, knobs: Knobs) -> float:
    """Return clocks of the products, or of the bytes if those take longer, and of the launches."""
    m = _matrices(spec, knobs)
    extents = (m.products, m.padded_channels * _E, m.padded_pixels * _E, m.padded_depth)
    stored = numpy_dtype(accumulator(spec.dtype)).itemsize
    work = row_cycles(
        target.gpu, *extents, knobs, spec.dtype, rate=patch_rate(spec, knobs), stored=stored
    )
    return launched_rows(target.gpu, work, spec.nbytes, _nbytes(spec, knobs))


def operands(spec: ConvSpec, knobs: Knobs) -> Operands:
    """Return blocks of 16 bytes, without a halo: what lies outside is not copied but filled with zeros."""
    return Operands(Layout(_E), Halo(), PLAIN)


def gradient_layout(knobs: Knobs) -> Layout:
    """Return the layout of dy."""
    return Layout(_E)


def compute(spec: ConvSpec, knobs: Knobs) -> list[te.Tensor]:
    """Return x, dy, dw; the blocks of `term_rows`, and `total`."""
    blocks, m = _of_blocks(spec), _matrices(spec, knobs)
    assert lanes(spec.dtype) == _E
    x = te.placeholder((*blocks.data, _E), spec.dtype, name="data")
    dy = te.placeholder((*blocks.output, _E), spec.dtype, name="gradient")

    def side(which: int) -> Any:
        return lambda lane: sides(blocks, m, lambda *at: x(*at, lane), lambda *at: dy(*at, lane))[
            which
        ]

    acc = term_rows.product(m, side(0), side(1), spec.dtype, accumulator(spec.dtype))

    def column(c: Any, *at: Any) -> Any:
        return ravel((c // _E, *at), (1, *spec.kernel)) * _E + c % _E

    return [x, dy, finish(spec, m, acc, column)]


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the PrimFunc of `compute` scheduled: the products' kernel, and one that brings sums to their places."""
    _, channels, *_ = func.params[-1].ty.shape
    # Eight neighbouring channels of x are neighbouring sums.
    adding = partial(add_eights, axis=1) if int(channels) % EIGHT == 0 else None
    return schedule_with(
        row_product, ("weight", "patch", "acc", "flat"), func, knobs, target, adding
    )
