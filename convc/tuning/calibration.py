"""What this machine can do at most, measured once and kept by CPU id: peak, bandwidths by level, and the register tiles' speeds.

Rooflines come from it, and whoever fits a cost model for a new core finds its parameters here.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import platformdirs
import tvm
from filelock import FileLock
from tvm import te

from convc.ir.spec import ConvSpec
from convc.machine import remeasure_peak
from convc.runtime.library import runtime_library
from convc.runtime.threads import ThreadPool
from convc.schedules.algorithm import Problem
from convc.schedules.backend import backend_of
from convc.schedules.llvm.compiler import build
from convc.schedules.register_tile import good_tiles
from convc.schedules.table import TEMPLATE
from convc.target import Gpu, Target
from convc.target.caches import host_caches
from convc.tuning.device import cpu_id
from convc.tuning.pace import REFERENCE_FLOPS, reference_seconds

__all__ = ["Calibration", "calibrate", "calibration"]

_VERSION: Final = 4
_DRAM_BYTES: Final = 192 << 20
_SECONDS: Final = 0.05


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """A machine's limits.

    Units:
        peaks in FLOP/s of all `threads` together, by the number of threads; bandwidths in bytes a second of one core's reads,
        by level: "l1", "l2", "l3", "memory". `tiles`: points x vectors -> FLOP/s of one core, operands in L1. `reference`: seconds of
        `Pace`'s kernel, by the number of threads. `l2_bytes`: of a core's L2, all of it; 0 is unknown.
        `schedules`: the `TEMPLATE` whose kernels these are.
    """

    version: int = _VERSION
    cpu: str
    target: str
    peak: dict[int, float]
    bandwidth: dict[str, float]
    tiles: dict[str, float] = {}
    reference: dict[int, float] = {}
    l2_bytes: int = 0
    schedules: int = 0
    seconds: float = 0.0

    def roofline(self, flops: float, nbytes: float, threads: int, l2_bytes: int = 0) -> float:
        """Return seconds that so much arithmetic, or moving so many bytes, takes at least.

        What fits the threads' L2 comes from there: the layer before has just written it. The rest comes at most at L3's speed.

        Args:
            flops: to compute.
            nbytes: to move.
            threads: that do it.
            l2_bytes: of one core, where the calibration does not know it.
        """
        peak = self.peak.get(threads) or max(self.peak.values())
        near = min(nbytes, (self.l2_bytes or l2_bytes) * threads)
        moved = self._seconds(near, "l2", threads) + self._seconds(nbytes - near, "l3", threads)
        return max(flops / peak, moved)

    def _seconds(self, nbytes: float, level: str, threads: int) -> float:
        rate = threads * max(self.bandwidth.get(level, 0.0), self.bandwidth.get("memory", 0.0))
        return nbytes / rate if rate else 0.0


def _path(target: Target) -> Path:
    folder = Path(platformdirs.user_cache_dir("convc")) / "calibration"
    return folder / f"{cpu_id()}-{target.mcpu}.json"


def calibration(
    target: Target, progress: Callable[[str], None] = lambda stage: None
) -> Calibration:
    """Return this machine's calibration, measured on the first call on this machine: about ten seconds; a device's is its data sheet."""
    if target.device is not None:
        return _data_sheet(target.device)
    path = _path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        known = _read(path)
        if known is not None and target.cores in known.peak:
            return known
        made = calibrate(target, progress)
        if known is not None:
            made = msgspec.structs.replace(
                made, peak=known.peak | made.peak, reference=known.reference | made.reference
            )
        partial = path.with_suffix(".partial")
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1))
        partial.replace(path)
        return made


def _data_sheet(gpu: Gpu) -> Calibration:
    # Float32 products by tensor cores take three of TF32 for one. What lies in L2 comes faster than from memory: H100, 5.6 TB/s of 3.4.
    peak = max(gpu.fp32_flops, gpu.tf32_flops / 3)
    rates = {"l2": 1.6 * gpu.bytes_per_second, "memory": gpu.bytes_per_second}
    return Calibration(cpu=gpu.name, target=f"sm_{gpu.sm}", peak={1: peak}, bandwidth=rates)


def _read(path: Path) -> Calibration | None:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if (found.version, found.schedules) == (_VERSION, TEMPLATE) else None


def calibrate(target: Target, progress: Callable[[str], None] = lambda stage: None) -> Calibration:
    """Measure the machine now."""
    began = time.perf_counter()
    progress("calibrating this machine, once: peak")
    peak = {n: remeasure_peak(n).gflops_per_second * 1e9 for n in sorted({1, target.cores})}
    progress("calibrating this machine, once: reference")
    reference = _references(target)
    progress("calibrating this machine, once: bandwidths")
    sizes = {
        "l1": target.l1_bytes // 2,
        "l2": target.l2_bytes // 2,
        "l3": min(target.l3_bytes // 2, max(4 * target.l2_bytes, 16 << 20)),
        "memory": _DRAM_BYTES,
    }
    bandwidth = {level: _read_bandwidth(target, nbytes) for level, nbytes in sizes.items()}
    progress("calibrating this machine, once: register tiles")
    tiles = dict(_tile_rate(target, *shape) for shape in _tile_shapes(target))
    # Once more, as a slow phase may have lasted through the first time; and no peak is below what a kernel reached.
    reference = {n: min(seconds, reference[n]) for n, seconds in _references(target).items()}
    peak = {n: max(rate, REFERENCE_FLOPS / reference[n]) for n, rate in peak.items()}
    return Calibration(
        cpu=cpu_id(),
        target=target.mcpu,
        schedules=TEMPLATE,
        peak=peak,
        bandwidth=bandwidth,
        tiles=tiles,
        reference=reference,
        l2_bytes=host_caches().get(2, 0),
        seconds=time.perf_counter() - began,
    )


def _references(target: Target) -> dict[int, float]:
    """Return the reference's seconds by the number of threads."""
    found = {}
    for threads in sorted({1, target.cores}):
        ThreadPool(runtime_library(), threads).activate()
        found[threads] = reference_seconds(target.with_cores(threads))
    return found


def _best(run: Callable[[], object], seconds: float = _SECONDS) -> float:
    """Return the seconds of the fastest of as many runs as fit, at least three."""
    run()
    best, begin, count = float("inf"), time.perf_counter(), 0
    while count < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        run()
        best, count = min(best, time.perf_counter() - start), count + 1
    return best


@functools.cache
def _reader(target: Target, rows: int) -> Callable[..., object]:
    """Return a kernel that adds up rows of 64 vectors, eight sums at a time: nothing but loads."""
    lanes, wide = target.lanes, 8
    x = te.placeholder((rows, wide, lanes), "float32", name="x")
    r = te.reduce_axis((0, rows), "r")
    y = te.compute((wide, lanes), lambda i, j: te.sum(x[r, i, j], axis=r), name="y")
    sch = tvm.s_tir.Schedule(te.create_prim_func([x, y]).with_attr("global_symbol", "read"))
    block = sch.get_sblock("y")
    local = sch.cache_write(block, 0, "local")
    i, j, k = sch.get_loops(block)
    sch.reorder(k, i, j)
    sch.unroll(i)
    sch.vectorize(j)
    sch.vectorize(sch.get_loops(local)[-1])
    sch.decompose_reduction(block, k)
    return build(sch.mod, target.with_cores(1))["read"]


def _read_bandwidth(target: Target, nbytes: int) -> float:
    row = 8 * target.lanes * 4
    rows = max(1, nbytes // row)
    x = tvm.runtime.tensor(np.ones((rows, 8, target.lanes), np.float32))
    y = tvm.runtime.tensor(np.zeros((8, target.lanes), np.float32))
    kernel, repeats = _reader(target, rows), max(1, (1 << 20) // nbytes)

    def run() -> None:
        for _ in range(repeats):
            kernel(x, y)

    return repeats * rows * row / _best(run)


def _tile_shapes(target: Target) -> list[tuple[int, int]]:
    """Return (points, vectors) of the widest tiles by the number of vectors, and some with fewer points."""
    shapes: list[tuple[int, int]] = []
    for vectors in (1, 2, 3, 4):
        tiles = good_tiles(target, 1, 10_000, 4, vectors=(vectors,))
        widest = max((t.cols for t in tiles), default=0)
        shapes += [(p, vectors) for p in sorted({widest, widest * 3 // 4, widest // 2}) if p]
    return shapes


def _tile_rate(target: Target, points: int, vectors: int) -> tuple[str, float]:
    """Return the FLOP/s of one register tile in a 1 x 1 convolution whose operands stay in L1."""
    one, lanes = target.with_cores(1), target.lanes
    direct = backend_of(one).algorithm("direct")
    problem = Problem(ConvSpec.of((1, 64, 1, 8 * points), (vectors * lanes, 64, 1, 1)))
    knobs = dict(direct.knobs(problem, one)) | {"rows": 1, "cols": points, "vectors": vectors, "parallel": 0}  # fmt: skip
    tensors = direct.compute(problem, one, knobs)
    func = backend_of(one).schedules["direct"](te.create_prim_func(list(tensors)), knobs, one)
    kernel = build(tvm.IRModule({"tile": func.with_attr("global_symbol", "tile")}), one)["tile"]
    shapes = [tuple(int(d) for d in t.shape) for t in tensors]
    arguments = [tvm.runtime.tensor(np.ones(shape, np.float32)) for shape in shapes]

    def run() -> None:
        for _ in range(10):
            kernel(*arguments)

    return f"{points}x{vectors}", 10 * problem.spec.flops / _best(run, _SECONDS / 2)
