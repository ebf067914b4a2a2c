"""What LLVM makes of the inner loops: sums stay in registers."""

from __future__ import annotations

import re
from dataclasses import replace

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
    "dilated_in_padding": (
        "direct",
        ConvSpec.of((1, 64, 14, 14), (64, 64, 3, 3), pads=(12,) * 4, dilations=(12, 12)),
    ),
    "first_3x3": ("direct", ConvSpec.of((1, 3, 56, 56), (64, 3, 3, 3), pads=(1,) * 4)),
    "first_two_rows": ("direct", ConvSpec.of((1, 3, 14, 14), (32, 3, 3, 3), pads=(1,) * 4)),
    "first_7x7": (
        "direct",
        ConvSpec.of((1, 3, 56, 56), (64, 3, 7, 7), strides=(2, 2), pads=(3,) * 4),
    ),
    "1x1": ("direct", ConvSpec.of((1, 64, 28, 28), (128, 64, 1, 1))),
    "3x3": ("direct", ConvSpec.of((1, 64, 28, 28), (64, 64, 3, 3), pads=(1,) * 4)),
    "24_channels": ("direct", ConvSpec.of((1, 96, 28, 28), (24, 96, 1, 1))),
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


@pytest.mark.parametrize("name", ["1x1", "3x3", "first_7x7", "24_channels"])
def test_bfloat16_is_multiplied_in_pairs_where_that_is_faster(name: str) -> None:
    _, spec = LAYERS[name]
    row, problem = algorithm_named("direct"), Problem(replace(spec, dtype="bfloat16")).widened
    zen4, intel = parse_target(mcpu="znver4"), parse_target(mcpu="emeraldrapids")
    assert row.knobs(problem, zen4)["pairs"] == 1
    # vdpbf16ps there does half the products of float32's instructions.
    assert row.knobs(problem, intel)["pairs"] == 0
    assert {k["pairs"] for k in row.space(problem, intel)} == {0, 1}
    assert {k["pairs"] for k in row.space(problem, TARGET)} == {0}
    knobs = row.knobs(problem, zen4)
    assert knobs["block"] == zen4.lanes
    assert (knobs["vectors"] - 1) * zen4.lanes < spec.out_channels
    func = te.create_prim_func(list(row.compute(problem, zen4, knobs)))
    scheduled = SCHEDULES["direct"](func, knobs, zen4).with_attr("global_symbol", "kernel")
    text = build(tvm.IRModule({"kernel": scheduled}), zen4).mod.inspect_source("s")
    assert text.count("vdpbf16ps") >= 14
    # A pair of channels is broadcast as the instruction's operand: loaded before, 14 sums wait for 15 loads.
    assert text.count("{1to16}") >= 14
    assert text.count("vfmadd") == 0
    assert len(SPILL.findall(text)) == 0
