"""The doubles against NVIDIA's headers, and what TVM sees of the device."""

from __future__ import annotations

import subprocess

import pytest

from tests.cuda_emulation.compiler import NATIVE
from tests.cuda_emulation.emulation import worker
from tests.cuda_emulation.toolkit import toolkit_headers


def test_our_declarations_are_those_of_the_toolkit():
    folder = toolkit_headers()
    check = NATIVE / "cuda_abi_check.cpp"
    command = ["g++", "-std=c++17", "-fsyntax-only", f"-I{folder}", str(check)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_tvm_sees_one_device():
    assert worker().call("tests.cuda_emulation.in_child:device_facts") == {
        "name": "CPU emulation of sm_90 (test double)",
        "compute_version": "9.0",
        "warp_size": 32,
        "max_shared_memory_per_block": 48 << 10,
        "multi_processor_count": 132,
        "total_global_memory": 8 << 30,
    }


def test_this_process_sees_none():
    import tvm

    if tvm.cuda(0).exist:
        pytest.skip("this machine has a GPU: the error for a missing one cannot be shown")
    assert not tvm.cuda(0).exist
