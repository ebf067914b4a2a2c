"""Products of warpgroups: taken for sm 90 alone, and what nvcc makes of those that go on behind the next copies."""

from __future__ import annotations

import pytest

from convc.errors import LoweringError
from convc.ir import ConvSpec, Step
from convc.schedules.algorithm import Problem
from convc.schedules.cuda import nvcc
from convc.schedules.cuda.backend import BACKEND
from convc.schedules.cuda.row_model import patch_rate
from convc.schedules.offers import offers_of
from convc.schedules.plan import Choice
from convc.schedules.policy import Policy
from convc.schedules.remarks import remarked
from convc.schedules.tuned import Measurement
from convc.target import parse_target
from tests.schedules.cuda.cuda_convolutions import TARGET, Trial, wgmma_resources

ALGORITHM = BACKEND.algorithm("tensor_core_blocked")
LAYER = ConvSpec.of((8, 128, 28, 28), (128, 128, 3, 3), pads=(1, 1, 1, 1), dtype="float16")
LIKE = ConvSpec.of((8, 128, 28, 28), (256, 128, 3, 3), pads=(1, 1, 1, 1), dtype="float16")
OTHERS = ("cuda -arch=sm_90 -ptx", "cuda -arch=sm_90,sm_80", "cuda -arch=sm_90,sm_100", "cuda -arch=sm_80")  # fmt: skip

needs_nvcc = pytest.mark.skipif(nvcc.find_nvcc() is None, reason="there is no nvcc")


def setting(**asked: int) -> dict[str, int]:
    space = ALGORITHM.space(Problem(LAYER), TARGET)
    return next(dict(k) for k in space if all(k[name] == value for name, value in asked.items()))


def offer(problem_of_record: ConvSpec, knobs: dict[str, int], target: str):
    """Return what is offered for `LAYER` where one record is known, a microsecond."""
    record = Measurement("tensor_core_blocked", knobs, 1e-6, 0.0)
    records = {Problem(problem_of_record).key: (record,)}
    made = offers_of(Problem(LAYER), parse_target(target), Policy(), records)
    (found,) = made.by("tensor_core_blocked")
    return found


# Of ResNet-50: batch, pixels of a map, input and output channels, taps, stride; the tile of the setting that was fastest of 16 on an H200,
# or as fast within 0.02, all of three steps or more in shared memory (2026-11-27).
MEASURED = (
    (32, 7, 512, 2048, 1, 1, {"pixels": 128, "channels": 256, "step": 64}),
    (32, 14, 1024, 512, 1, 1, {"pixels": 128, "channels": 256, "step": 64}),
    (1, 28, 512, 256, 1, 1, {"pixels": 64, "channels": 32, "step": 128}),
)


def layer(batch: int, extent: int, inputs: int, outputs: int, taps: int, stride: int) -> Problem:
    data = (batch, inputs, extent * stride, extent * stride)
    pads, strides = (taps // 2,) * 4, (stride, stride)
    return Problem(ConvSpec.of(data, (outputs, inputs, taps, taps), pads=pads, strides=strides, dtype="float16"))  # fmt: skip


@pytest.mark.parametrize(("shape", "tile"), [(m[:-1], m[-1]) for m in MEASURED])
def test_what_was_fastest_on_a_device_is_taken(shape, tile):
    knobs = ALGORITHM.knobs(layer(*shape), TARGET)
    assert {name: knobs[name] for name in tile} == tile
    assert knobs["group"] == 4
    assert knobs["stages"] > 2


@pytest.mark.parametrize(("extent", "channels", "stride"), [(56, 64, 1), (28, 128, 1), (28, 128, 2), (14, 256, 2), (7, 512, 1)])  # fmt: skip
def test_patches_of_several_taps_come_through_l1(extent, channels, stride):
    """With them 27 tiles of seven 3x3 layers took 0.54 to 1.03 of the time on an H200 (2026-11-27), the best ones 0.55 to 1.02."""
    problem = layer(32, extent, channels, channels, 3, stride)
    knobs = ALGORITHM.knobs(problem, TARGET)
    assert (knobs["group"], knobs["cached"]) == (4, 1)
    without = ALGORITHM.cycles(problem, TARGET, {**knobs, "cached": 0})
    assert 0.45 < ALGORITHM.cycles(problem, TARGET, knobs) / without <= 1


def clocks(problem: Problem, **asked: int) -> float:
    """Return the estimate of a tile of four warps of 64 pixels x 64 channels, 64 terms a step, of what is asked for besides."""
    tile = {"pixels": 64, "channels": 64, "step": 64, "warp_pixels": 16, "warp_channels": 64}
    return ALGORITHM.cycles(problem, TARGET, {**tile, "math": 1, "split": 1, "stages": 2, "group": 4, **asked})  # fmt: skip


def test_a_product_behind_the_next_copies_is_faster():
    """On an H200 three steps in shared memory took 0.93 times as long as two (geometric mean of 133 pairs)."""
    problem = layer(32, 14, 256, 256, 3, 1)
    for tile in ({"channels": 256, "warp_channels": 256}, {"pixels": 128}):
        assert 0.6 < clocks(problem, **tile, stages=3) / clocks(problem, **tile) < 0.95


def test_more_steps_in_shared_memory_cost_resident_blocks():
    """Of 64 x 128 with 128 terms a step, two steps leave room for a second block, three for none."""
    problem = layer(32, 28, 128, 128, 3, 1)
    wide = {"channels": 128, "warp_channels": 128}
    assert clocks(problem, **wide, stages=5) > clocks(problem, **wide, stages=3)


def test_strides_along_the_width_read_halves_of_sectors():
    """3x3 of stride 2 took 1.27 to 1.6 times as long as that of stride 1 with as many products (256 channels, batch 32)."""
    apart, together = layer(32, 14, 256, 256, 3, 2), layer(32, 14, 256, 256, 3, 1)
    for tile in ({"channels": 256, "warp_channels": 256}, {"pixels": 128, "channels": 128, "warp_channels": 128}):  # fmt: skip
        assert 1.1 < clocks(apart, **tile, stages=4) / clocks(together, **tile, stages=4) < 1.8
    down = ConvSpec.of((32, 256, 28, 28), (256, 256, 3, 3), pads=(1, 1, 1, 1), strides=(2, 1), dtype="float16")  # fmt: skip
    assert patch_rate(down, {}) == patch_rate(together.spec, {}) > patch_rate(apart.spec, {})


@pytest.mark.parametrize("target", OTHERS)
def test_code_for_others_has_no_warpgroups(target):
    assert all("group" not in k for k in ALGORITHM.space(Problem(LAYER), parse_target(target)))


def test_a_record_of_warpgroups_speaks_for_sm_90_alone():
    knobs = setting(group=4, stages=2)
    assert offer(LAYER, knobs, "cuda -arch=sm_90").source == "record"
    for target in OTHERS:
        assert offer(LAYER, knobs, target).source == "estimate"
        assert "group" not in offer(LIKE, knobs, target).knobs


def test_a_record_from_before_there_were_warpgroups_is_passed_over():
    """The layer's own, and a like layer's."""
    old = setting(group=1)
    del old["group"]
    for spec in (LAYER, LIKE):
        found = offer(spec, old, "cuda -arch=sm_90")
        assert found.source == "estimate"
        assert "group" in found.knobs


@pytest.mark.parametrize(
    ("target", "got"),
    [("sm_90 -ptx", "sm 90 and PTX"), ("sm_90,sm_80", "sm 90, 80"), ("sm_90", ""), ("sm_80", ""), ("sm_80,sm_90", "")],
)  # fmt: skip
def test_who_does_without_on_a_device_that_has_them_is_told(target, got):
    machine = parse_target(f"cuda -arch={target}")
    knobs = ALGORITHM.knobs(Problem(LAYER), machine)
    choice = Choice("tensor_core_blocked", knobs, "estimate")
    said = remarked(Problem(LAYER), choice, machine).reason
    why = f"; by mma.sync, not by wgmma, which is of sm 90 alone; got {got}" if got else ""
    assert said == f"estimate{why}"


@pytest.mark.parametrize("target", OTHERS)
def test_wgmma_is_not_compiled_for_others(target):
    gpu = parse_target(target).gpu
    with pytest.raises(LoweringError, match="wgmma must be compiled for sm 90 alone"):
        nvcc.compile_source('asm volatile("wgmma.mma_async");', gpu)


@needs_nvcc
def test_products_that_go_on_behind_the_next_copies_are_not_serialised():
    """ptxas says so where it waits for each instruction instead, and keeps sums in registers."""
    kinds = [setting(group=4, stages=s, pixels=128, channels=128, split=1) for s in (3, 5)]
    epilogue = (Step("bias"), Step("add"), Step("relu"))
    trials = [Trial("tensor_core_blocked", LAYER, epilogue, k) for k in kinds]
    found = wgmma_resources(trials)
    assert all(r.spill_bytes == r.stack_bytes == 0 for r in found.values())
