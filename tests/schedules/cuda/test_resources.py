"""What nvcc makes of the kernels for two generations: registers, shared memory, and no spills."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import tvm

from convc.ir import Step
from convc.ir.spec import ConvSpec
from convc.schedules.cuda import compiler, nvcc
from convc.schedules.cuda.backend import ALGORITHMS, BACKEND
from convc.schedules.cuda.compiler import SHIMS
from convc.schedules.cuda.model import tile_registers, tile_shared_bytes
from convc.schedules.cuda.warp_tiles import shared_bytes, warp_registers
from convc.target import parse_target
from tests.schedules.cuda.cuda_convolutions import TARGET, Trial, sample, scheduled, taken

needs_nvcc = pytest.mark.skipif(nvcc.find_nvcc() is None, reason="there is no nvcc")

# Layers of ResNet-50 and MobileNetV2 with the kernels that matter most: 3x3, 1x1, a small map with a long sum, strided, depthwise.
NETS = (
    Trial("direct", ConvSpec.of((1, 64, 56, 56), (64, 64, 3, 3), pads=(1, 1, 1, 1)), (Step("bias"), Step("relu"))),
    Trial("direct", ConvSpec.of((8, 256, 14, 14), (1024, 256, 1, 1)), (Step("bias"), Step("add"), Step("relu"))),
    Trial("direct", ConvSpec.of((1, 512, 7, 7), (512, 512, 3, 3), pads=(1, 1, 1, 1)), (Step("bias"),)),
    Trial("direct", ConvSpec.of((32, 3, 224, 224), (64, 3, 7, 7), strides=(2, 2), pads=(3, 3, 3, 3)), (Step("bias"),)),
    Trial("tensor_core", ConvSpec.of((32, 64, 56, 56), (64, 64, 3, 3), pads=(1, 1, 1, 1)), (Step("bias"), Step("relu"))),
    Trial("tensor_core", ConvSpec.of((8, 256, 14, 14), (1024, 256, 1, 1)), (Step("bias"), Step("add"), Step("relu"))),
    Trial("tensor_core", ConvSpec.of((32, 256, 14, 14), (256, 256, 3, 3), pads=(1, 1, 1, 1), dtype="float16"), (Step("bias"), Step("relu"))),
    Trial("tensor_core", ConvSpec.of((32, 3, 224, 224), (64, 3, 7, 7), strides=(2, 2), pads=(3, 3, 3, 3), dtype="bfloat16"), (Step("bias"),)),
    Trial("tensor_core_blocked", ConvSpec.of((32, 256, 14, 14), (256, 256, 3, 3), pads=(1, 1, 1, 1), dtype="float16"), (Step("bias"), Step("add"), Step("relu"))),
    Trial("tensor_core_blocked", ConvSpec.of((1, 512, 7, 7), (512, 512, 3, 3), pads=(1, 1, 1, 1), dtype="bfloat16"), (Step("bias"), Step("relu"))),
    Trial("tensor_core_folded", ConvSpec.of((32, 3, 224, 224), (64, 3, 7, 7), strides=(2, 2), pads=(3, 3, 3, 3), dtype="float16"), (Step("bias"), Step("relu"))),
    Trial("tensor_core_folded", ConvSpec.of((1, 3, 224, 224), (64, 3, 7, 7), strides=(2, 2), pads=(3, 3, 3, 3), dtype="bfloat16"), (Step("bias"), Step("relu"))),
    Trial("winograd", ConvSpec.of((32, 256, 14, 14), (256, 256, 3, 3), pads=(1, 1, 1, 1)), (Step("bias"), Step("relu"))),
    Trial("fft", ConvSpec.of((32, 64, 56, 56), (64, 64, 5, 5), pads=(2, 2, 2, 2)), (Step("bias"), Step("relu"))),
    Trial("fft", ConvSpec.of((32, 96, 56, 56), (96, 1, 31, 31), group=96, pads=(15, 15, 15, 15)), (Step("bias"), Step("relu"))),
    Trial("tf32", ConvSpec.of((32, 64, 56, 56), (64, 64, 3, 3), pads=(1, 1, 1, 1)), (Step("bias"), Step("relu"))),
    Trial("depthwise_blocked", ConvSpec.of((32, 144, 56, 56), (144, 1, 3, 3), group=144, pads=(1, 1, 1, 1), dtype="float16"), (Step("bias"), Step("clip", (0.0, 6.0)))),
    Trial("depthwise", ConvSpec.of((1, 96, 56, 56), (96, 1, 3, 3), group=96, pads=(1, 1, 1, 1)), (Step("bias"), Step("clip", (0.0, 6.0)))),
)  # fmt: skip


def source(trials: tuple[Trial, ...]) -> str:
    functions = {}
    for index, trial in enumerate(trials):
        functions[f"k{index}"] = scheduled(trial).with_attr("global_symbol", f"k{index}")
    return compiler.source_of(compiler.build(tvm.IRModule(functions), TARGET))


def planned(trials: tuple[Trial, ...], sm: int) -> tuple[Trial, ...]:
    """Return the trials with the knobs that one generation's model takes: wgmma's are for 9.0 alone."""
    target = parse_target(f"cuda -arch=sm_{sm}")
    knobs = (BACKEND.algorithm(t.algorithm).knobs(t.problem, target) for t in trials)
    return tuple(replace(t, knobs=k) for t, k in zip(trials, knobs, strict=True))


@cache
def resources(sm: int) -> dict[str, nvcc.Resources]:
    """Return what the kernels of NETS take; nvcc compiles them once for each generation."""
    return nvcc.resources(source(planned(NETS, sm)), sm)


def took(trial: Trial) -> nvcc.Resources:
    """Return what the kernel of one of NETS takes on sm_90."""
    return resources(90)[f"k{NETS.index(trial)}_kernel"]


@needs_nvcc
@pytest.mark.parametrize("sm", [80, 90])
def test_default_kernels_spill_nothing(sm):
    found = resources(sm)
    assert len(found) >= len(NETS)
    assert {k: r for k, r in found.items() if r.spill_bytes or r.stack_bytes} == {}
    assert max(r.shared_bytes for r in found.values()) <= 48 << 10


@needs_nvcc
def test_the_model_knows_registers_and_shared_memory():
    """Exact for shared memory; no more registers than the model grants a tile, so that occupancy is what it says."""
    for trial in NETS:
        if trial.algorithm == "direct" and trial.setting["split"] == 1:
            assert took(trial).shared_bytes == tile_shared_bytes(trial.setting, 4)
            granted = tile_registers(trial.setting)
            assert took(trial).registers <= 1.25 * granted, (trial, took(trial), granted)


@needs_nvcc
def test_the_model_knows_what_tensor_cores_take():
    """Exact for shared memory, and no more registers than the model grants a warp's tile."""
    cores = [t for t in NETS if t.algorithm in ("tensor_core", "tf32")]
    products = tuple(t for t in cores if t.setting["split"] == 1)
    assert len(products) >= 3
    for trial in products:
        granted = warp_registers(trial.setting, trial.spec.dtype)
        assert took(trial).shared_bytes == shared_bytes(trial.setting, trial.spec.dtype)
        assert took(trial).registers <= 1.25 * granted, (trial, took(trial), granted)


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
@pytest.mark.parametrize("sm", [80, 90])
@pytest.mark.parametrize("name", [a.name for a in ALGORITHMS if a.name not in SHIMS])
def test_kernels_of_the_whole_grid_spill_nothing(name, sm, part):
    dtype = "float32" if taken(name) else "float16"
    trials = planned(sample(name, len(taken(name, dtype)), dtype)[part::8], sm)
    found = nvcc.resources(source(trials), sm)
    assert {k: r for k, r in found.items() if r.spill_bytes} == {}
