"""Convolution as a matrix product on panels of patches: the fast fallback for what no other algorithm takes.

THE ALGORITHM   y[n, k, pixel] = sum over i of w[k, i] panel[i, pixel], i = (c, r...), per group, one block of pixels after another
                planes[n, c, phase..., p...] = x[n, c, p stride + phase - pad], zero outside the data: a convolution of any stride and
                dilation is one of stride 1 on these; its taps are runs of memory
                panel[i, pixel] = planes[n, c, (r dilation) % stride, p + r dilation / stride]; a few hundred pixels, it lives in L2
                and the whole matrix of patches never exists. Or, knob `panel` 0, no panel either: the products read the planes
                themselves, and where a row ends they compute what nobody reads; faster but for small maps and wide dilations.
WHEN            1-D, 2-D, 3-D, any stride, dilation, padding and group, on plain tensors
COST            C/group R S FMAs an output pixel, and a copy of the data; panels: C/group R S elements copied a pixel
ACCURACY        one chain of C/group R S fused multiply-adds: |error| <= C/group R S eps (|x| * |w|)
SOURCE          Chellapilla et al. 2006 (im2col); Chetlur et al., arXiv:1410.0759 (implicit); Goto and van de Geijn 2008 (packing)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from tvm import te, tirx

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Operands, Problem
from convc.schedules.layout import PLAIN, Halo
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.requirements import float32_throughout
from convc.schedules.scalar import apply_steps
from convc.schedules.sharing import PARALLEL, launches, shared_out, turns
from convc.target import Target

__all__ = ["ALGORITHM", "Blocks", "Im2col"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27

# Cycles on one Zen 4 core. A load of a whole vector: across two cache lines; from L2; from L3 (this machine's is slow).
_UNALIGNED: Final = 1.8
_FROM_L2: Final = 3.2
_FROM_L3: Final = 14.0
# A step of the reduction: of 8 lanes, 8 channels by 2 vectors issue no faster than this.
_ISSUED: Final = 3.1
# A register tile beside its steps: the loop, and each vector's zero and store.
_TILE: Final = 5.0
_STORE: Final = 2.0
# One piece of a row copied to a panel, to the result, to the result when the tiles do not stay in L2.
_PACK: Final = 1.3
_RESULT: Final = 2.0
_RESULT_L3: Final = 25.0
# One element copied to the planes; with a stride.
_PAD: Final = 0.3
_PAD_STRIDED: Final = 1.0

# Blocks of more pixels gain nothing; rows longer than the least part may be cut; more vectors leave a tile too few channels.
_MOST_PIXELS: Final = 1024
_PARTS: Final = (64, 112, 160, 256, 512, 1024)
_MOST_VECTORS: Final = 10


@dataclass(frozen=True, slots=True)
class Blocks:
    """How a convolution is cut into blocks of pixels, and which part of the planes they read.

    Attributes:
        counts: blocks along each spatial axis.
        size: pixels of a block along each spatial axis; only the last two are more than 1.
        pitch: from one row of a block to the next, in pixels.
        points: pixels in a block as computed, whole register tiles.
        phases: phases of each axis that the filter reads.
        extents: extent of one plane.
    """

    counts: tuple[int, ...]
    size: tuple[int, ...]
    pitch: int
    points: int
    phases: tuple[int, ...]
    extents: tuple[int, ...]

    @staticmethod
    def of(spec: ConvSpec, knobs: Knobs) -> Blocks:
        """Return the blocks of a convolution.

        Example:
            >>> spec = ConvSpec.of((1, 64, 57, 57), (64, 64, 3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
            >>> Blocks.of(spec, {"rows": 4, "cols": 29, "panel": 1, "channels": 8, "vectors": 2, "lanes": 16})
            Blocks(counts=(8, 1), size=(4, 29), pitch=29, points=128, phases=(2, 2), extents=(33, 30))
        """
        rank, output = spec.rank, spec.output[2:]
        size = (*(1,) * (rank - 2), knobs["rows"], knobs["cols"])[-rank:]
        counts = tuple(-(-o // s) for o, s in zip(output, size, strict=True))
        axes = list(zip(spec.kernel, spec.strides, spec.dilations, strict=True))
        phases = tuple(max(r * d % s for r in range(k)) + 1 for k, s, d in axes)
        reach = [(k - 1) * d // s for k, s, d in axes]
        extents = [n * b + far for n, b, far in zip(counts, size, reach, strict=True)]
        pitch = knobs["cols"] if knobs["panel"] else extents[-1]
        seen = (knobs["rows"] - 1) * pitch + knobs["cols"]
        tile = knobs["vectors"] * knobs["lanes"]
        points = -(-seen // tile) * tile
        if not knobs["panel"]:
            # The last tile of the last block reads beyond its pixels; that memory must exist.
            row = math.prod(extents[1:])
            extents[0] += -(-(points - seen) // row)
        return Blocks(counts, size, pitch, points, phases, tuple(extents))

    @property
    def rows(self) -> int:
        return self.size[-2] if len(self.size) > 1 else 1

    @property
    def cols(self) -> int:
        return self.size[-1]

    def are_data(self, spec: ConvSpec) -> bool:
        """Whether the planes are the data as they are."""
        return max(spec.strides) == 1 and not any(spec.pads) and self.extents == spec.data[2:]


class Im2col:
    """See the module's text."""

    name = "im2col"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        if spec.transposed:
            return Unsupported("convolution must not be transposed")
        return float32_throughout(problem)

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return the block of pixels and the register tile that the model finds fastest."""
        return min(
            self.space(problem, target), key=lambda knobs: self.cycles(problem, target, knobs)
        )

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Return the settings worth a look, see `_options`."""
        return _options(problem.spec, target)

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return the cycles of planes, panels, products and results."""
        spec = problem.spec
        blocks = Blocks.of(spec, knobs)
        units = spec.data[0] * spec.group * math.prod(blocks.counts)
        weights = 4 * math.prod(spec.weight) / target.memory_bytes
        work = target.core.together(sum(_cycles(spec, blocks, target, knobs)), weights)
        cycles = max(work, spec.nbytes / target.core.data)
        # Threads wait for the one with the most blocks; where there are few, the channels of each are shared out, block by block.
        if target.cores == 1 or shared_out(units, target):
            cycles *= turns(units, target)
        # What sharing costs would make a kernel of little work seem worth sharing.
        elif (alone := self.cycles(problem, target.with_cores(1), knobs)) <= PARALLEL:
            return alone
        else:
            groups = -(-spec.out_channels // spec.group // knobs["channels"])
            cycles = cycles * turns(groups, target) + launches((2 if knobs["panel"] else 1) * units, target)  # fmt: skip
        return cycles

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return plain layouts."""
        return Operands(PLAIN, Halo(), PLAIN)

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return w as [group][K/group/t][C/group R S][t], t the channels of a register tile, padded with zeros."""
        group, t = problem.spec.group, knobs["channels"]
        per_group, taps = weight.shape[0] // group, weight[0].size
        tiles = -(-per_group // t)
        padded = np.zeros((group, tiles * t, taps), weight.dtype)
        padded[:, :per_group] = weight.reshape(group, per_group, taps)
        return np.ascontiguousarray(padded.reshape(group, tiles, t, taps).transpose(0, 1, 3, 2))

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, weight, extras..., result; blocks `planes`, `panel`, `acc` (the reduction) and `tile` (its result)."""
        spec, t = problem.spec, knobs["channels"]
        rank, N, K = spec.rank, spec.data[0], spec.out_channels
        blocks = Blocks.of(spec, knobs)
        group_c, group_k = spec.in_channels // spec.group, K // spec.group
        tiles = -(-group_k // t)
        taps = math.prod(spec.kernel)
        x = te.placeholder(spec.data, spec.dtype, name="data")
        w = te.placeholder((spec.group, tiles, group_c * taps, t), spec.dtype, name="weight")
        extras = [
            te.placeholder((K,) if s.name == "bias" else spec.output, spec.dtype, name=s.name)
            for s in problem.epilogue
            if s.takes_operand
        ]
        planes = _planes(spec, blocks, x)
        panel = _panel(spec, blocks, planes, bool(knobs["panel"]))
        c = te.reduce_axis((0, group_c), "c")
        r = [te.reduce_axis((0, extent), f"r{i}") for i, extent in enumerate(spec.kernel)]

        # Pixels as (tiles, pixels of a tile): whole tiles are computed, also where only a part of one is read.
        width = knobs["vectors"] * knobs["lanes"]

        def product(n, g, *at):
            block, (o, k, wide, lane) = at[:rank], at[rank:]
            position = _ravel((c, *r), (group_c, *spec.kernel))
            pixel = wide * width + lane
            return te.sum(panel(n, g, *block, c, *r, pixel) * w[g, o, position, k], axis=[c, *r])

        shape = (N, spec.group, *blocks.counts, tiles, t, blocks.points // width, width)
        acc = te.compute(shape, product, name="acc")
        tile = te.compute(shape, lambda *i: acc(*i), name="tile")

        def unpack(n, k, *at):
            block = [p // s for p, s in zip(at, blocks.size, strict=True)]
            inside = at[-1] % blocks.cols
            if rank > 1:
                inside += at[-2] % blocks.rows * blocks.pitch
            channel = k % group_k
            position = (channel // t, channel % t, inside // width, inside % width)
            return tile(n, k // group_k, *block, *position)

        def bias(y: te.Tensor, b: te.Tensor) -> te.Tensor:
            return te.compute(y.shape, lambda n, k, *p: y(n, k, *p) + b[k], name="bias_add")

        y = te.compute(spec.output, unpack, name="unpack")
        return [x, w, *extras, apply_steps(y, problem.epilogue, extras, bias)]


def _ravel(at: Sequence[Expr], extents: Sequence[int]) -> Expr:
    """Return the row-major position of an index."""
    position = at[0]
    for index, extent in zip(at[1:], extents[1:], strict=True):
        position = position * extent + index
    return position


def _unravel(position: Expr, extents: Sequence[int]) -> list[Expr]:
    """Return the index at a row-major position."""
    at = []
    for extent in reversed(extents[1:]):
        at.append(position % extent)
        position = position // extent
    return [position, *reversed(at)]


def _planes(spec: ConvSpec, blocks: Blocks, x: te.Tensor) -> Any:
    """Return the padded data by phases, a plane being one axis; the data's own elements if that is what they are."""
    if blocks.are_data(spec):
        return lambda n, c, *at: x(n, c, *at[spec.rank :])
    rank, zero = spec.rank, tirx.const(0, spec.dtype)

    def padded(n, c, *at):
        conditions, index = [], []
        for axis, p in enumerate(at[rank:]):
            stride, pad, extent = spec.strides[axis], spec.pads[axis], spec.data[2 + axis]
            position = p * stride + at[axis] - pad
            last = (blocks.extents[axis] - 1) * stride + blocks.phases[axis] - 1 - pad
            conditions += [position >= 0] if pad else []
            conditions += [position < extent] if last >= extent else []
            index.append(position)
        if not conditions:
            return x(n, c, *index)
        return tirx.if_then_else(tirx.all(*conditions), x(n, c, *index), zero)

    shape = (*spec.data[:2], *blocks.phases, *blocks.extents)
    return te.compute(shape, padded, name="planes")


def _panel(spec: ConvSpec, blocks: Blocks, planes: Any, packed: bool) -> te.Tensor:
    """Return the patches of each block of pixels; not `packed`, the pixels are a run of the planes."""
    rank, group_c = spec.rank, spec.in_channels // spec.group
    last = blocks.rows * blocks.cols

    def patch(n, g, *at):
        block, c, r, f = at[:rank], at[rank], at[rank + 1 : -1], at[-1]
        phases = [i * d % s for i, d, s in zip(r, spec.dilations, spec.strides, strict=True)]
        first = [
            b * size + r[axis] * spec.dilations[axis] // spec.strides[axis]
            for axis, (b, size) in enumerate(zip(block, blocks.size, strict=True))
        ]
        if not packed:
            at = _unravel(_ravel(first, blocks.extents) + f, blocks.extents)
            return planes(n, g * group_c + c, *phases, *at)
        first[-1] += f % blocks.cols
        if rank > 1:
            first[-2] += f // blocks.cols
        value = planes(n, g * group_c + c, *phases, *first)
        if blocks.points == last:
            return value
        return tirx.if_then_else(f < last, value, tirx.const(0, spec.dtype))

    taps = (group_c, *spec.kernel)
    shape = (spec.data[0], spec.group, *blocks.counts, *taps, blocks.points)
    return te.compute(shape, patch, name="panel")


def _cycles(spec: ConvSpec, blocks: Blocks, target: Target, knobs: Knobs) -> tuple[float, ...]:
    """Return the cycles of products, panels, planes and results: 250 settings on 19 layers took 0.9 to 1.1 of it, most of them."""
    t, v, lanes = knobs["channels"], knobs["vectors"], knobs["lanes"]
    # Half-wide vectors issue twice a cycle.
    core = target.core
    fma, read_one = 1 / core.fmas_of(target.lanes, lanes), 1 / core.loads_of(target.lanes, lanes)
    group_k, taps = spec.out_channels // spec.group, math.prod(spec.weight[1:])
    count = spec.data[0] * spec.group * math.prod(blocks.counts)
    tiles = -(-group_k // t) * (blocks.points // (v * lanes))
    if knobs["panel"]:
        read, load, uses = taps * blocks.points, 1.0, 1
    else:
        # A row of the planes is read once for every tap of a filter's row.
        planes = spec.weight[1] * math.prod(blocks.phases)
        read, load, uses = planes * blocks.points, _UNALIGNED, spec.kernel[-1]
    if 4 * read > 0.6 * target.l2_bytes:
        load = max(load, _FROM_L3 / uses)
    elif 4 * read > 0.6 * target.l1_bytes:
        load = max(load, _FROM_L2 / uses)
    issued = t * v + v + (t if v > 1 else 0) + 3
    step = max(t * v * fma, (t + v * load) * read_one, issued / _ISSUED, core.latency)
    product = count * tiles * (taps * step + _TILE + _STORE * t * v * fma)
    pieces = blocks.cols // target.lanes + (blocks.cols % target.lanes).bit_count()
    rows = blocks.rows * pieces
    pack = count * taps * (rows * _PACK + 2) if knobs["panel"] else 0.0
    pad = 0.0
    if not blocks.are_data(spec):
        elements = math.prod(spec.data[:2]) * math.prod(blocks.extents) * math.prod(blocks.phases)
        pad = elements * (_PAD_STRIDED if blocks.phases[-1] > 1 else _PAD)
    stays = 4 * group_k * blocks.points < 0.4 * target.l2_bytes
    return product, pack, pad, count * group_k * rows * (_RESULT if stays else _RESULT_L3)


def _options(spec: ConvSpec, target: Target) -> Iterator[Knobs]:
    """Return the settings worth a look: whole rows, or parts of a long one; as many channels as fit, or as divide K/group."""
    *lead, width = spec.output[2:]
    height = lead[-1] if lead else 1
    group_k = spec.out_channels // spec.group
    cuts = {(-(-height // m), width) for m in range(1, height + 1)}
    cuts = {(rows, cols) for rows, cols in cuts if rows * cols <= _MOST_PIXELS or rows == 1}
    if width > _PARTS[0]:
        # Equal parts of about so many pixels, each whole vectors.
        parts = {-(-width // pixels) for pixels in _PARTS}
        cuts |= {(1, -(-width // (m * target.lanes)) * target.lanes) for m in parts if m > 1}
    for rows, cols in sorted(cuts):
        for panel in (0, 1):
            for lanes in (target.lanes, target.lanes // 2)[: 1 + (target.lanes >= 16)]:
                for v in range(1, min(_MOST_VECTORS, -(-rows * cols // lanes)) + 1):
                    fit = (target.registers - 1 - v) // v
                    if fit < 1:
                        break
                    even = -(-group_k // -(-group_k // fit))
                    divisor = max(d for d in range(1, min(fit, group_k) + 1) if group_k % d == 0)
                    for t in {even, divisor}:
                        yield {
                            "rows": rows,
                            "cols": cols,
                            "panel": panel,
                            "channels": t,
                            "vectors": v,
                            "lanes": lanes,
                        }


ALGORITHM = Im2col()
