"""What a module with cuDNN in it does when it is loaded, so that its first run need not."""

from __future__ import annotations

from typing import Any

import numpy as np

from convc.frontend import dsl as cc
from convc.ir import Graph
from convc.ir.reference import interpret
from tests.cuda_emulation.emulation import worker


def net() -> Graph:
    rng = np.random.default_rng(0)
    x = cc.input("x", (1, 4, 8, 8))
    w = rng.integers(-2, 3, (4, 4, 3, 3)).astype(np.float32)
    h = cc.relu(cc.conv2d(x, w, np.ones(4, np.float32), pads=1, name="first"))
    return cc.graph(
        {"y": cc.max_pool2d(cc.conv2d(h, w, name="second"), 2, name="pool")}, name="net"
    )


def in_child(function: str, *arguments: Any) -> Any:
    options = {"target": "cuda -arch=sm_90", "cudnn": "require"}
    return worker().call(f"tests.cudnn.candidate:{function}", net(), options, *arguments)


def test_plans_are_made_and_tried_at_load_and_not_by_the_first_run():
    image = np.random.default_rng(1).integers(-3, 4, (1, 4, 8, 8)).astype(np.float32)
    said = in_child("first_run", {"x": image})
    for outputs in said["outputs"]:
        np.testing.assert_array_equal(outputs["y"], interpret(net(), {"x": image})["y"])
    assert said["load"].count("heuristics") == said["load"].count("run ") == 2
    # Nothing but calls from then on, from another thread neither.
    assert said["run"] == said["other thread"] == "run 25 on stream 0;run 25 on stream 0;pool 0;"
    # A second module of the file has its own run at load, by the plans that are there; handles go with the last of them.
    assert said["one of two unloaded"] == said["run"]
    assert said["unloaded"] == "destroy;"
    assert len(said["prepared"].plans) == 2
    assert [p.engine for p in said["prepared"].plans] == [25, 25]
    assert said["prepared"].plans[0].spec.startswith("conv2d-")
    assert [p.layer for p in said["prepared"].plans] == ["first", "second"]
    assert 0 < sum(p.seconds for p in said["prepared"].plans) <= said["prepared"].seconds
