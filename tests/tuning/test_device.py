"""The same tuning on a CUDA device, here the emulated one: its kernels are checked, timed in graphs, recorded."""

from __future__ import annotations

from convc.ir import ConvSpec, Step
from convc.schedules.algorithm import Problem
from convc.schedules.policy import Policy
from convc.target import parse_target
from convc.tuning.calibration import calibration
from convc.tuning.knowledge import knowledge
from convc.tuning.log import Log
from convc.tuning.options import Options
from convc.tuning.session import Session
from convc.tuning.tasks import Task

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
    assert best.seconds == min(r.seconds for r in records if r.final)
