"""`emulate` makes an emulated CUDA device of a worker process, with g++ in nvcc's place. Nothing here imports TVM before that."""

from __future__ import annotations

import importlib
from unittest import mock

from tests.cuda_emulation import device
from tests.cuda_emulation.compiler import compile_kernels

__all__ = ["emulate", "emulate_with_cudnn"]


def emulate() -> None:
    """Begin to believe in a device, for as long as the process lives."""
    device.install()
    nvcc = importlib.import_module("convc.schedules.cuda.nvcc")
    mock.patch.object(nvcc, "compile_source", lambda source, gpu: compile_kernels(source)).start()


def emulate_with_cudnn() -> None:
    """Begin to believe in a device that has cuDNN, too."""
    emulate()
    importlib.import_module("tests.cudnn.in_child").use_double()
