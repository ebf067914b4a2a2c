"""Direct convolution on channel blocks: no transform, no copy, every stride, dilation, pad and channel count.

THE ALGORITHM   y[n, k, p, q] = sum over c, r, s of x[n, c, p stride + r dilation, q stride + s dilation] w[k, c, r, s]
                on x as NCHW[a]c (a = 1 for the first layer), y as NCHW[b]c, w as [K/(v b)][C/a][R][S][a][v b]
                3-D: a depth axis more everywhere, its taps in the sum; one slice of results after another
                groups: each vector of results reads the blocks that its groups' inputs lie in, see `span`
WHEN            any geometry
                most of what the taps read is padding: tiles skip taps that read nothing else, see `clipping` (the knob `clip`), and
                sum very many channels in parts, see `channel_parts` (`parts`)
                bfloat16, where the CPU has vdpbf16ps: x and w read as pairs of channels, two products a lane (the knob `pairs`)
COST            C/group R S FMAs an output point, C/group rounded up to those blocks; tails of the register tile
ACCURACY        one chain of C R S fused multiply-adds: |error| <= C R S eps (|x| * |w|)
SOURCE          Georganas et al., SC'18 (loop order, layouts); Liu et al., ATC'19 (NCHW[x]c in TVM)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Final

import numpy as np
from tvm import te, tirx

from convc.ir.spec import ConvSpec
from convc.ir.types import numpy_dtype
from convc.schedules import clipping, packing
from convc.schedules.algorithm import (
    Operands,
    Problem,
    channel_block,
    channel_blocks,
    gathered_halo,
    row_chunks,
    row_shares,
    two_panels_fit,
)
from convc.schedules.blocked_epilogue import blocked_extras, blocked_result
from convc.schedules.channel_parts import MOST_OF_L2, added, scratch_bytes
from convc.schedules.direct_data import DOT_BF16, PAIRED, gathered, lines_from_l2, ways
from convc.schedules.layout import Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.properties import Properties, direct_error
from convc.schedules.rank import raised, raised_weight
from convc.schedules.register_tile import Tile, best_tile, good_tiles, tile_cycles
from convc.schedules.requirements import packed_images
from convc.schedules.sharing import turns
from convc.schedules.span import Span
from convc.target import Target

__all__ = ["ALGORITHM", "Direct", "shared_units"]

# Up to this many input channels the data stays NCHW: a block of 8 or 16 would be mostly padding (RGB images: 3 of 16).
_FEW_CHANNELS = 4

# One tap with a stride reads one line of several, which hardware does not fetch ahead as well. On a core of an Intel Xeon, where they
# are -> gathered, in us: 256 -> 512 channels from 56 x 56 1473 -> 1275, 512 from 28 x 28 1282 -> 1161, 1024 from 14 x 14 1273 -> 1239.
_STRIDED: Final = 1.12

# The part of the weights' stream that FMAs do not hide where whole panels are fetched ahead. On a core of an Intel Xeon, in us: 1x1 512 ->
# 2048 at 7 x 7 650, of which FMAs 577 and the stream 250; 3x3 stride 2, 256 -> 512 from 14 x 14 727, 650 and 280; 512 -> 512 1550 with
# panels of 295 KB, 1870 with such as do not fit.
_PANELS_UNCOVERED: Final = 0.3


class Direct:
    """See the module's text."""

    name = "direct"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        return packed_images(problem, most_axes=3)

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return tile and blocks."""
        spec = raised(problem.spec)
        c, rows = spec.in_channels, spec.output[-2]
        options = []
        for way in ways(problem, target):
            if way.get("pairs"):
                data_block, block = PAIRED if c <= PAIRED else target.lanes, target.lanes
            else:
                data_block = 1 if c <= _FEW_CHANNELS else channel_block(c, target)
                block = channel_block(spec.out_channels, target)
            for tile, handicap in _tiles(spec, target, block):
                chunks = row_chunks(spec, target, tile.rows, rows)
                knobs = _knobs(tile, data_block, block, chunks, way)
                options.append((self.cycles(problem, target, knobs) * handicap, -tile.cols, knobs))
        return min(options, key=lambda option: option[:2])[2]

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield every block and good tile."""
        spec = raised(problem.spec)
        rows, cols = spec.output[-2:]
        c = spec.in_channels
        plain = (1,) if c <= _FEW_CHANNELS else channel_blocks(c, target)
        paired = (PAIRED if c <= PAIRED else target.lanes,)
        blocks = channel_blocks(spec.out_channels, target)
        for way, block in itertools.product(ways(problem, target), blocks):
            if way.get("pairs") and block != target.lanes:
                continue
            data_blocks = paired if way.get("pairs") else plain
            vectors = -(-spec.out_channels // block)
            for tile in good_tiles(target, rows, cols, vectors, block=block):
                shares = row_shares(target, tile.rows, rows)
                for data_block, chunks in itertools.product(data_blocks, shares):
                    yield _knobs(tile, data_block, block, chunks, way)

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return FMA cycles of all tiles and the part of the weights' way from memory that they do not hide."""
        core = target.core
        spec = raised(problem.spec)
        tile = Tile(knobs["rows"], knobs["cols"], knobs["vectors"])
        vectors = -(-spec.out_channels // knobs["block"])
        c = _channels(spec, knobs["data_block"], _span(spec, knobs))
        slices = math.prod(spec.output[2:-2])
        steps = spec.data[0] * slices * c * math.prod(spec.kernel)
        rows, cols = spec.output[-2:]
        compute = steps * tile_cycles(target, tile, rows, cols, vectors, knobs["block"])
        if knobs.get("clip"):
            compute *= clipping.share(spec, _tile(spec, knobs))
        if knobs.get("pairs"):
            compute *= core.fmas / core.bf16_dots / 2
        gathered = 0.0
        if knobs.get("gather"):
            points = spec.data[0] * spec.in_channels * math.prod(spec.output[2:])
            gathered = 2 * 4 * points / core.data
        elif "gather" in knobs:
            compute *= _STRIDED
        stream = 4 * math.prod(spec.weight) / target.memory_bytes
        parts = knobs.get("parts", 1)
        panel = 4 * c * math.prod(spec.kernel) * knobs["vectors"] * knobs["block"] // parts
        if panel > MOST_OF_L2 * target.l2_bytes:
            # Every tile reads the panel anew from where it comes from.
            stream *= -(-rows // tile.rows) * -(-cols // tile.cols)
            stream *= clipping.share(spec, _tile(spec, knobs)) if knobs.get("clip") else 1.0
        uncovered = core.uncovered
        if two_panels_fit(panel, target):
            # Fetched while the panel before is read, and not just before it is read itself.
            uncovered = min(_PANELS_UNCOVERED, uncovered)
        work = max(compute, stream) + uncovered * min(compute, stream)
        kept = 2 * 4 * parts * math.prod(spec.output) / core.l2 if parts > 1 else 0.0
        work += lines_from_l2(spec, target, tile, vectors) if knobs["data_block"] == 1 else 0.0
        cycles = gathered + kept + max(work, spec.nbytes / core.data)
        return cycles * turns(shared_units(spec, knobs), target)

    def properties(self, problem: Problem, target: Target, knobs: Knobs) -> Properties:
        """Return a chain's, and the room for sums in parts and for weights packed at run time."""
        kept = scratch_bytes(raised(problem.spec), knobs)
        kept += packing.nbytes(self.name, problem, target, knobs)
        return Properties(problem.spec.flops, kept, direct_error(problem))

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return the layouts."""
        border = gathered_halo(problem.spec)
        return Operands(Layout(knobs["data_block"], border), border, Layout(knobs["block"]))

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return w as [K/(v b)][C/a][R][S][a][v b], padded with zeros."""
        a, span = knobs["data_block"], _span(raised(problem.spec), knobs)
        spread = span.spread(raised_weight(weight))
        vectors, wide, _, *taps = spread.shape
        blocked = spread.reshape(vectors, wide, span.blocks, a, *taps)
        packed = np.ascontiguousarray(np.moveaxis(blocked, (3, 1), (-2, -1)))
        if not knobs.get("pairs"):
            return packed
        *outer, _, lanes = packed.shape
        pairs = packed.astype(numpy_dtype("bfloat16")).reshape(*outer, a // 2, 2, lanes)
        return np.ascontiguousarray(np.moveaxis(pairs, -2, -1)).view(np.int32)[..., 0]

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, weight, extras..., result; blocks named `acc` (the reduction) and the epilogue after it."""
        spec = raised(problem.spec)
        a, b, v = knobs["data_block"], knobs["block"], knobs["vectors"]
        N, K, *points = spec.output
        extents = gathered_halo(spec).around(spec.data[2:])
        blocks = -(-K // b)
        wide, span = -(-blocks // v), _span(spec, knobs)
        pairs = knobs.get("pairs", 0)
        a, kind = (a // 2, "int32") if pairs else (a, spec.dtype)
        x = te.placeholder((N, span.all_blocks, *extents, a), kind, name="data")
        # A gated layer has weights of its own for each image.
        per_image = bool(knobs.get("per_image"))
        packed = (wide, span.blocks, *spec.kernel, a, v * b)
        w = te.placeholder((N, *packed) if per_image else packed, kind, name="weight")
        extras = blocked_extras(problem, blocks, b, (N, blocks, *points, b))
        # Halves are widened once a tile, whole vectors at a time, not one by one for each product.
        read = te.compute(x.shape, lambda *i: x(*i), name="single") if knobs.get("stage") else x
        strides = spec.strides
        if knobs.get("gather"):
            read, strides = gathered(read, spec), (1,) * len(points)
        parts = knobs.get("parts", 1)
        co, ci, taps, axes = _reduction(spec, a, span, exact=not pairs, parts=parts)

        def product(n, k, *at):
            *p, lane = at
            first = 0
            if parts > 1:
                *p, part = p
                first = part * (span.blocks // parts)
            steps = zip(p, strides, taps, spec.dilations, strict=True)
            position = [i * stride + r * dilation for i, stride, r, dilation in steps]
            at_weight = (n, k) if per_image else (k,)
            left, right = (
                read(n, span.first(k) + first + co, *position, ci),
                w(*at_weight, first + co, *taps, ci, lane),
            )
            if pairs:
                zero = tirx.const(0, "float32")
                return te.sum(
                    tirx.call_llvm_pure_intrin("float32", DOT_BF16, zero, left, right), axis=axes
                )
            return te.sum(left * right, axis=axes)

        clip = {clipping.ANNOTATION: clipping.reach(spec)} if knobs.get("clip") else {}
        several = (parts,) if parts > 1 else ()
        acc = te.compute((N, wide, *points, *several, v * b), product, name="acc", attrs=clip)
        sums = te.compute(acc.shape, lambda *i: acc(*i), name="part") if several else acc

        def unpack(n, k, *at):
            *p, lane = at
            place, lane = (n, k // v, *p), k % v * b + lane
            return added(sums, parts, place, lane) if several else sums(*place, lane)

        y = te.compute((N, blocks, *points, b), unpack, name="unpack")
        return [x, w, *extras, blocked_result(y, problem, extras)]


def _tile(spec: ConvSpec, knobs: Knobs) -> tuple[int, ...]:
    """Return the points of a register tile along each spatial axis."""
    return (*[1] * (spec.rank - 2), knobs["rows"], knobs["cols"])


def _knobs(tile: Tile, data_block: int, block: int, chunks: int, way: Knobs) -> Knobs:
    tiled = {"rows": tile.rows, "cols": tile.cols, "vectors": tile.vectors, "chunks": chunks}
    return {"data_block": data_block, "block": block, **tiled, **way}


def _tiles(spec: ConvSpec, target: Target, block: int) -> list[tuple[Tile, float]]:
    """Return the register tiles to choose from and, for each, a factor of its cycles."""
    vectors, (rows, cols) = -(-spec.out_channels // block), spec.output[-2:]
    # A tile of more vectors may read the inputs of more groups.
    widest = (4,) if spec.group == 1 else (4, 3, 2, 1)
    best = [
        best_tile(target, rows, cols, vectors, block=block, max_vectors=most) for most in widest
    ]
    panel = 4 * spec.in_channels // spec.group * math.prod(spec.kernel) * best[0].vectors * block
    tiles = list(best)
    if target.cores > 1 or not two_panels_fit(panel, target):
        # Another may leave work that threads can share out evenly, or read panels that L2 holds two of.
        tiles += good_tiles(target, rows, cols, vectors, block=block)
    # 5 % for the tile that is best by itself: the model does not see all that it is good at.
    return [(tile, 1.0 if tile in best else 1.05) for tile in tiles]


def _channels(spec: ConvSpec, block: int, span: Span) -> int:
    """Return the input channels that one output channel's sum runs over: of one tap without those that only fill the last block.

    24 channels in blocks of 16 are 24 steps then, not 32. With more taps the blocks must be the outer loop, for the sake of L1.
    """
    exact = spec.is_pointwise and spec.group == 1
    return spec.in_channels if exact else span.blocks * block


def _reduction(
    spec: ConvSpec, block: int, span: Span, *, exact: bool = True, parts: int = 1
) -> tuple[te.Tensor, te.Tensor, list[te.Tensor], list[te.Tensor]]:
    """Return (block of channels, channel in it, taps) and the axes that they are summed over, outermost first."""
    channels = _channels(spec, block, span)
    if channels % block and exact:
        c = te.reduce_axis((0, channels), "c")
        return c // block, c % block, [tirx.const(0, "int32")] * len(spec.kernel), [c]
    co, ci = te.reduce_axis((0, span.blocks // parts), "co"), te.reduce_axis((0, block), "ci")
    taps = [te.reduce_axis((0, extent), f"r{i}") for i, extent in enumerate(spec.kernel)]
    return co, ci, taps, [co, *taps, ci]


def shared_units(spec: ConvSpec, knobs: Knobs) -> int:
    """Return how many equal parts the schedule shares out: parts of the rows; or slices, channel groups and, undivided, tile rows."""
    outer, rows = spec.data[0] * math.prod(spec.output[2:-2]), spec.output[-2]
    if knobs.get("chunks", 1) > 1:
        return outer * knobs["chunks"]
    groups = -(-spec.out_channels // (knobs["vectors"] * knobs["block"]))
    if knobs.get("parts", 1) > 1:
        return spec.data[0] * groups
    return outer * groups * (1 if rows % knobs["rows"] else rows // knobs["rows"])


def _span(spec: ConvSpec, knobs: Knobs) -> Span:
    return Span.of(spec, knobs["data_block"], knobs["vectors"] * knobs["block"])


ALGORITHM = Direct()
