"""Layers to be tuned where the networks are not."""

from __future__ import annotations

from benchmarks.gpu.tasks import read_tasks, write_tasks, zoo_tasks
from convc.schedules.weight_gradient_problem import WeightGradientProblem


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
