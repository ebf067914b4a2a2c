"""THE ALGORITHM of `weight_gradient_grouped`: which sums a thread has, over which columns of points, and how they meet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from tvm import te, tirx

from convc.ir.ops.conv import accumulator
from convc.ir.spec import ConvSpec
from convc.schedules.matrices import ravel, unravel
from convc.schedules.plan import Knobs
from convc.schedules.rank import raised
from convc.schedules.vector_gemm import lanes

__all__ = ["HALF", "Units", "columns_of", "compute", "steps_of", "tiles_of"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27

HALF: Final = ("float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class Units:
    """What a thread's sums are of.

    Attributes:
        count: of units.
        filters: of one.
        channels: of the data that they meet.
        block: channels of a block of memory, 0 where memory is plain.
    """

    count: int
    filters: int
    channels: int
    block: int

    @staticmethod
    def of(spec: ConvSpec) -> Units:
        group_c, group_k = spec.weight[1], spec.out_channels // spec.group
        e = lanes(spec.dtype) if spec.dtype in HALF else 0
        if e and group_c == group_k and e % group_k == 0:
            return Units(-(-spec.out_channels // e), e, e, e)
        return Units(spec.group, group_k, group_c, 0)


def columns_of(spec: ConvSpec, rows: int) -> int:
    """Return how many columns of so many points there are."""
    return spec.data[0] * math.prod(spec.output[2:]) // rows


def steps_of(spec: ConvSpec, knobs: Knobs) -> int:
    """Return the columns of a thread."""
    return -(-columns_of(spec, knobs["rows"]) // (knobs["threads"] * knobs["split"]))


def tiles_of(spec: ConvSpec, knobs: Knobs) -> tuple[int, ...]:
    """Return how many tiles of taps there are, per axis."""
    *planes, R, S = spec.kernel
    return (*planes, -(-R // knobs["tap_rows"]), -(-S // knobs["tap_columns"]))


def compute(spec: ConvSpec, knobs: Knobs) -> list[te.Tensor]:
    """Return x, dy, dw; blocks `column` of dy, `window` of x, `part`, `sums` and `total`."""
    plain, spec = spec, raised(spec)
    units, wide, group_c = Units.of(spec), accumulator(spec.dtype), spec.weight[1]
    rows, threads, split, filters = knobs["rows"], knobs["threads"], knobs["split"], units.filters
    steps, columns, tiles = steps_of(spec, knobs), columns_of(spec, rows), tiles_of(spec, knobs)
    of_tile, group_k = (knobs["tap_rows"], knobs["tap_columns"]), spec.out_channels // spec.group
    stride_h, zero = spec.strides[-2], tirx.const(0, spec.dtype)
    x, dy = _placeholders(spec if units.block else plain, units.block)

    def element(tensor: te.Tensor, n: Expr, u: Expr, lane: Expr, count: int, at: list[Expr]) -> Expr:  # fmt: skip
        if units.block:
            return tensor(n, u, *at, lane)
        return tensor(n, u * count + lane, *at[len(at) - plain.rank :])

    def place(z: Expr, step: Expr, thread: Expr) -> tuple[list[Expr], Expr, list[Expr]]:
        """Return whether there is such a column, its image, and where it begins."""
        term = (z * steps + step) * threads + thread
        *planes, P, Q = spec.output[2:]
        n, *at = unravel(term, (1, *planes, P // rows, Q))
        at[-2] = at[-2] * rows
        return [term < columns] if steps * threads * split != columns else [], n, at

    def guarded(conditions: list[Expr], value: Expr) -> Expr:
        return tirx.if_then_else(tirx.all(*conditions), value, zero) if conditions else value

    def gradient(z: Expr, u: Expr, step: Expr, thread: Expr, row: Expr, lane: Expr) -> Expr:
        inside, n, at = place(z, step, thread)
        at[-2] = at[-2] + row
        return guarded(inside, element(dy, n, u, lane, filters, at))

    def data(z: Expr, u: Expr, tile: Expr, step: Expr, thread: Expr, h: Expr, s: Expr, lane: Expr) -> Expr:  # fmt: skip
        inside, n, at = place(z, step, thread)
        *planes, r_tile, s_tile = unravel(tile, tiles)
        # Of several rows, whose filters are not dilated: how many behind the first one that the column reads.
        taps = [*planes, r_tile * of_tile[0] + h, s_tile * of_tile[1] + s]
        index = []
        for axis, (p, r) in enumerate(zip(at, taps, strict=True)):
            stride, dilation, pad, extent = spec.strides[axis], spec.dilations[axis], spec.pads[axis], spec.data[2 + axis]  # fmt: skip
            position = p * stride + r * dilation - pad
            most = tiles[axis] * (1, *of_tile)[axis - spec.rank]
            inside += [position >= 0] if pad else []
            inside += [position < extent] if (spec.output[2 + axis] - 1) * stride + (most - 1) * dilation - pad >= extent else []  # fmt: skip
            index.append(position)
        return guarded(inside, element(x, n, u, lane, units.channels, index))

    count, high = math.prod(tiles), of_tile[0] if rows == 1 else (rows - 1) * stride_h + of_tile[0]
    column = te.compute((split, units.count, steps, threads, rows, filters), gradient, name="column")  # fmt: skip
    window = te.compute((split, units.count, count, steps, threads, high, of_tile[1], units.channels), data, name="window")  # fmt: skip
    step, row = te.reduce_axis((0, steps), "step"), te.reduce_axis((0, rows), "row")

    def product(z: Expr, u: Expr, tile: Expr, r: Expr, s: Expr, e: Expr, i: Expr, t: Expr) -> Expr:
        h = row * stride_h + r if rows > 1 else r
        value = window(z, u, tile, step, t, h, s, e // group_k * group_c + i)
        return te.sum(value.astype(wide) * column(z, u, step, t, row, e).astype(wide), axis=[step, row])  # fmt: skip

    shape = (split, units.count, count, *of_tile, filters, group_c)
    part = te.compute((*shape, threads), product, name="part")
    thread = te.reduce_axis((0, threads), "thread")
    sums = te.compute(shape, lambda *at: te.sum(part(*at, thread), axis=thread), name="sums")
    z = te.reduce_axis((0, split), "z")

    def total_of(k: Expr, i: Expr, *tap: Expr) -> Expr:
        *planes, r, s = tap if len(tap) == spec.rank else (0, *tap)
        tile = ravel((*planes, r // of_tile[0], s // of_tile[1]), (1, *tiles[1:]))
        place = sums(z, k // filters, tile, r % of_tile[0], s % of_tile[1], k % filters, i)
        return te.sum(place, axis=z)

    total = te.compute(plain.weight, total_of, name="total")
    if wide == spec.dtype:
        return [x, dy, total]
    return [x, dy, te.compute(plain.weight, lambda *at: total(*at).astype(spec.dtype), name="narrow")]  # fmt: skip


def _placeholders(spec: ConvSpec, block: int) -> list[te.Tensor]:
    """Return x and dy, in blocks of channels if there are such."""
    made = []
    for name, (n, c, *extents) in (("data", spec.data), ("gradient", spec.output)):
        shape = (n, -(-c // block), *extents, block) if block else (n, c, *extents)
        made.append(te.placeholder(shape, spec.dtype, name=name))
    return made
