"""Sums in parts on tensor cores: the kernel that adds up 8 channels at once, with every epilogue, on the emulated device."""

from __future__ import annotations

from dataclasses import replace

from convc.ir import ConvSpec, Step
from convc.schedules.algorithm import Problem
from convc.schedules.cuda import weight_gradient_blocked
from convc.schedules.cuda.backend import BACKEND
from tests.schedules.cuda import weight_gradients
from tests.schedules.cuda.cuda_convolutions import TARGET, Trial, check

ALGORITHM = BACKEND.algorithm("tensor_core_blocked")
# 49 points fill no tile and 40 channels no tile of 32; of 20 channels half a block is beyond.
DEEP = ConvSpec.of((1, 64, 7, 7), (40, 64, 3, 3), pads=(1, 1, 1, 1), dtype="float16")
HALF_FULL = replace(DEEP, weight=(20, 64, 3, 3), dtype="bfloat16")
LINE = ConvSpec.of((2, 64, 9), (24, 64, 5), pads=(2, 2), dtype="float16")
RESIDUAL = (Step("bias"), Step("add"), Step("relu"))


def trial(spec: ConvSpec, split: int, epilogue: tuple[Step, ...]) -> Trial:
    space = ALGORITHM.space(Problem(spec, epilogue), TARGET)
    return Trial(ALGORITHM.name, spec, epilogue, next(k for k in space if k["split"] == split and k["stages"] == 2))  # fmt: skip


def test_parts_of_convolutions():
    trials = [
        trial(DEEP, 2, RESIDUAL), trial(DEEP, 3, ()), trial(HALF_FULL, 5, RESIDUAL),
        trial(HALF_FULL, 6, (Step("bias"), Step("clip", (0.0, 6.0)))), trial(LINE, 4, RESIDUAL),
    ]  # fmt: skip
    check(trials, exact=True)


def test_parts_of_weight_gradients():
    """In eights of channels; one by one where channels are no eights."""
    row, trials = weight_gradient_blocked, []
    for channels, split in ((64, 2), (16, 1), (12, 2)):
        spec = ConvSpec.of((4, channels, 6, 6), (24, channels, 3, 3), pads=(1, 1, 1, 1), dtype="float16")  # fmt: skip
        trials.append((row, spec, next(k for k in row.space(spec, TARGET) if k["split"] == split)))
    weight_gradients.check(trials, exact=True)


def test_as_many_parts_as_fill_the_device_are_offered():
    """3x3 of 512 channels at 7 x 7, batch 32: five parts of 26 tiles are 130 blocks for 132 multiprocessors."""
    layer = ConvSpec.of((32, 512, 7, 7), (512, 512, 3, 3), pads=(1, 1, 1, 1), dtype="float16")
    space = list(ALGORITHM.space(Problem(layer), TARGET))
    for split in (3, 5):
        wanted = {"pixels": 128, "channels": 256, "step": 64, "stages": 4, "group": 4, "split": split}  # fmt: skip
        assert any(wanted.items() <= k.items() for k in space)
