"""The same tuning on a CUDA device, here the emulated one: its kernels are checked, timed in graphs, recorded."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from convc.errors import DeviceError, ToolchainError, TuningError
from convc.ir import ConvSpec, Step
from convc.runtime.libraries.cudnn import POLICIES
from convc.runtime.libraries.cudnn.find import VARIABLE
from convc.schedules.algorithm import Problem
from convc.schedules.backend import backend_of
from convc.schedules.policy import Policy
from convc.schedules.properties import properties_of
from convc.target import parse_target
from convc.target.cuda import gpu_of
from convc.tuning.calibration import calibration
from convc.tuning.device import another_device
from convc.tuning.knowledge import knowledge
from convc.tuning.log import Log
from convc.tuning.options import Options
from convc.tuning.place import DevicePlace
from convc.tuning.session import Session
from convc.tuning.tasks import Task
from tests.cudnn.double_library import build_double

TARGET = parse_target("cuda -arch=sm_90")
LAYER = Problem(ConvSpec.of((1, 4, 6, 6), (8, 4, 3, 3), pads=(1, 1, 1, 1)), (Step("bias"), Step("relu")))  # fmt: skip


def test_a_layer_is_tuned_on_a_device(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    options = Options(
        seconds=None,
        trials_per_layer=4,
        policy=Policy(include=("direct", "generic")),
        initializer="tests.tuning.emulated_device:emulate",
    )
    session = Session([Task(LAYER, ("layer",))], TARGET, log, calibration(TARGET), options)
    session.run()
    assert set(session.counts) == {"ok"}, log.read().records
    records = log.read().records
    assert {r.algorithm for r in records} == {"direct", "generic"}
    assert any(r.final for r in records)
    # Wherever its code is compiled next, the device is known by this name; how many cores that machine has does not matter.
    assert {(r.target, r.device, r.threads) for r in records} == {("cuda sm_90", "nvidia-h200", 1)}
    elsewhere = parse_target("cuda -arch=sm_90", cores=16)
    best = knowledge(elsewhere, [log.path]).records[LAYER.key][0]
    # A setting that took part in two comparisons is known by the later one.
    finals = {r.setting: r.seconds for r in records if r.final}
    assert best.seconds == min(finals.values())


def test_cudnn_is_measured_whatever_its_estimate_and_the_fastest_is_kept(tmp_path, monkeypatch):
    """Its own search in both orders, beside convc's; the best settings are also written down by the engine that they came to."""
    monkeypatch.setenv(VARIABLE, str(build_double()))
    log = Log(tmp_path / "log.jsonl")
    options = Options(
        seconds=None,
        trials_per_layer=1,
        policy=Policy(include=("generic", "cudnn")),
        initializer="tests.tuning.emulated_device:emulate_with_cudnn",
    )
    Session([Task(LAYER, ("layer",))], TARGET, log, calibration(TARGET), options).run()
    records = log.read().records
    assert {r.status for r in records} == {"ok"}, records
    ways = ("policy", "channels_last", "compiles", "transforms")
    searched = {tuple(r.knobs[w] for w in ways) for r in records if r.algorithm == "cudnn"}
    time, widths = POLICIES.index("time"), ((0, 0), (1, 0), (1, 1))
    assert searched == {(time, last, *width) for last in (0, 1) for width in widths}
    # One more, as asked: the model's.
    assert [r.algorithm for r in records if not r.final and r.algorithm != "cudnn"] == ["generic"]
    finals = [r for r in records if r.final and r.algorithm == "cudnn"]
    named = [r for r in finals if r.knobs["engine"] >= 0]
    assert len(named) == len(finals) / 2
    best = knowledge(TARGET, [log.path]).records[LAYER.key][0]
    assert best.seconds == min({r.setting: r.seconds for r in records if r.final}.values())
    # The double's engines have one setting each; which engine was the fastest is the machine's to say.
    own = {25: ("setting_17", 4), 28: ("setting_17", 8), 0: ("setting_2", 3)}
    for record in named:
        name, value = own[record.knobs["engine"]]
        assert record.knobs[name] == value
    # Nothing is left to do when the tuner is asked again.
    assert Session([Task(LAYER, ("layer",))], TARGET, log, calibration(TARGET), options).layers[0].done  # fmt: skip


def test_without_cudnn_it_is_not_tried_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr("convc.schedules.cuda.cudnn.find_cudnn", lambda: None)
    options = Options(policy=Policy(include=("generic", "cudnn")))
    session = Session([Task(LAYER, ("layer",))], TARGET, Log(tmp_path / "log.jsonl"), calibration(TARGET), options)  # fmt: skip
    assert {s.algorithm for s in session.layers[0].search.settings} == {"generic"}
    assert "cudnn is not tried: cuDNN 9 must be found; got none. Install it with `pip install nvidia-cudnn-cu13`" in session.notes  # fmt: skip


def test_only_a_fault_of_the_device_ends_a_worker():
    lost = partial(DevicePlace.is_lost, DevicePlace.__new__(DevicePlace))
    assert lost(DeviceError("cudaGraphLaunch must succeed; got status 700."))
    assert lost(RuntimeError("CUDA Runtime Error: cudaErrorIllegalAddress (700): an illegal memory access"))  # fmt: skip
    assert not lost(ToolchainError("building for cuda must find nvcc; got none. Install CUDA's compiler."))  # fmt: skip


def test_a_device_is_not_tuned_through_a_server_of_cpus(tmp_path):
    options = Options(runner="rpc://127.0.0.1:9190/key")
    session = Session([Task(LAYER, ("layer",))], TARGET, Log(tmp_path / "log.jsonl"), calibration(TARGET), options)  # fmt: skip
    with pytest.raises(TuningError, match="runner must be 'local' for target cuda sm_90; got"):
        session.run()


def test_times_of_another_device_than_the_target_names_are_said_to_be(monkeypatch):
    here = replace(gpu_of(90), name="NVIDIA H100 80GB HBM3")
    monkeypatch.setattr("convc.tuning.device.present_gpu", lambda: here)
    assert "got nvidia-h100-80gb-hbm3" in another_device(TARGET)[0]
    monkeypatch.setattr("convc.tuning.device.present_gpu", lambda: gpu_of(90))
    assert another_device(TARGET) == []
    assert another_device(parse_target()) == []


@pytest.mark.parametrize(("name", "knobs"), [("tf32", {}), ("cudnn", {"strict": 0})])
def test_operands_in_tf32_are_no_float32(name, knobs):
    algorithm = backend_of(TARGET).algorithm(name)
    problem = Problem(ConvSpec.of((1, 64, 14, 14), (64, 64, 3, 3), pads=(1, 1, 1, 1)))
    used = {**algorithm.knobs(problem, TARGET), **knobs}
    assert properties_of(algorithm, problem, TARGET, used).error > 1e-4


def test_what_cannot_be_built_here_is_not_tried_and_said(tmp_path, monkeypatch):
    half = Problem(ConvSpec.of((1, 8, 6, 6), (8, 8, 3, 3), dtype="float16"))

    def session(problem: Problem, **policy) -> Session:
        options = Options(policy=Policy(**policy))
        return Session([Task(problem, ("layer",))], TARGET, Log(tmp_path / "log.jsonl"), calibration(TARGET), options)  # fmt: skip

    def tried(found: Session) -> set[str]:
        return {s.algorithm for s in found.layers[0].search.settings}

    cutlass = backend_of(TARGET).algorithm("cutlass")
    why = "headers must be there; got none. Install them with `pip install 'convc[cutlass]'`"
    monkeypatch.setattr(type(cutlass), "missing", lambda self: "")
    assert "cutlass" in tried(session(half))
    monkeypatch.setattr(type(cutlass), "missing", lambda self: why)
    without = session(half)
    assert "cutlass" not in tried(without)
    assert "tensor_core" in tried(without)
    assert f"cutlass is not tried: {why}" in without.notes
    # Nobody would have tried it: not for float32, and not where it is left out.
    assert not any("cutlass" in note for note in session(LAYER).notes)
    assert not any("cutlass" in note for note in session(half, exclude=("cutlass",)).notes)
    assert tried(session(half, include=("cutlass", "generic"))) == {"generic"}
    with pytest.raises(ToolchainError, match=r"pip install 'convc\[cutlass\]'"):
        session(half, include=("cutlass",))
