"""What LLVM makes of the inner loops: sums stay in registers."""

from __future__ import annotations

import re

import pytest
import tvm
from tvm import te

from convc.ir import ConvSpec
from convc.schedules.algorithm import Problem
from convc.schedules.llvm.compiler import build
from convc.schedules.llvm.convolutions import SCHEDULES
from convc.schedules.table import algorithm_named
from convc.target import parse_target

TARGET = parse_target(mcpu="x86-64-v4")

# A vector register stored to or loaded from the stack.
SPILL = re.compile(r"zmm\d+, -?\d*\(%r[sb]p\)|-?\d*\(%r[sb]p\), %zmm")

LAYERS = {
    "first_3x3": ("direct", ConvSpec.of((1, 3, 56, 56), (64, 3, 3, 3), pads=(1,) * 4)),
    "first_two_rows": ("direct", ConvSpec.of((1, 3, 14, 14), (32, 3, 3, 3), pads=(1,) * 4)),
    "first_7x7": (
        "direct",
        ConvSpec.of((1, 3, 56, 56), (64, 3, 7, 7), strides=(2, 2), pads=(3,) * 4),
    ),
    "1x1": ("direct", ConvSpec.of((1, 64, 28, 28), (128, 64, 1, 1))),
    "3x3": ("direct", ConvSpec.of((1, 64, 28, 28), (64, 64, 3, 3), pads=(1,) * 4)),
    "depthwise": (
        "depthwise",
        ConvSpec.of((1, 64, 28, 28), (64, 1, 3, 3), pads=(1,) * 4, group=64),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_register_tiles_are_not_spilled(name: str) -> None:
    algorithm, spec = LAYERS[name]
    row, problem = algorithm_named(algorithm), Problem(spec)
    knobs = row.knobs(problem, TARGET)
    func = te.create_prim_func(list(row.compute(problem, TARGET, knobs)))
    scheduled = SCHEDULES[algorithm](func, knobs, TARGET).with_attr("global_symbol", "kernel")
    text = build(tvm.IRModule({"kernel": scheduled}), TARGET).mod.inspect_source("s")
    assert text.count("vfmadd") >= 14
    assert len(SPILL.findall(text)) == 0
