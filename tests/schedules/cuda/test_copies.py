"""Asynchronous copies in our words: one instruction each, addresses shared; what lies outside is filled with zeros, never read."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest
import tvm

from convc.ir import ConvSpec
from convc.schedules.algorithm import Problem
from convc.schedules.cuda import compiler
from convc.schedules.cuda.backend import BACKEND
from tests.schedules.cuda.cuda_convolutions import TARGET, Trial, check, scheduled

# (what copies, its type, bytes of a copy, how)
KINDS = [("tensor_core_blocked", "float16", 16, "cg"), ("direct", "float32", 4, "ca")]
# Steps of one tap each; strides, and pads on one side alone.
LAYER = ConvSpec.of((1, 64, 9, 11), (32, 64, 3, 3), strides=(2, 1), pads=(1, 0, 0, 2))


def trial(algorithm: str, dtype: str) -> Trial:
    spec = replace(LAYER, dtype=dtype)
    space = BACKEND.algorithm(algorithm).space(Problem(spec), TARGET)
    knobs = next(dict(k) for k in space if k["stages"] == 2 and k["split"] == 1)
    return Trial(algorithm, spec, (), knobs)


@pytest.mark.parametrize(("algorithm", "dtype", "nbytes", "kind"), KINDS)
def test_a_copy_is_one_instruction(algorithm, dtype, nbytes, kind):
    function = scheduled(trial(algorithm, dtype)).with_attr("global_symbol", "k")
    source = compiler.source_of(compiler.build(tvm.IRModule({"k": function}), TARGET))
    assert f'"cp.async.{kind}.shared.global [%0], [%1], {nbytes}, %2;"' in source
    assert "st.shared" not in source
    assert "ptx_cp_async_legacy" not in source


def test_copies_of_a_thread_differ_by_constants():
    spec = replace(LAYER, dtype="float16")
    space = BACKEND.algorithm("tensor_core_blocked").space(Problem(spec), TARGET)
    knobs = next(
        k for k in space if (k["group"], k["step"], k["stages"], k["split"]) == (4, 64, 3, 1)
    )
    function = scheduled(Trial("tensor_core_blocked", spec, (), dict(knobs)))
    source = compiler.source_of(
        compiler.build(tvm.IRModule({"k": function.with_attr("global_symbol", "k")}), TARGET)
    )
    copies = re.findall(r"convc_copy_cg_16_2_2_or_zero\(.*data_ptr, (.*), (-?\d+), \(.*\);", source)
    by_offset = Counter(offset for offset, _ in copies)
    # A thread's of a step, at least: the first two steps differ by constants, too.
    assert min(by_offset.values()) == 64 * 64 // 8 // 128
    assert len(set(copies)) == len(copies)


@pytest.mark.parametrize(("algorithm", "dtype", "nbytes", "kind"), KINDS)
def test_what_lies_outside_is_zero(algorithm, dtype, nbytes, kind):
    check([trial(algorithm, dtype)], exact=True)


def test_behind_what_threads_store_themselves_there_is_a_fence():
    """Of 40 channels in steps of 64 the end of a step is zeros, which are stored; of 64 all is copied."""
    for channels, fenced in ((64, False), (40, True)):
        spec = ConvSpec.of((1, channels, 9, 11), (32, channels, 1, 1), dtype="float16")
        space = BACKEND.algorithm("tensor_core_blocked").space(Problem(spec), TARGET)
        knobs = next(dict(k) for k in space if (k["group"], k["step"]) == (4, 64))
        function = scheduled(Trial("tensor_core_blocked", spec, (), knobs))
        module = tvm.IRModule({"k": function.with_attr("global_symbol", "k")})
        source = compiler.source_of(compiler.build(module, TARGET))
        assert "wgmma.mma_async" in source
        assert ("fence.proxy.async" in source) == fenced


def test_constants_of_bytes_are_of_64_bits():
    """The second step of 64 channels begins 2^30 elements behind the first one, 2^31 bytes."""
    spec = ConvSpec.of((1, 120, 4096, 4096), (16, 120, 1, 1), dtype="float16")
    space = BACKEND.algorithm("tensor_core_blocked").space(Problem(spec), TARGET)
    knobs = next(dict(k) for k in space if (k["step"], k["split"], k["stages"]) == (64, 1, 2))
    function = scheduled(Trial("tensor_core_blocked", spec, (), knobs))
    source = compiler.source_of(
        compiler.build(tvm.IRModule({"k": function.with_attr("global_symbol", "k")}), TARGET)
    )
    constants = re.findall(
        r"convc_copy_cg_16_2_2\w*\(.*data_ptr, .*, (\d+)(?:, \(.*\))?\);", source
    )
    assert max(map(int, constants)) >= 2**30
    assert "static_cast<long long>(offset) * 2 + static_cast<long long>(more) * 2;" in source
