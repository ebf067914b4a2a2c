"""Kernels that are placed before the one ahead of them has ended wait for it; launches say so where devices have it."""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pytest
import tvm

from convc.errors import ToolchainError, UnknownNameError
from convc.ir import ConvSpec
from convc.schedules.cuda import compiler, nvcc
from convc.schedules.cuda.dependent_launch import TAG
from convc.schedules.findings import collect
from convc.schedules.part_names import part_prefix
from convc.target import parse_target
from tests.cuda_emulation.emulation import EmulationError, launch, worker
from tests.deploy.small_net import expected, image, small_net
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


# 16 x 64 results are 4 blocks of 256 threads, 16 x 4096 are 256 blocks: more than multiprocessors.
FEW, MANY = (1, 16, 8, 8), (1, 16, 64, 64)


def built(
    shapes: list[tuple[int, ...]], dtype: str, architecture: str, smaller: int = 0
) -> tuple[str, bytes, dict[int, int]]:
    """Return a module of convolutions: source, what is embedded, how many begin early; the last `smaller` are of another batch size."""
    functions = {}
    for index, data in enumerate(shapes):
        spec = ConvSpec.of(data, (16, 16, 1, 1), dtype=dtype)
        func = scheduled(Trial("generic", spec, (), {"rows": 1, "threads": 256}))
        name = f"{part_prefix(int(index >= len(shapes) - smaller))}k{index}"
        functions[name] = func.with_attr("global_symbol", name)
    with collect() as found:
        host = compiler.build(tvm.IRModule(functions), parse_target(f"cuda -arch={architecture}"))
    return compiler.source_of(host), compiler._packed(host), dict(found.early)


@pytest.mark.parametrize(
    ("shapes", "dtype", "architecture", "early"),
    [
        ([FEW] * 8, "float16", "sm_90", True),
        ([FEW] * 5 + [MANY] * 4, "bfloat16", "sm_90", True),
        ([FEW] * 4 + [MANY] * 4, "float16", "sm_90", False),
        ([FEW] * 7, "float16", "sm_90", False),
        ([FEW] * 8, "float32", "sm_90", False),
        ([FEW] * 8, "float16", "sm_90,sm_100", True),
        ([FEW] * 8, "float16", "sm_90 -ptx", True),
        ([FEW] * 8, "float16", "sm_80", False),
        ([FEW] * 8, "float16", "sm_90,sm_80", False),
        ([FEW] * 8, "float16", "sm_90 -early=off", False),
        ([MANY] * 2, "float32", "sm_90 -early=on", True),
    ],
)
def test_rows_of_short_kernels_begin_early_all_or_none(shapes, dtype, architecture, early):
    source, embedded, counted = built(shapes, dtype, architecture)
    assert counted == ({0: len(shapes)} if early else {})
    bodies = re.findall(r"__global__ void [^;{]*\{\s*([^;]*;)", source)
    assert len(bodies) == len(shapes)
    assert set(bodies) == {"convc_wait_for_grids();"} or not early
    assert source.count("convc_wait_for_grids();") == (len(shapes) if early else 0)
    assert embedded.count(TAG.encode()) == (len(shapes) if early else 0)


@pytest.mark.parametrize("first", [FEW, MANY])
def test_each_batch_size_is_a_row_of_its_own(first):
    second = MANY if first is FEW else FEW
    source, _, counted = built([first] * 9 + [second] * 8, "float16", "sm_90", smaller=8)
    assert counted == ({0: 9} if first is FEW else {1: 8})
    waits = [name for name, body in re.findall(r"__global__ void [^;{]*?(\w+)_kernel\([^;{]*\{\s*([^;]*;)", source) if "wait_for_grids" in body]  # fmt: skip
    expected = [f"k{i}" for i in range(9)] if first is FEW else [f"v1_k{i}" for i in range(9, 17)]
    assert sorted(waits) == sorted(expected)


def test_early_launches_must_be_in_code_that_has_them():
    with pytest.raises(
        ToolchainError, match="must be in code for sm 90 and later alone; got sm 80"
    ):
        parse_target("cuda -arch=sm_80 -early=on")
    with pytest.raises(UnknownNameError, match="value of -early"):
        parse_target("cuda -arch=sm_90 -early=always")
    with pytest.raises(ToolchainError, match="option of target llvm must be one of -mcpu"):
        parse_target("llvm -early=on")


@pytest.mark.skipif(nvcc.find_nvcc() is None, reason="there is no nvcc")
def test_no_load_is_moved_before_the_wait(tmp_path):
    """Operands are only read, so that nvcc takes loads that may go past other writes, ld.global.nc: not past this wait."""
    source, _, _ = built([FEW] * 8, "float16", "sm_90")
    (tmp_path / "k.cu").write_text(source)
    words = [nvcc.find_nvcc(), "-arch=sm_90", "-ptx", "k.cu", "-o", "k.ptx"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    kernels = (tmp_path / "k.ptx").read_text().split(".entry")[1:]
    assert len(kernels) == 8
    for kernel in kernels:
        before, behind = kernel.split("griddepcontrol.wait")
        assert "ld.global" not in before
        assert "ld.global.nc" in behind


def test_a_network_of_early_kernels_is_right():
    function = "tests.cuda_emulation.convc_device:compile_and_run_early"
    options = {"target": "cuda -arch=sm_90", "algo": "direct"}
    found = worker().call(function, small_net(), options, {"x": image()})
    for name, value in expected(image()).items():
        np.testing.assert_array_equal(found[name], value)
