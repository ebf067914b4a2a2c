"""The training benchmark's ResNet-18 against PyTorch: the same loss and gradients, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.training import gradients_of_torch
from benchmarks.training_networks import CLASSES, initial, resnet18
from convc.ir.reference import interpret

torch = pytest.importorskip("torch", reason="PyTorch is not installed: no second opinion")


def test_gradients_of_resnet18_equal_pytorchs():
    training = resnet18(2, 33, "float64")
    rng = np.random.default_rng(0)
    inputs = {
        "x": rng.normal(size=(2, 3, 33, 33)),
        "target": np.eye(CLASSES)[[3, 141]],
        **{n: v.astype(np.float64) for n, v in initial(training.parameters).items()},
    }
    expected = gradients_of_torch(inputs, list(training.parameters), 1)()
    actual = interpret(training.graph, inputs)
    assert set(actual) == set(expected)
    for name, gradient in expected.items():
        scale = np.abs(gradient).max()
        assert scale > 0
        # Sixty layers of float64 rounding, and normalisations over as few as two points.
        assert np.abs(actual[name] - gradient).max() <= 1e-8 * scale, name
