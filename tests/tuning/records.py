"""Records and limits for tests that measure nothing."""

from __future__ import annotations

from convc.ir import ConvSpec
from convc.schedules.algorithm import Problem
from convc.schedules.table import TEMPLATE, algorithm_named
from convc.target import Target
from convc.tuning.calibration import Calibration
from convc.tuning.device import device_name, target_name
from convc.tuning.record import Record

AVX512 = Target("llvm", "x86_64-linux-gnu", "x86-64-v4", (), 16, 32)
SPEC = ConvSpec.of((1, 16, 6, 6), (16, 16, 3, 3), pads=(1, 1, 1, 1))
PROBLEM = Problem(SPEC)
LIMITS = Calibration(cpu="test", target="x86-64-v4", peak={1: 1e11}, bandwidth={"l3": 1e10})


def record(algorithm: str = "direct", seconds: float = 1e-3, target: Target = AVX512, **changed) -> Record:  # fmt: skip
    knobs = changed.pop("knobs", None) or dict(algorithm_named(algorithm).knobs(PROBLEM, target))
    fields = {
        "workload": PROBLEM.key,
        "threads": target.cores,
        "target": target_name(target),
        "device": device_name(target),
        "template": TEMPLATE,
        "status": "ok",
        "error": 1e-7,
    } | changed
    return Record(algorithm=algorithm, knobs=knobs, seconds=seconds, **fields)
