"""Products of warpgroups: taken for sm 90 alone, and what nvcc makes of those that go on behind the next copies."""

from __future__ import annotations

import pytest
import tvm

from convc.errors import LoweringError
from convc.ir import ConvSpec, Step
from convc.schedules.algorithm import Problem
from convc.schedules.cuda import compiler, nvcc
from convc.schedules.cuda.backend import BACKEND
from convc.schedules.offers import offers_of
from convc.schedules.plan import Choice
from convc.schedules.policy import Policy
from convc.schedules.remarks import remarked
from convc.schedules.tuned import Measurement
from convc.target import parse_target
from tests.schedules.cuda.cuda_convolutions import TARGET, Trial, scheduled

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


@pytest.mark.parametrize("batch", [1, 32])
@pytest.mark.parametrize("channels", [64, 256, 512])
def test_what_no_device_ran_is_not_taken_by_itself(channels, batch):
    spec = ConvSpec.of((batch, channels, 14, 14), (channels, channels, 3, 3), pads=(1, 1, 1, 1), dtype="float16")  # fmt: skip
    knobs = ALGORITHM.knobs(Problem(spec), TARGET)
    assert knobs["group"] == 1 or knobs["stages"] == 2
    assert any(k["group"] == 4 and k["stages"] > 2 for k in ALGORITHM.space(Problem(spec), TARGET))


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
    functions = {f"k{i}": scheduled(t).with_attr("global_symbol", f"k{i}") for i, t in enumerate(trials)}  # fmt: skip
    source = compiler.source_of(compiler.build(tvm.IRModule(functions), TARGET))
    words = nvcc.ptxas_words(source, "90a", ("-O3",))
    assert "serializ" not in words
    found = nvcc.parse_resources(words)
    assert len(found) == len(trials)
    assert all(r.spill_bytes == r.stack_bytes == 0 for r in found.values())
