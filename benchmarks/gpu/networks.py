"""Whole networks on a device: against the float64 reference, timed, beside torch.

What builds imports the compiler only when it is called.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from benchmarks.gpu.job import Job, worst_error
from convc.npz import load_npz, save_npz
from convc.runtime import load

if TYPE_CHECKING:
    from benchmarks.gpu.peer import Peer
    from convc.ir import Graph
    from convc.schedules.cudnn_use import CudnnUse
    from convc.target import Target

__all__ = ["FLOAT_TYPES", "build_network", "compiled_jobs", "model_jobs", "run_network"]

# Elements of a constant that is worth making smaller, and after how many output channels it repeats: not a tile's extent.
_LARGE: Final = 4096
_PERIOD: Final = 96

# Runs between arrays: the first has what a load left undone, the second records a CUDA graph where there may be one.
_RUNS: Final = 4

# What `convc compile --dtype` calls them.
FLOAT_TYPES: Final = {"float32": None, "float16": "fp16"}

# Who computes: whoever is fastest, convc's own kernels alone, cuDNN wherever it applies; as `cudnn=` of compile.
_USES: Final[dict[str, CudnnUse]] = {"": "auto", "own": "off", "cudnn": "prefer"}


def model_jobs(
    names: Sequence[str], batches: Sequence[int], dtypes: Sequence[str] = ("float32",)
) -> Iterator[Job]:
    """Yield a job for each network, batch and element type, and each row of `_USES`."""
    for name, dtype, batch, library in product(names, dtypes, batches, _USES):
        tail = f"-{library}" if library else ""
        job = Job(name=f"model-{name}-{_mark(batch, dtype)}{tail}", part="models")
        yield msgspec.structs.replace(job, model=name, batch=batch, dtype=dtype, library=library)


def compiled_jobs(
    names: Sequence[str], batches: Sequence[int], dtypes: Sequence[str]
) -> Iterator[Job]:
    """Yield the jobs for each network, batch and element type by torch.compile.

    Those of float32 are timed strictly and as TF32, apart. Those of float16 with and without a search: an H200 was not done with one for
    MobileNetV2 after 150 s, nor after 70 s with one for all of ResNet-50 but its convolutions (2026-11-27).
    """
    kinds = [(d, k) for d in dtypes for k in (("", "tf32") if d == "float32" else ("cudnn", ""))]
    # Whatever takes seconds before what takes minutes.
    for (dtype, kind), name, batch in product(kinds, names, batches):
        tail = f"-{kind}" if kind else ""
        job = Job(name=f"compiled-{name}-{_mark(batch, dtype)}{tail}", part="compiled")
        yield msgspec.structs.replace(job, model=name, batch=batch, dtype=dtype, library=kind)


def _mark(batch: int, dtype: str) -> str:
    return f"n{batch}" if dtype == "float32" else f"n{batch}-{dtype}"


def build_network(job: Job, folder: Path, target: Target) -> float:
    """Write a network's module, an input and its float64 result; return the error that passes."""
    from benchmarks.zoo import exported
    from convc.compiler import compile as compile_model
    from convc.compiler import reduced_graph
    from convc.inputs import random_inputs
    from convc.ir.reference import interpret
    from convc.rounding import tolerance_of

    dtype = FLOAT_TYPES[job.dtype]
    graph = _coarse(reduced_graph(exported(job.model, batch=job.batch)))
    compiled = compile_model(graph, target=target, dtype=dtype, cudnn=_USES[job.library])
    compiled.export(job.module(folder))
    inputs = random_inputs(compiled.manifest.inputs, seed=0)
    # One image's float64 reference takes seconds; the batch repeats it.
    one = {k: v[:1] for k, v in inputs.items()}
    single = _coarse(reduced_graph(exported(job.model)))
    expected = interpret(single, one)
    stored = {f"in_{k}": v for k, v in one.items()} | {f"out_{k}": v for k, v in expected.items()}
    save_npz(job.expected(folder), stored)
    return tolerance_of(single, dtype)(one, expected)


def _coarse(graph: Graph) -> Graph:
    """Return the graph with weights that are powers of two, and repeat along the output channels: no time depends on them.

    An archive of ResNet-50 in float16 by zstd is 3.7 MB so, 47 without. Repeated every 24 channels, roundings of MobileNetV2 added up.
    """
    from convc.ir.graph import Node, constant

    def rounded(node: Node) -> Node:
        value = node.value if node.op == "constant" else None
        if value is None or value.dtype != np.float32 or value.size < _LARGE:
            return node
        # Of halves and more of a power of two the next one, so that they stay as large on the whole.
        bits = (value.view(np.uint32) + np.uint32(0x00400000)) & np.uint32(0xFF800000)
        return constant(node.name, np.resize(bits.view(np.float32)[:_PERIOD], value.shape))

    return graph.with_nodes(rounded(node) for node in graph.nodes)


def run_network(job: Job, folder: Path, peer: Peer | None) -> dict[str, Any]:
    """Return a network's error, its time, those of its steps, and torch's."""
    from convc.runtime.device_module import DeviceModule

    began = time.perf_counter()
    module = load(job.module(folder))
    loaded = time.perf_counter()
    assert isinstance(module, DeviceModule)
    stored = load_npz(job.expected(folder))
    inputs = {
        k[3:]: np.repeat(v, job.batch, axis=0) for k, v in stored.items() if k.startswith("in_")
    }
    spent, outputs = [], {}
    for _ in range(_RUNS):
        began_run = time.perf_counter()
        outputs = module.run(inputs)
        spent.append(time.perf_counter() - began_run)
    error = worst_error((value, stored[f"out_{name}"]) for name, value in outputs.items())
    found: dict[str, Any] = {
        "error": error,
        # So that NaN is wrong.
        "ok": bool(error <= job.tolerance),
        "seconds": module.time(inputs),
        "load_seconds": loaded - began,
        "first_run_seconds": spent[0],
        "later_run_seconds": min(spent[1:]),
        "steps": [
            {"node": t.step.node, "op": t.step.op, "algorithm": t.step.algorithm, "seconds": t.median}
            for t in module.profile(inputs, repeats=3)
        ],
    }  # fmt: skip
    if module.preparation is not None:
        found["prepared_seconds"] = module.preparation.seconds
        found["fallbacks"] = [str(f) for f in module.preparation.fallbacks]
    if peer is not None and not job.library:
        found["peer"] = peer.model(job.model, job.batch, job.dtype)
    return found
