"""Transposed convolution of bytes by phases: the sums of `subpixel`, each phase with a bias of its own, see `quantized`."""

from __future__ import annotations

import math

import numpy as np
from tvm import te

from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Operands, Problem
from convc.schedules.phase_sums import phase_sums
from convc.schedules.phases import by_phase, phased, phases_of
from convc.schedules.plan import Knobs
from convc.schedules.quads import QUAD, in_quads, multiply, seen_as, tile_knobs
from convc.schedules.rank import raised_weight
from convc.schedules.register_tile import Tile, tile_cycles
from convc.schedules.requantized import Bias, finished
from convc.schedules.span import Span, swapped
from convc.schedules.subpixel import ALGORITHM as SUBPIXEL
from convc.target import Target

__all__ = ["biases", "compute", "cycles", "knobs", "operands", "pack"]


def knobs(spec: ConvSpec, target: Target) -> Knobs:
    """Return blocks and tile; the tile lies in one phase."""
    spec = phased(spec)
    *_, high, wide = phases_of(spec)
    return {**tile_knobs(spec, target, high.count, wide.count), "transposed": 1}


def operands(spec: ConvSpec, target: Target, knobs: Knobs) -> Operands:
    """Return the layouts."""
    return SUBPIXEL.operands(Problem(spec), target, knobs)


def cycles(spec: ConvSpec, target: Target, knobs: Knobs) -> float:
    """Return the cycles of all tiles of all phases."""
    spec = phased(spec)
    tile = Tile(knobs["rows"], knobs["cols"], knobs["vectors"])
    *outer, high, wide = phases = phases_of(spec)
    steps = spec.data[0] * _span(spec, knobs).blocks * knobs["data_block"]
    steps *= math.prod(p.taps * p.stride for p in phases) * math.prod(p.count for p in outer)
    vectors = -(-spec.out_channels // knobs["block"])
    steps /= QUAD if knobs["dot"] else 1
    return steps * tile_cycles(target, tile, high.count, wide.count, vectors, knobs["block"])


def pack(weight: np.ndarray, spec: ConvSpec, knobs: Knobs) -> np.ndarray:
    """Return int8 weights as `subpixel` has them; with quads [..][a/4][v b] int32 of four channels each."""
    packed = SUBPIXEL.pack(weight, Problem(spec), knobs)
    return in_quads(packed) if knobs["dot"] else packed


def biases(bias: np.ndarray, weight: np.ndarray, spec: ConvSpec, pad: int) -> np.ndarray:
    """Return what each phase adds to the sums of its own taps, [phases...][K]: the bias, and `pad` times the weights of all others.

    In int32 as the sums are: where these wrap around, so does this.

    Example:
        >>> spec = ConvSpec.of((1, 1, 4), (1, 1, 3), strides=(2,), transposed=True)
        >>> biases(np.array([5]), np.array([[[1, 2, 4]]]), spec, pad=10).tolist()
        [[[25], [55]]]
    """
    spec = phased(spec)
    filters = swapped(raised_weight(weight.astype(np.int64)), spec.group).sum(1)
    phases = phases_of(spec)
    of_phase = by_phase(filters, 1, phases).sum(tuple(range(1 + spec.rank, 1 + 2 * spec.rank)))
    others = filters.sum(tuple(range(1, 1 + spec.rank))).reshape(-1, *(1,) * spec.rank) - of_phase
    column = bias.astype(np.int64).reshape(-1, *(1,) * spec.rank)
    return np.moveaxis(column + pad * others, 0, -1).astype(np.int32)


def compute(
    spec: ConvSpec, attributes: QuantizedConvAttributes, target: Target, knobs: Knobs
) -> list[te.Tensor]:
    """Return data, weight, bias, factor, what is added, result; blocks `acc` and, of phases written apart, `phases`."""
    border = operands(spec, target, knobs).border
    spec = phased(spec)
    steps, kinds = seen_as(knobs["data_block"], knobs)
    sums = phase_sums(spec, _span(spec, knobs), border, knobs, kinds, steps, multiply(knobs))
    bias = Bias(attributes, int(sums.shape[1]), int(sums.shape[-1]), spec.strides)

    def with_bias(n, k, *at):
        return sums.at(n, k, *at) + bias(*sums.phase(at[:-1]), k, at[-1])

    operands_ = (sums.data, sums.weight, bias)
    return finished(attributes, operands_, sums.shape, with_bias, spec.out_channels)


def _span(spec: ConvSpec, knobs: Knobs) -> Span:
    return Span.of(spec, knobs["data_block"], knobs["vectors"] * knobs["block"])
