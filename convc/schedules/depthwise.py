"""Depthwise convolution on channel blocks: every channel has its own filter, vectors run over channels.

THE ALGORITHM   y[n, c, p, q] = sum over r, s of x[n, c, p stride + r dilation, q stride + s dilation] w[c, r, s]
                on x and y as NCHW[b]c, w as [C/b][R][S][b]
WHEN            2-D, group = C = K, weights constant
COST            R S FMAs an output point; data is loaded once per tile and reused from registers over the taps
ACCURACY        one chain of R S fused multiply-adds: |error| <= R S eps (|x| * |w|)
SOURCE          MobileNets, arXiv:1704.04861 (the layer)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from tvm import te

from convc.schedules.algorithm import (
    Operands,
    Problem,
    channel_block,
    channel_blocks,
    gathered_halo,
    row_chunks,
    row_shares,
)
from convc.schedules.direct import blocked_extras, blocked_result
from convc.schedules.layout import Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.requirements import packed_images
from convc.target import Target

__all__ = ["ALGORITHM", "Depthwise"]


class Depthwise:
    """See the module's text."""

    name = "depthwise"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        refusal = packed_images(problem)
        if refusal is None and not spec.group == spec.in_channels == spec.out_channels:
            return Unsupported(
                f"group must equal C and K; got group = {spec.group}, C = {spec.in_channels}, K = {spec.out_channels}"
            )
        return refusal

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return a strip of one row: 7 to 14 points keep the taps' loads shared and the chains covered."""
        spec = problem.spec
        block = channel_block(spec.out_channels, target)
        cols = min(range(1, 15), key=lambda t: (-(-spec.output[3] // t) * (t + 2), -t))
        chunks = row_chunks(spec, target, 1, spec.output[2])
        return {"block": block, "rows": 1, "cols": min(cols, spec.output[3]), "chunks": chunks}

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield every block and strip of one or two rows whose points fit the registers with a vector of data and of weights."""
        spec, (_, _, P, Q) = problem.spec, problem.spec.output
        for block in channel_blocks(spec.out_channels, target):
            for rows, cols in itertools.product((1, 2), range(1, Q + 1)):
                if rows > P or rows * cols > target.registers - 2:
                    continue
                # A strip that leaves most of its last one idle, or covers no latency.
                wasted = -(-Q // cols) * cols > 1.35 * Q
                if wasted or (rows * cols < 4 and cols < Q):
                    continue
                for chunks in row_shares(target, rows, P):
                    yield {"block": block, "rows": rows, "cols": cols, "chunks": chunks}

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return FMA cycles, or the loads' if more: a strip loads its row's points and the taps once."""
        spec = problem.spec
        R, S = spec.kernel
        cols = knobs["cols"]
        strips = -(-spec.output[3] // cols) * spec.output[2] * spec.data[0]
        blocks = -(-spec.out_channels // knobs["block"])
        per_strip = R * max(S * cols, (cols - 1) * spec.strides[1] + 2 * S) + cols
        return max(strips * blocks * per_strip, spec.nbytes / 8)

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return the layouts."""
        border = gathered_halo(problem.spec)
        return Operands(Layout(knobs["block"], border), border, Layout(knobs["block"]))

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return w as [C/b][R][S][b], padded with zeros."""
        k, _, r, s = weight.shape
        b = knobs["block"]
        padded = np.zeros((-(-k // b) * b, r, s), weight.dtype)
        padded[:k] = weight[:, 0]
        return np.ascontiguousarray(padded.reshape(-1, b, r, s).transpose(0, 2, 3, 1))

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, weight, extras..., result."""
        spec, b = problem.spec, knobs["block"]
        (sh, sw), (dh, dw), (R, S) = spec.strides, spec.dilations, spec.kernel
        N, K, P, Q = spec.output
        border = gathered_halo(spec)
        blocks = -(-K // b)
        height = spec.data[2] + border.top + border.bottom
        width = spec.data[3] + border.left + border.right
        x = te.placeholder((N, blocks, height, width, b), spec.dtype, name="data")
        w = te.placeholder((blocks, R, S, b), spec.dtype, name="weight")
        extras = blocked_extras(problem, blocks, b, (N, blocks, P, Q, b))
        r, s = te.reduce_axis((0, R), "r"), te.reduce_axis((0, S), "s")
        acc = te.compute(
            (N, blocks, P, Q, b),
            lambda n, k, p, q, lane: te.sum(
                x[n, k, p * sh + r * dh, q * sw + s * dw, lane] * w[k, r, s, lane], axis=[r, s]
            ),
            name="acc",
        )
        y = te.compute(acc.shape, lambda *i: acc(*i), name="unpack")
        return [x, w, *extras, blocked_result(y, problem, extras)]


ALGORITHM = Depthwise()
