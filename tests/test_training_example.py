"""`examples/train_mnist_like.py` learns: forward and backward modules and plain SGD, in under a minute of processor time."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import convc


def test_the_training_example_learns(capsys):
    path = Path(convc.__file__).parents[1] / "examples" / "train_mnist_like.py"
    spec = importlib.util.spec_from_file_location("train_mnist_like", path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    # Processor time: a test may share its core with others.
    begin = time.process_time()
    assert example.train(300) > 0.95
    assert time.process_time() - begin < 60
    assert "accuracy" in capsys.readouterr().out
