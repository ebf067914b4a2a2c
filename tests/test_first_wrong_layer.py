"""A layer that is made wrong is named; the layers behind it, which are wrong for its sake, are not."""

from __future__ import annotations

import numpy as np
import pytest

from convc import dsl as cc
from convc.first_wrong_layer import first_wrong_layer
from convc.ir import Graph
from convc.schedules import scalar


def _net(layers: int) -> tuple[Graph, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    h = cc.input("x", (1, 4, 6, 6))
    for i in range(layers):
        w = rng.normal(size=(4, 4, 3, 3)).astype("float32")
        h = cc.conv2d(h, w, pads=1, name=f"conv{i}")
        h = cc.tanh(h) if i == layers // 2 else cc.relu(h)
    graph = cc.graph({"y": h}, name="net")
    return graph, {"x": rng.normal(size=(1, 4, 6, 6)).astype(np.float32)}


def test_no_layer_of_a_right_model_is_wrong() -> None:
    graph, inputs = _net(3)
    assert first_wrong_layer(graph, inputs, algorithms={"conv1": "im2col"}) is None


@pytest.mark.parametrize("layers", [3, 20])
def test_the_first_wrong_layer_is_named(monkeypatch: pytest.MonkeyPatch, layers: int) -> None:
    graph, inputs = _net(layers)
    right = scalar.UNARY["tanh"]
    monkeypatch.setitem(
        scalar.UNARY, "tanh", lambda x: scalar.map_elements(right(x), lambda v: v * 1.01)
    )
    seen: list[tuple[str, int, int]] = []
    wrong = first_wrong_layer(graph, inputs, progress=lambda *at: seen.append(at))
    assert seen[0] == ("layers", 0, 2 * layers)
    assert len(seen) > layers // 15
    assert wrong is not None
    assert wrong.op == "tanh"
    assert wrong.error.max_relative_error == pytest.approx(0.01, rel=0.01)
    assert wrong.before is not None
    assert wrong.before.max_relative_error < 1e-5
