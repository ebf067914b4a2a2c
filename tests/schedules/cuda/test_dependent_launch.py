"""Kernels that are placed before the one ahead of them has ended wait for it; launches say so where devices have it."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tvm

from convc.ir import ConvSpec
from convc.schedules.cuda import compiler
from convc.schedules.cuda.dependent_launch import TAG, most_early_blocks
from convc.target import parse_target
from tests.cuda_emulation.emulation import EmulationError, launch
from tests.schedules.cuda.cuda_convolutions import Trial, scheduled

WAIT = "cudaGridDependencySynchronize();"
KERNEL = """
extern "C" __global__ void __launch_bounds__(32) kernel(float* __restrict__ x) {
  BEGIN
  x[threadIdx.x] += 1;
  END
}
"""


def code(begin: str = "", end: str = "") -> str:
    return KERNEL.replace("BEGIN", begin).replace("END", end)


def test_a_kernel_that_waits_may_be_placed_early():
    ((found,),) = launch(code(WAIT), np.arange(32, dtype=np.float32), early=True)
    np.testing.assert_array_equal(found, np.arange(32) + 1)


def test_a_kernel_that_touches_memory_before_it_waits_is_caught():
    with pytest.raises(EmulationError, match="device memory"):
        launch(code(end=WAIT), np.zeros(32, np.float32), early=True)


def test_a_thread_that_leaves_without_waiting_is_caught():
    with pytest.raises(EmulationError, match="left without cudaGridDependencySynchronize"):
        launch(code(f"if (threadIdx.x < 31) {WAIT} else return;"), np.zeros(32, np.float32), early=True)  # fmt: skip


def built(data: tuple[int, ...], architecture: str) -> tuple[str, bytes]:
    """Return the source of a convolution's kernel and what is embedded of it."""
    spec = ConvSpec.of(data, (16, 16, 1, 1), dtype="float32")
    target = parse_target(f"cuda -arch={architecture}")
    func = scheduled(Trial("generic", spec, (), {"rows": 1, "threads": 256}))
    module = tvm.IRModule({"k": func.with_attr("global_symbol", "k")})
    host = compiler.build(module, target)
    return compiler.source_of(host), compiler._packed(host)


@pytest.mark.parametrize(
    ("data", "architecture", "early"),
    [
        # 16 x 64 results are 4 blocks of 256, 16 x 4096 are 256: more than multiprocessors.
        ((1, 16, 8, 8), "sm_90", True),
        ((1, 16, 64, 64), "sm_90", False),
        ((1, 16, 8, 8), "sm_90,sm_100", True),
        ((1, 16, 8, 8), "sm_90 -ptx", True),
        ((1, 16, 8, 8), "sm_80", False),
        ((1, 16, 8, 8), "sm_90,sm_80", False),
    ],
)
def test_kernels_that_the_device_has_at_once_begin_early_where_it_can(data, architecture, early):
    source, embedded = built(data, architecture)
    body = re.search(r"__global__ void [^;{]*\{(.*)", source, re.DOTALL)
    assert body is not None
    assert body.group(1).lstrip().startswith("convc_wait_for_grids();") == early
    assert source.count("convc_wait_for_grids();") == source.count(WAIT) == int(early)
    assert (TAG.encode() in embedded) == early
    assert (most_early_blocks(parse_target(f"cuda -arch={architecture}").gpu) > 0) == (
        early or data[-1] == 64
    )
