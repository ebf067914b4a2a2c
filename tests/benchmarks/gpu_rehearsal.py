"""A whole check of a device, small, on the emulated one: called in its child process."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.gpu.build import grid_jobs, layer_jobs, make
from benchmarks.gpu.gradients import gradient_jobs
from benchmarks.gpu.job import Job
from benchmarks.gpu.report import collect
from benchmarks.gpu.run import run_jobs
from benchmarks.layer_list import Layer
from convc.ir import ConvSpec
from convc.target import parse_target
from tests.cuda_emulation.compiler import compile_kernels
from tests.cudnn.in_child import use_double

__all__ = ["rehearse", "rehearse_calls"]

_GRID = (
    ConvSpec.of((1, 4, 6, 6), (8, 4, 3, 3), pads=(1, 1, 1, 1)),
    ConvSpec.of((1, 8, 5, 5), (8, 1, 3, 3), group=8),
    ConvSpec.of((1, 4, 3, 3), (4, 4, 2, 2), strides=(2, 2), transposed=True),
)


def rehearse(folder: str, spoil: bool) -> tuple[list[dict[str, Any]], int, list[str]]:
    """Return all results, how many jobs were left when no time was given, and what was said.

    Args:
        folder: to work in.
        spoil: whether to damage one job's module.
    """
    target, path, said = parse_target("cuda -arch=sm_90"), Path(folder), []
    layer = Layer("tiny", "net", ConvSpec.of((1, 8, 8, 8), (16, 8, 3, 3), pads=(1, 1, 1, 1)))
    jobs = [*grid_jobs(_GRID, target), *layer_jobs([layer], 1, 3, target)]
    jobs += gradient_jobs(_GRID, target, "gradients-grid")
    # The emulated device has no cuDNN.
    jobs = [job for job in jobs if "cudnn" not in job.name]
    with mock.patch("convc.schedules.cuda.nvcc.compile_source", lambda source, gpu: compile_kernels(source)):  # fmt: skip
        failed = make(jobs, path, target, said.append)
    assert not failed, said
    if spoil:
        module = path / f"{jobs[0].name}.so"
        module.write_bytes(module.read_bytes()[:-100])
    left = run_jobs(path, path / "results", 0.0, None, said.append)
    assert run_jobs(path, path / "results", 1e9, None, said.append) == 0
    return collect(path / "results"), left, said


def rehearse_calls(folder: str) -> list[dict[str, Any]]:
    """Return the result of the calls of cuDNN, with the double in its place."""
    use_double()
    path, said = Path(folder), []
    target = parse_target("cuda -arch=sm_90")
    jobs = [Job(name="calls-cudnn", part="calls")]
    assert not make(jobs, path, target, said.append), said
    assert run_jobs(path, path / "results", 1e9, None, said.append) == 0
    return collect(path / "results")
