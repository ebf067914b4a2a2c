"""Convolution of half precision on tensor cores, data and result in blocks of 8 channels: `vector_gemm` with `rows`.

A block of channels is 16 bytes: one asynchronous copy into shared memory, one row of `ldmatrix`, and no element is looked up by itself,
which is what `tensor_core` on plain data spends most of its time with in half precision.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np
from tvm import te

from convc.ir.types import numpy_dtype
from convc.schedules import packing, vector_gemm
from convc.schedules.algorithm import Operands, Problem
from convc.schedules.cuda import rows
from convc.schedules.cuda.indices import indexed
from convc.schedules.cuda.requirements import on_tensor_cores, whole_tiles
from convc.schedules.cuda.row_model import launched_rows, patch_rate, row_cycles
from convc.schedules.cuda.row_tiles import (
    cluster_of,
    fills_stages,
    group_of,
    resident_blocks_of,
    row_tiles,
)
from convc.schedules.cuda.rows import CHANNELS
from convc.schedules.cuda.wgmma import HOPPER
from convc.schedules.layout import Halo, Layout
from convc.schedules.matrices import Matrices
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.properties import Properties, direct_error
from convc.schedules.vector_gemm import lanes
from convc.target import Target

__all__ = ["ALGORITHM", "TensorCoreBlocked", "ran"]

_TYPES: Final = ("float16", "bfloat16")
# Of the weights, which one ldmatrix reads for two instructions.
_CHANNELS: Final = 16
_SPLITS: Final = (1, 2, 3, 4, 5, 6, 8, 12, 16)
# Of them, by warps alone; the others ran by wgmma only, as patches through L1 did. Of 12 parts ptxas spilled 8 bytes on sm_80, to have 72
# registers in place of 80.
_RAN_BY_WARPS: Final = (1, 2, 4, 8, 16)
# Parts of a sum that may meet in a cluster, by wgmma.
_CLUSTERS: Final = (2, 4)


class TensorCoreBlocked:
    """See the module's text."""

    name = "tensor_core_blocked"
    # Records from before there were clusters say nothing of them.
    optional_knobs = frozenset({"cluster"})

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        if (refusal := on_tensor_cores(problem, target, _TYPES)) is not None:
            return refusal
        if spec.group > 1 and (spec.in_channels // spec.group) % lanes(spec.dtype):
            return Unsupported(
                f"input channels of a group must be a multiple of {lanes(spec.dtype)}; got {spec.in_channels // spec.group}"
            )
        return whole_tiles(_whole(problem), _CHANNELS) or indexed(spec, lanes(spec.dtype))

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return the tile that the model finds fastest, of those whose kind a device ran."""
        return min(
            filter(ran, self.space(problem, target)), key=lambda k: self.cycles(problem, target, k)
        )

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield legal tiles, and for sums long enough their parts."""
        dtype, whole = problem.spec.dtype, _whole(problem)
        exact = whole.groups > 1 or whole.phases > 1
        # Through L1: of one tap nothing of the patches is needed again.
        ways: tuple[Knobs, ...] = ({"cached": 0}, {"cached": 1}) if math.prod(whole.taps) > 1 else ({},)  # fmt: skip
        for tile in row_tiles(
            target.gpu,
            whole.channels,
            whole.pixels,
            dtype,
            exact=exact,
            warpgroups=target.gpu.warpgroups,
        ):
            depth = whole.depth * lanes(dtype)
            for split in _SPLITS:
                enough = split == 1 or (depth > (2 * split - 1) * tile["step"] and not exact)
                if enough and fills_stages(tile, -(-depth // split)):
                    yield from ({**tile, "split": split, **way} for way in ways)
                    clustered = {**tile, "split": split, "cluster": split}
                    if _may_meet(clustered) and resident_blocks_of(target.gpu, clustered, dtype):
                        yield from ({**clustered, **way} for way in ways)

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return clocks of the products, or of the bytes if those take longer, and of the launches."""
        spec, gpu = problem.spec, target.gpu
        m = vector_gemm.matrices(spec, knobs)
        extents = (
            m.products,
            m.padded_channels,
            m.padded_pixels,
            m.padded_depth * lanes(spec.dtype),
        )
        parts = _partial_bytes(problem, knobs)
        stored = numpy_dtype(problem.accumulator if parts else spec.dtype).itemsize
        work = row_cycles(
            gpu, *extents, knobs, spec.dtype, rate=patch_rate(spec, knobs), stored=stored
        )
        return launched_rows(gpu, work, spec.nbytes, parts)

    def properties(self, problem: Problem, target: Target, knobs: Knobs) -> Properties:
        """Return the direct method's, and the bytes of split sums and of weights packed at run time."""
        own = _partial_bytes(problem, knobs) + packing.nbytes(self.name, problem, target, knobs)
        return Properties(problem.spec.flops, own, direct_error(problem))

    def remark(self, problem: Problem, target: Target, knobs: Knobs) -> str:
        """Return why warps multiply alone on 9.0, "" where wgmma could be had or the device has none."""
        gpu = target.gpu
        if gpu.sm != HOPPER or gpu.warpgroups:
            return ""
        return f"by mma.sync, not by wgmma, which is of sm {HOPPER} alone; got sm {', '.join(map(str, gpu.every_sm))}{' and PTX' if gpu.ptx else ''}"  # fmt: skip

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return blocks of 16 bytes, without a halo: what lies outside is not copied but filled with zeros."""
        block = Layout(lanes(problem.spec.dtype))
        return Operands(block, Halo(), block)

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return the weights in rows of 16 bytes."""
        return vector_gemm.pack(weight, problem.spec, knobs)

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, weight, extras..., result."""
        meet = partial(rows.met, channels=knobs["channels"]) if cluster_of(knobs) > 1 else None
        return vector_gemm.compute(problem, knobs, rows.product, meet=meet)


def ran(knobs: Knobs) -> bool:
    """Return whether a device ran a setting's kind: parts of sums and patches through L1 by warps alone; by wgmma all but clusters."""
    if cluster_of(knobs) > 1:
        return False
    return group_of(knobs) > 1 or (knobs["split"] in _RAN_BY_WARPS and not knobs.get("cached"))


def _may_meet(knobs: Knobs) -> bool:
    """Whether a cluster's blocks may each have whole blocks of a tile's channels."""
    split = knobs["split"]
    return (
        group_of(knobs) > 1 and split in _CLUSTERS and knobs["channels"] % (split * CHANNELS) == 0
    )


def _partial_bytes(problem: Problem, knobs: Knobs) -> int:
    """Return what parts of sums take in memory: nothing where they meet in a cluster."""
    m = vector_gemm.matrices(problem.spec, knobs)
    return m.partial_bytes(problem.accumulator) if cluster_of(knobs) == 1 else 0


def _whole(problem: Problem) -> Matrices:
    knobs = {"pixels": 1, "channels": 1, "step": lanes(problem.spec.dtype), "split": 1}
    return vector_gemm.matrices(problem.spec, knobs)


ALGORITHM = TensorCoreBlocked()
