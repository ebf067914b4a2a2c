"""Kernels with packed weights fetch them ahead; others do not."""

from __future__ import annotations

import pytest
import tvm
from tvm import te

from convc.ir import ConvSpec
from convc.schedules import dense
from convc.schedules.algorithm import Problem
from convc.schedules.llvm.compiler import build
from convc.schedules.llvm.convolutions import SCHEDULES
from convc.schedules.table import algorithm_named
from convc.target import parse_target

TARGET = parse_target(mcpu="x86-64-v4")


def _assembly(name: str, spec: ConvSpec) -> str:
    target = TARGET
    algorithm, problem = algorithm_named(name), Problem(spec)
    knobs = algorithm.knobs(problem, target)
    func = te.create_prim_func(list(algorithm.compute(problem, target, knobs)))
    scheduled = SCHEDULES[name](func, knobs, target).with_attr("global_symbol", "kernel")
    return build(tvm.IRModule({"kernel": scheduled}), target).mod.inspect_source("s")


def test_each_run_of_the_inner_loop_fetches_its_part_of_the_next_panel() -> None:
    spec = ConvSpec.of((1, 64, 7, 7), (128, 64, 1, 1))
    knobs = algorithm_named("direct").knobs(Problem(spec), TARGET)
    passes = -(-7 // knobs["rows"]) * -(-7 // knobs["cols"])
    lines = -(-16 * knobs["vectors"] * 64 // passes // 64)
    # LLVM may unroll the loop: then whole multiples.
    count = _assembly("direct", spec).count("prefetcht1")
    assert count > 0
    assert count % lines == 0


@pytest.mark.parametrize("name", ["winograd", "fft"])
def test_transformed_weights_are_fetched(name: str) -> None:
    spec = ConvSpec.of((1, 32, 14, 14), (32, 32, 3, 3), pads=(1, 1, 1, 1))
    assert "prefetcht1" in _assembly(name, spec)


def test_weights_that_stay_in_registers_are_not_fetched() -> None:
    spec = ConvSpec.of((1, 32, 14, 14), (32, 1, 3, 3), pads=(1, 1, 1, 1), group=32)
    assert "prefetcht" not in _assembly("depthwise", spec)


def test_a_long_sum_fetches_with_every_step() -> None:
    data, outputs = (1, 5000), 64
    knobs = dense.knobs(data, outputs, TARGET)
    func = te.create_prim_func(dense.compute(data, outputs, "float32", (), knobs))
    scheduled = SCHEDULES["dense"](func, knobs, TARGET).with_attr("global_symbol", "kernel")
    code = build(tvm.IRModule({"kernel": scheduled}), TARGET).mod.inspect_source("s")
    # One line for each vector of weights, times LLVM's unrolling; not one for each of 5000 steps.
    assert 0 < code.count("prefetcht1") <= 16 * knobs["vectors"]
