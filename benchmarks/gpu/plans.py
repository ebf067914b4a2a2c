"""What is built: the parts that a command line asks for, or a plan, in the order in which a device's first minutes are best spent."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

import msgspec

from benchmarks.gpu.build import grid_jobs, layer_jobs
from benchmarks.gpu.byte_jobs import byte_jobs
from benchmarks.gpu.gradients import GRID, gradient_jobs
from benchmarks.gpu.job import Job
from benchmarks.gpu.networks import compiled_jobs, model_jobs
from benchmarks.gpu.refusals import refusal_jobs
from benchmarks.layer_list import Layer, layers
from benchmarks.zoo import NAMES
from convc.ir import ConvSpec
from convc.target import Target
from tests.conv_grid import CONV_GRID

__all__ = ["PLANS", "Asked", "jobs_of", "planned"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command line asks for.

    Attributes:
        parts: of `Part`.
        layers: patterns of layers' ids.
        batches: of layers and networks.
        algos: a pattern of algorithms of grid and layers.
        types: of grid, gradients, layers and networks.
        settings: of a layer, and of its weight gradient.
        models: names of networks.
        every: of the grid's convolutions one of so many.
        fed: whether the grid's weights are inputs.
    """

    parts: Sequence[str]
    layers: Sequence[str] = ("*",)
    batches: Sequence[int] = (1,)
    algos: str = "*"
    types: Sequence[str] = ("float32",)
    settings: int = 8
    models: Sequence[str] = NAMES
    every: int = 1
    fed: bool = False


def jobs_of(asked: Asked, target: Target) -> Iterator[Job]:
    """Yield the jobs of each part."""
    parts = asked.parts
    chosen = list(dict.fromkeys(row for pattern in asked.layers for row in layers((), pattern)))
    if "calls" in parts:
        yield Job(name="calls-cudnn", part="calls")
    if "refusals" in parts:
        yield from refusal_jobs()
    for dtype in asked.types if "grid" in parts else ():
        for job in grid_jobs(_grid(dtype, asked.every), target, asked.fed):
            if fnmatch.fnmatchcase(job.cases[0].algorithm, asked.algos):
                yield job
    for dtype in asked.types if "gradients" in parts else ():
        yield from gradient_jobs(_grid(dtype, asked.every), target, f"{GRID}{dtype}")
        for batch, row in product(asked.batches, chosen):
            spec = _spec(row, batch, dtype)
            yield from gradient_jobs(
                [spec], target, f"gradients-n{batch}-{dtype}-{row.name}", asked.settings
            )
    for dtype, batch in product(asked.types, asked.batches) if "layers" in parts else ():
        yield from layer_jobs(chosen, batch, asked.settings, target, dtype, asked.algos)
    networks = [t for t in asked.types if t in ("float32", "float16")]
    for batch in asked.batches if "bytes" in parts else ():
        yield from byte_jobs(chosen, batch, asked.settings, target)
    if "models" in parts:
        yield from model_jobs(asked.models, asked.batches, networks)
    if "compiled" in parts:
        yield from compiled_jobs(asked.models, asked.batches, networks)


def _grid(dtype: str, every: int) -> list[ConvSpec]:
    return [replace(row.spec, dtype=dtype) for row in CONV_GRID[::every]]


def _spec(row: Layer, batch: int, dtype: str) -> ConvSpec:
    return replace(row.spec if batch == 1 else row.spec.with_batch(batch), dtype=dtype)


# Of ResNet-50: what has several taps, and 1x1 on the smallest maps.
_TAPS: Final = ("r50_*_3x3*", "r50_stem")
_SMALL_MAPS: Final = ("r50_5_1x1[bc]", "r50_5_ds")
_GROUPED: Final = ("rx_*",)
_NETWORKS: Final = ("resnet50", "mobilenet_v2")

# In this order: what is younger than the last run on a device (an H200 on 2026-11-27) or never ran on one, by what it is worth for its
# seconds: networks of one image whose kernels begin early all or none; right results by present kernels in both half types; patches
# through L1 by warps alone and sums in clusters at batch 1; where convc lost, by clusters, too; cuDNN's engines that are left out since;
# grouped convolutions and bfloat16; last the peers that compile for minutes. `tune` with cuDNN among its candidates is a command of its
# own.
_FIRST: Final = (
    Asked(("models",), batches=(1,), types=("float16",), models=_NETWORKS),
    Asked(("grid",), algos="tensor_core_[bf]*", types=("float16", "bfloat16"), every=4),
    Asked(("layers",), _TAPS, (1,), types=("float16",), settings=32, algos="tensor_core_blocked"),
    Asked(("layers",), _SMALL_MAPS, (32,), types=("float16",), settings=32, algos="tensor_core_blocked"),
    Asked(("layers",), ("r50_5_1x1b",), (1,), types=("float16",), algos="cudnn"),
    Asked(("gradients",), ("mb2_dw144",), (32,), types=("float16", "bfloat16"), every=9, settings=4),
    Asked(("layers",), _GROUPED, (32, 1), types=("float16",), settings=12, algos="[!c]*"),
    Asked(("layers",), _TAPS, (32,), types=("bfloat16",), algos="tensor_core_[bf]*"),
    Asked(("models",), batches=(32,), types=("float16",), models=_NETWORKS),
    Asked(("compiled",), batches=(1, 32), types=("float16",), models=_NETWORKS),
)  # fmt: skip

# Layers of bytes, none of which has run on a device: first and middle ones, small maps, strides; each beside float16.
_BYTES: Final = (
    Asked(
        ("bytes",),
        ("r50_stem", "r50_2_1x1c", "r50_[2345]_3x3", "r50_3_3x3s2", "r50_4_1x1[bc]", "r50_5_1x1b"),
        (32, 1),
        settings=8,
    ),
)

PLANS: Final = {"first": _FIRST, "bytes": _BYTES}


def planned(name: str, target: Target) -> Iterator[Job]:
    """Yield a plan's jobs, each with its turn."""
    for turn, asked in enumerate(PLANS[name], 1):
        for job in jobs_of(asked, target):
            yield msgspec.structs.replace(job, turn=turn)
