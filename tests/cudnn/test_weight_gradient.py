"""Weight gradients as cuDNN's by choice: when, why not, and training steps with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convc.errors import UnsupportedConvError
from convc.explaining import explain
from convc.frontend import dsl as cc
from convc.ir import Graph
from convc.ir.reference import interpret
from convc.planning import Wishes, plan_graph
from convc.schedules.policy import Policy
from convc.target import parse_target
from tests.cuda_emulation.emulation import worker

TARGET = parse_target("cuda -arch=sm_90")


def step(dtype: str = "float32") -> Graph:
    """The gradients of two layers' weights: one strided and dilated in groups, one whose pads cuDNN does not take."""
    x = cc.input("x", (2, 4, 9, 8), dtype)
    w, v = cc.input("w", (4, 2, 3, 2), dtype), cc.input("v", (3, 4, 3, 3), dtype)
    h = cc.conv2d(x, w, strides=(2, 1), pads=1, dilations=(1, 2), group=2, name="even")
    y = cc.conv2d(h, v, pads=(1, 0, 0, 1), name="odd")
    dw, dv = cc.grad(cc.sum(y), [w, v])
    return cc.graph({"dw": dw, "dv": dv}, name="step")


def gradients(graph: Graph) -> tuple[str, str]:
    names = {n.type.shape: n.name for n in graph.nodes if n.op == "conv_weight_grad"}
    return names[4, 2, 3, 2], names[3, 4, 3, 3]


def chosen(graph: Graph, **wishes: Any) -> dict[str, Any]:
    return dict(plan_graph(graph, TARGET, Wishes.of(**wishes), "").plan.gradients)


def test_when_it_is_chosen():
    graph = step()
    even, odd = gradients(graph)
    nobody = chosen(graph)
    assert nobody[even].algorithm != "cudnn"
    row = next(c for c in nobody[even].candidates if c.algorithm == "cudnn")
    assert row.reason.startswith("taken by a tuned record, a pin, or a policy")
    preferred = chosen(graph, cudnn="prefer")
    assert (preferred[even].algorithm, preferred[even].reason) == ("cudnn", "asked for by the policy")  # fmt: skip
    assert preferred[even].otherwise.algorithm == nobody[even].algorithm
    assert preferred[odd].algorithm != "cudnn"
    assert preferred[odd].reason.startswith("cudnn asked for, but pads must be equal at both ends")
    pinned = chosen(graph, algo_for={even: "cudnn"})[even]
    assert (pinned.algorithm, pinned.otherwise) == ("cudnn", None)
    assert pinned.reason == f"pinned by --algo-for {even}"
    with pytest.raises(
        UnsupportedConvError, match=r"'cudnn' cannot compute .*: pads must be equal"
    ):
        chosen(graph, algo_for={odd: "cudnn"})
    assert chosen(graph, cudnn="off")[even].algorithm != "cudnn"
    bounded = chosen(graph, policy=Policy(require=("cudnn",), deterministic=True, workspace_limit=8 << 20))  # fmt: skip
    assert {"deterministic": 1, "workspace_mib": 8}.items() <= dict(bounded[even].knobs).items()


def test_explain_has_the_workspace_and_what_stands_beside():
    graph = step()
    even, _ = gradients(graph)
    bound = Policy(workspace_limit=8 << 20)
    reports = explain(graph, target="cuda -arch=sm_90", cudnn="prefer", policy=bound)
    rows = {c.algorithm: c for c in next(r for r in reports if r.node == even).candidates}
    assert (rows["cudnn"].chosen, rows["cudnn"].workspace_bytes) == (True, 8 << 20)
    (beside,) = (c for c in rows.values() if c.beside)
    assert beside.reason.startswith("for devices whose cudnn refuses it; estimate")
    assert rows["plain"].workspace_bytes == 0


def test_the_lock_has_both(tmp_path):
    graph = step()
    even, _ = gradients(graph)
    planned = plan_graph(graph, TARGET, Wishes.of(cudnn="prefer"), "sha")
    planned.lock.write(tmp_path / "step.lock")
    again = plan_graph(graph, TARGET, Wishes.of(locked=tmp_path / "step.lock"), "sha").plan
    assert again.gradients[even].algorithm == "cudnn"
    found, wanted = again.gradients[even].otherwise, planned.plan.gradients[even].otherwise
    assert found is not None
    assert wanted is not None
    assert found.algorithm == wanted.algorithm


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float16", marks=pytest.mark.slow)])
def test_a_training_step(dtype):
    """By cuDNN; and by convc's own where the device refuses it."""
    graph = step(dtype)
    even, _ = gradients(graph)
    rng = np.random.default_rng(0)
    given = {n.name: rng.integers(-1, 2, n.type.shape).astype(dtype) for n in graph.inputs}
    expected = interpret(graph, given)
    options = {"target": "cuda -arch=sm_90", "cudnn": "prefer"}
    for failures in ([], [("cudnnBackendExecute", -1, 3000)]):
        said = worker().call("tests.cudnn.candidate:loaded", graph, options, given, failures)
        for name, wanted in expected.items():
            np.testing.assert_array_equal(said["outputs"][name], wanted)
        fallen = [f.layer for f in said["prepared"].fallbacks]
        assert (even in fallen) == bool(failures)
        assert (said["ran"][even][0] == "cudnn") != bool(failures)
