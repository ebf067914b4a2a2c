"""A weight gradient on a device as matrix products: their extents, both sides looked up in x and dy, the sums brought to their places.

THE ALGORITHM   acc[z, k, m] = sum over i of left[z, i, k] patch[z, i, m]       z: part of the sum, group
                left[z, i, k] = dy[n, k, p...]         patch[z, i, m] = x[n, c, p stride + r dilation - pad...], 0 outside
                i = (n, p...), m = (c, r...)           both looked up when needed and never stored
                dw[k, c, r...] = sum over the parts of acc, one after the other, by a second kernel where there are several
SOURCE          Chetlur et al., arXiv:1410.0759 (backward filter convolution as implicit GEMM); NVIDIA CUTLASS (split K)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from tvm import te, tirx

from convc.ir.ops.conv import accumulator
from convc.ir.spec import ConvSpec
from convc.ir.types import numpy_dtype
from convc.schedules.algorithm import Operands
from convc.schedules.cuda.indices import INDICES, indexed
from convc.schedules.layout import PLAIN, Halo, Layout
from convc.schedules.matrices import Matrices, ravel, unravel
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.policy import Policy
from convc.schedules.properties import Properties, sum_error

__all__ = ["Side", "both_looked_up", "fastest_of", "fastest_within", "finish", "gradient_layout", "is_in_parts", "matrices", "operands", "parts_of", "properties", "refusal", "sides", "split_up", "tiles_refusal", "workspace"]  # fmt: skip

Expr = Any  # TVM's scalar expressions have no common public class in 0.27
# (z, where a step of the sum begins, place in the step, channel or pixel) -> element
Side = Callable[[Expr, Expr, Expr, Expr], Expr]

# Blocks along the axis of a grid that counts parts and groups, at most.
_GRID: Final = 65535

# Parts of the sum: fewer than those from which on warps would add them up, each thread reading from another place.
_SPLITS: Final = (1, 2, 4, 8, 16, 32, 48)

# Terms of a part, at least.
_PART: Final = 64


def refusal(spec: ConvSpec, types: tuple[str, ...]) -> Unsupported | None:
    """Return why the weight gradient of a convolution is no such products, or None.

    Args:
        spec: the forward convolution.
        types: of the operands.
    """
    if 0 in (*spec.data, *spec.output):
        return Unsupported("data must not be empty")
    if spec.dtype not in types:
        return Unsupported(f"element type must be {', '.join(types)}; got {spec.dtype}")
    if spec.group > _GRID:
        return Unsupported(f"groups must be at most {_GRID}; got {spec.group}")
    return indexed(spec)


def tiles_refusal(spec: ConvSpec, tiles: Iterable[Knobs], room: str) -> Unsupported | None:
    """Return why none of the tiles can be taken, or None.

    Args:
        spec: the forward convolution.
        tiles: those that fit the device.
        room: what they had to fit, for the reason.
    """
    fewest = None
    for tile in tiles:
        sums = _sums(spec, {**tile, "split": 1})
        if sums < INDICES:
            return None
        fewest = sums if fewest is None else min(fewest, sums)
    if fewest is None:
        return Unsupported(f"a tile must fit {room}; got none that does")
    return Unsupported(f"sums of tiles must be fewer than {INDICES}; got {fewest}")


def matrices(spec: ConvSpec, knobs: Knobs) -> Matrices:
    """Return the extents of the products: channels of the result by (input channel, tap), summed over (image, point).

    Example:
        >>> spec = ConvSpec.of((2, 3, 8, 8), (20, 3, 3, 3))
        >>> m = matrices(spec, {"channels": 16, "pixels": 32, "step": 8, "split": 2})
        >>> (m.channels, m.pixels, m.depth), (m.padded_channels, m.padded_pixels, m.padded_depth)
        ((20, 27, 72), (32, 32, 40))
    """
    channels, pixels = spec.out_channels // spec.group, math.prod(spec.weight[1:])
    depth = spec.data[0] * math.prod(spec.output[2:])

    def whole(extent: int, tile: int) -> int:
        return -(-extent // tile) * tile

    return Matrices(
        spec.group, 1, knobs["split"], channels, depth, pixels,
        whole(channels, knobs["channels"]), whole(-(-depth // knobs["split"]), knobs["step"]), whole(pixels, knobs["pixels"]),
        knobs["step"], spec.kernel, spec.output[2:],
    )  # fmt: skip


def split_up(spec: ConvSpec, tiles: Iterable[Knobs]) -> Iterator[Knobs]:
    """Yield tiles with the parts that a sum may have."""
    for tile in tiles:
        for split in parts_of(spec):
            knobs = {**tile, "split": split}
            if _sums(spec, knobs) < INDICES:
                yield knobs


def parts_of(spec: ConvSpec) -> list[int]:
    """Return into how many parts a sum may be split."""
    depth = spec.data[0] * math.prod(spec.output[2:])
    return [n for n in _SPLITS if n == 1 or (depth >= _PART * n and n * spec.group <= _GRID)]


def fastest_within(
    spec: ConvSpec, space: Iterable[Knobs], cycles: Callable[[Knobs], float], policy: Policy
) -> Knobs:
    """Return the fastest of those whose partial sums keep the policy's limit, or of those with the fewest where none do."""
    return fastest_of(space, cycles, lambda k: workspace(spec, k), policy)


def fastest_of(
    space: Iterable[Knobs],
    cycles: Callable[[Knobs], float],
    workspace: Callable[[Knobs], int],
    policy: Policy,
) -> Knobs:
    """Return the fastest of the settings whose workspace keeps the policy's limit, or of those with the least where none do."""
    settings, limit = list(space), policy.workspace_limit
    if limit is not None:
        needed = [workspace(k) for k in settings]
        bound = max(limit, min(needed))
        settings = [k for k, n in zip(settings, needed, strict=True) if n <= bound]
    return min(settings, key=cycles)


def both_looked_up(knobs: Knobs) -> dict[str, Any]:
    """Return the knobs as the model of a product must see them: its right side is looked up, here the left one is, too."""
    pixels = knobs["pixels"]
    return {**knobs, "vector": knobs["vector"] * pixels / (pixels + knobs["channels"])}


def operands(spec: ConvSpec, knobs: Knobs) -> Operands:
    """Return plain layouts."""
    return Operands(PLAIN, Halo(), PLAIN)


def gradient_layout(knobs: Knobs) -> Layout:
    """Return the layout of dy."""
    return PLAIN


def properties(spec: ConvSpec, knobs: Knobs) -> Properties:
    """Return them: the chain of a part, then that over the parts."""
    additions = matrices(spec, knobs).padded_depth + knobs["split"]
    return Properties(spec.flops, workspace(spec, knobs), sum_error(additions))


def workspace(spec: ConvSpec, knobs: Knobs) -> int:
    """Return bytes of the sums that a second kernel adds up."""
    return numpy_dtype(accumulator(spec.dtype)).itemsize * _sums(spec, knobs)


def _sums(spec: ConvSpec, knobs: Knobs) -> int:
    m = matrices(spec, knobs)
    return m.products * m.padded_channels * m.padded_pixels if is_in_parts(spec, knobs) else 0


def is_in_parts(spec: ConvSpec, knobs: Knobs) -> bool:
    """Whether a second kernel adds up sums: parts, and groups', whose tiles TVM's loops would not store in place."""
    return knobs["split"] > 1 or spec.group > 1


def sides(
    spec: ConvSpec, m: Matrices, x: Callable[..., Expr], dy: Callable[..., Expr]
) -> tuple[Side, Side]:
    """Return `left` and `patch` as functions.

    Args:
        spec: the forward convolution.
        m: its products.
        x: the data, a tensor or its elements.
        dy: the result's gradient, likewise.
    """
    groups, split, zero = spec.group, m.split, tirx.const(0, spec.dtype)

    def place(z: Expr, start: Expr, i: Expr) -> tuple[list[Expr], list[Expr]]:
        """Return whether there is such a term of a sum, and its image and point."""
        term = (z // groups * m.padded_depth if split > 1 else 0) + start + i
        inside = [term < m.depth] if split * m.padded_depth != m.depth else []
        return inside, unravel(term, (1, *m.points))

    def left(z: Expr, start: Expr, i: Expr, k: Expr) -> Expr:
        conditions, (n, *at) = place(z, start, i)
        if m.padded_channels != m.channels:
            conditions.append(k < m.channels)
        element = dy(n, z % groups * m.channels + k, *at)
        return tirx.if_then_else(tirx.all(*conditions), element, zero) if conditions else element

    def patch(z: Expr, start: Expr, i: Expr, pixel: Expr) -> Expr:
        conditions, (n, *at) = place(z, start, i)
        if m.padded_pixels != m.pixels:
            conditions.append(pixel < m.pixels)
        c, *taps = unravel(pixel, (1, *m.taps))
        index = []
        for axis, (p, r) in enumerate(zip(at, taps, strict=True)):
            stride, pad, extent = spec.strides[axis], spec.pads[axis], spec.data[2 + axis]
            position = p * stride + r * spec.dilations[axis] - pad
            reach = (m.points[axis] - 1) * stride + spec.effective_kernel[axis] - pad
            conditions += [position >= 0] if pad > 0 else []
            conditions += [position < extent] if reach > extent else []
            index.append(position)
        element = x(n, z % groups * spec.weight[1] + c, *index)
        return tirx.if_then_else(tirx.all(*conditions), element, zero) if conditions else element

    return left, patch


def finish(
    spec: ConvSpec, m: Matrices, acc: te.Tensor, column: Callable[..., Expr] | None = None
) -> te.Tensor:
    """Return the sums [z][k][m] in their places and type; block `total` adds up what is in parts.

    Args:
        spec: the forward convolution.
        m: its products.
        acc: the sums.
        column: (c, r...) -> m, where it is not row-major; block `total` then brings sums to their places, in parts or not.
    """
    channels, taps = spec.out_channels // spec.group, spec.kernel

    def sum_of(z: Expr, k: Expr, at: tuple[Expr, ...]) -> Expr:
        # Written out for one group: of one channel TVM would take k // 1 for an index of its own.
        group, channel = (k // channels, k % channels) if m.groups > 1 else (0, k)
        place = column(*at) if column is not None else ravel(at, (1, *taps))
        return acc[z * m.groups + group, channel, place]

    if m.split == 1 and m.groups == 1 and column is None:
        return te.compute(spec.weight, lambda k, *at: sum_of(0, k, at).astype(spec.dtype), name="result")  # fmt: skip
    part = te.reduce_axis((0, m.split), "part")
    total = te.compute(spec.weight, lambda k, *at: te.sum(sum_of(part, k, at), axis=part), name="total")  # fmt: skip
    if total.dtype == spec.dtype:
        return total
    return te.compute(spec.weight, lambda *at: total(*at).astype(spec.dtype), name="narrow")
