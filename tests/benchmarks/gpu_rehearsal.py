"""A whole check of a device, small, built for the emulated one: called in its child process."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

from benchmarks.gpu.build import grid_jobs, layer_jobs, make
from benchmarks.gpu.byte_jobs import byte_jobs
from benchmarks.gpu.gradients import GRID, gradient_jobs
from benchmarks.gpu.job import Job
from benchmarks.gpu.networks import model_jobs
from benchmarks.gpu.refusals import refusal_jobs
from benchmarks.layer_list import Layer
from convc.ir import ConvSpec
from convc.target import parse_target
from tests.benchmarks.tiny_model import save_tiny
from tests.cuda_emulation.compiler import compile_kernels

__all__ = ["rehearse"]

_GRID = (
    ConvSpec.of((1, 4, 6, 6), (8, 4, 3, 3), pads=(1, 1, 1, 1)),
    ConvSpec.of((1, 8, 5, 5), (8, 1, 3, 3), group=8),
    ConvSpec.of((1, 4, 3, 3), (4, 4, 2, 2), strides=(2, 2), transposed=True),
)


def rehearse(folder: str) -> list[str]:
    """Build all parts of a check but torch's, small; return the jobs' names.

    What runs them is gpu_check's own parent, with processes that have the emulated device (`gpu_child`).
    """
    target, path, said = parse_target("cuda -arch=sm_90"), Path(folder), []
    layer = Layer("tiny", "net", ConvSpec.of((1, 8, 8, 8), (16, 8, 3, 3), pads=(1, 1, 1, 1)))
    jobs = [*grid_jobs(_GRID, target), *layer_jobs([layer], 1, 3, target)]
    jobs += byte_jobs([layer], 2, 2, target)
    jobs += gradient_jobs(_GRID, target, f"{GRID}float32")
    jobs += gradient_jobs([layer.spec], target, "gradients-n1-float32-tiny")
    # cuDNN's convolutions have tests of their own: here its calls and what is done where it refuses.
    jobs = [job for job in jobs if "cudnn" not in job.name]
    jobs += [Job(name="calls-cudnn", part="calls"), *refusal_jobs()]
    # A network of two nodes in ResNet-18's place, of one image and of two.
    zoo = path / "zoo"
    zoo.mkdir()
    save_tiny(zoo / "resnet18.onnx")
    save_tiny(zoo / "resnet18-n2.onnx", "2")
    jobs += [j for j in model_jobs(["resnet18"], (1, 2), ("float32", "float16")) if _is_taken(j)]
    with mock.patch("benchmarks.zoo.zoo_folder", return_value=zoo), mock.patch("convc.schedules.cuda.nvcc.compile_source", lambda source, gpu: compile_kernels(source)):  # fmt: skip
        failed = make(jobs, path, target, said.append)
    assert not failed, said
    return [job.name for job in jobs]


def _is_taken(job: Job) -> bool:
    """Whether a network is rehearsed: each batch, type and library once."""
    return (job.batch, job.dtype, job.library) in ((1, "float16", "cudnn"), (2, "float32", ""))
