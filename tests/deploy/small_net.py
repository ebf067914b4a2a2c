"""A small network on whole numbers: with the direct method every CPU's result is exact, so results are compared bit by bit."""

from __future__ import annotations

import numpy as np

from convc import dsl as cc
from convc.ir import Graph
from convc.ir.reference import interpret

__all__ = ["ALGORITHM", "CPUS", "expected", "image", "small_net"]

# Winograd and FFT round; this one adds whole numbers below 2^24.
ALGORITHM = "direct"
# What the tests' modules are made for, the least first.
CPUS = ("x86-64-v2", "x86-64-v3")


def small_net(name: str = "small", batch: int | str = 1) -> Graph:
    """x (batch, 3, 16, 16) -> scores (batch, 10) and features (batch, 16, 16, 16)."""
    rng = np.random.default_rng(0)

    def whole(*shape: int) -> np.ndarray:
        return rng.integers(-2, 3, shape).astype(np.float32)

    x = cc.input("x", (batch, 3, 16, 16))
    h = cc.relu(cc.conv2d(x, whole(16, 3, 3, 3), pads=1, name="stem"))
    h = h + cc.conv2d(h, whole(16, 16, 3, 3), pads=1, name="block")
    scores = cc.dense(cc.flatten(cc.max_pool2d(h, 2, strides=2)), whole(10, 1024))
    return cc.graph({"scores": scores, "features": h}, name=name)


def image(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3, 4, (1, 3, 16, 16)).astype(np.float32)


def expected(x: np.ndarray) -> dict[str, np.ndarray]:
    return {
        k: v.astype(np.float32) for k, v in interpret(small_net(batch=len(x)), {"x": x}).items()
    }
