"""Layers to be tuned where the networks are not."""

from __future__ import annotations

import json

from benchmarks.gpu.tasks import read_tasks, tune, write_tasks, zoo_tasks
from benchmarks.gpu.tuned import Best, Tuned, table, write_tuned
from convc.ir import ConvSpec, Step
from convc.runtime.libraries.cudnn.find import VARIABLE
from convc.schedules.algorithm import Problem
from convc.schedules.policy import Policy
from convc.schedules.weight_gradient_problem import WeightGradientProblem
from convc.target import parse_target
from convc.tuning.options import Options
from convc.tuning.tasks import Task
from tests.cudnn.double_library import build_double


def test_a_training_steps_tasks_go_through_a_file(tmp_path):
    tasks = zoo_tasks((), (), ("float16",), steps=(2,))
    write_tasks(tasks, tmp_path / "tasks.jsonl")
    assert read_tasks(tmp_path / "tasks.jsonl") == tasks
    keys = [t.subject.key for t in tasks]
    gradients = [t for t in tasks if isinstance(t.problem, WeightGradientProblem)]
    assert len(gradients) == 11
    assert sum(t.count for t in gradients) == 20
    assert any(key.endswith("@weights") for key in keys)
    assert all(t.layers[0].startswith("resnet18_step_2:") for t in tasks)


def test_layers_of_a_file_are_tuned_beside_cudnn_and_told_as_a_table(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(build_double()))
    layer = Problem(ConvSpec.of((1, 4, 6, 6), (8, 4, 3, 3), pads=(1, 1, 1, 1)), (Step("relu"),))
    write_tasks([Task(layer, ("net:conv", "net:same"))], tmp_path / "tasks.jsonl")
    options = Options(
        seconds=None,
        trials_per_layer=1,
        policy=Policy(include=("generic", "cudnn")),
        initializer="tests.tuning.emulated_device:emulate_with_cudnn",
    )
    said, told = [], []
    tune(
        read_tasks(tmp_path / "tasks.jsonl"),
        parse_target("cuda -arch=sm_90"),
        tmp_path / "log.jsonl",
        options,
        said.append,
        lambda session: (told.append(session), write_tuned(session, tmp_path / "tuned")),
    )
    assert len(told) == 1
    document = json.loads((tmp_path / "tuned.json").read_text())
    (row,) = document["layers"]
    assert (row["layer"], row["done"], set(row["best"])) == ("net:conv (+1)", True, {"own", "cudnn"})  # fmt: skip
    assert row["trials"] == document["trials"]
    assert row["taken"]["seconds"] > 0
    assert row["taken"]["algorithm"] in {"generic", "cudnn"}
    text = (tmp_path / "tuned.md").read_text()
    assert "1 of 1 layers done" in text
    assert "| net:conv (+1) |" in text
    assert "times as long in the geometric mean of 1 layers" in text


def test_a_single_time_that_overtook_the_comparison_shows_as_less_than_one():
    """What is taken is the fastest of the comparison in turns: where cuDNN was once faster than that, the table says so."""
    own, cudnn = Best("direct", {"tile": 8}, 2e-6), Best("cudnn", {"engine": 1}, 1.9e-6)
    rows = [
        Tuned("a", "key", True, 3e-6, {"own": own, "cudnn": cudnn}, own, {"ok": 2}),
        Tuned("b", "key", False, None, {"own": own}, own, {"ok": 1}),
        Tuned("c", "key", True, None, {}, None, {"crash": 1}),
    ]
    text = table(rows, {"name": "a device"})
    assert "2 of 3 layers done" in text
    assert "| a | 3.0 | 2.0 | direct tile=8 | 1.9 |  | own | 0.95 |" in text
    assert "| b (not done) |" in text
    assert "| all failed |" in text
    assert "cudnn alone takes 0.95 times as long in the geometric mean of 1 layers, 0.95 at least; it is taken on 0." in text  # fmt: skip
    assert "Without a time of cudnn: b, c." in text
