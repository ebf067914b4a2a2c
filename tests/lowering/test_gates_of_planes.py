"""Planes of a layer of few channels, cut apart to gate others (GLPN's fusion of features): channels move where a block is one channel."""

from __future__ import annotations

import numpy as np

from convc.compiler import compile
from convc.frontend import dsl as cc
from convc.ir.reference import interpret


def whole(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(-3, 4, shape).astype(np.float32)


def test_planes_gate_features():
    x = cc.input("x", (1, 32, 8, 8))
    features = cc.relu(cc.conv2d(x, whole(32, 32, 3, 3) / 64, pads=1))
    gates = cc.sigmoid(cc.conv2d(features, whole(2, 32, 3, 3) / 64, pads=1))
    graph = cc.graph({"y": features * gates[:, 0:1] + x * gates[:, 1:2]}, name="gates")
    data = {"x": whole(1, 32, 8, 8)}
    wanted = interpret(graph, data)["y"]
    # Sums of 288 products, a sigmoid of a few units in the last place, two products and a sum.
    limit = 300 * 2.0**-24 * np.abs(wanted).max()
    assert np.abs(compile(graph, threads=1).run(data)["y"] - wanted).max() <= limit
