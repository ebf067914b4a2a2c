"""Gated layers: weights scaled instead of data give the layer's result; when they are, and when not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convc.ir import Graph
from convc.ir.graph import constant
from convc.ir.reference import interpret
from convc.ir.text import parse
from convc.lock import lock_of, read_lock
from convc.lowering.build import build
from convc.lowering.emit import emit
from convc.runtime import load
from convc.schedules.policy import Policy
from convc.schedules.select import select
from convc.target import Target, parse_target
from tests.schedules.conv_module import whole_numbers

XEON = Target(
    "llvm", "x86_64-linux-gnu", "emeraldrapids", (), 16, 32, l2_bytes=1 << 20, l3_bytes=64 << 20
)

# Two images; blocks of channels that are not full; either order of the operands; one filter with taps and padding.
TEXT = """graph @gates {
  %x = input : f32[2,20,12,11]
  %s = input : f32[2,20,1,1]
  %w = input : f32[5,20,1,1]
  %v = input : f32[3,20,3,3]
  %b = input : f32[5]
  %r = relu(%x)
  %g = mul(%r, %s)
  %y = conv(%g, %w, %b) {algorithm = "direct", epilogue = [bias, relu]}
  %h = mul(%s, %x)
  %z = conv(%h, %v) {algorithm = "direct", pads = [1, 1, 1, 1]}
  return %y, %z
}"""


def gates(text: str = TEXT) -> Graph:
    """Return the network with constant weights."""
    graph, rng = parse(text), np.random.default_rng(0)
    nodes = []
    for node in graph.nodes:
        if node.name in "wvb":
            nodes.append(constant(node.name, whole_numbers(rng, node.type.shape)))
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def inputs(graph: Graph) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {n.name: whole_numbers(rng, n.type.shape) for n in graph.inputs}


@pytest.mark.parametrize("threads", [1, 2])
def test_results_are_exact(tmp_path: Path, threads: int) -> None:
    graph, target = gates(), parse_target(cores=threads)
    plan = select(graph, target)
    assert [(c.kind, c.layers) for c in plan.chains] == [("gated", ("g", "y")), ("gated", ("h", "z"))]  # fmt: skip
    program = emit(graph, plan, target)
    assert [c.node for c in program.calls if c.op == "mul"] == ["g", "h"]
    assert all(c.reason == "scales weights, not data" for c in program.calls if c.op == "mul")
    build(program, target).export(tmp_path / "gates.so")
    actual = load(tmp_path / "gates.so", threads=threads).run(inputs(graph))
    for name, expected in interpret(graph, inputs(graph)).items():
        np.testing.assert_array_equal(actual[name], expected)


def test_a_layer_says_so() -> None:
    reason = select(gates(), XEON)["y"].reason
    assert reason.endswith("; 'g' scales its 200 weights, not its 5280 data")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return %y, %z", "return %y, %z, %g, %h"),
        ("return %y, %z", "%u = sub(%g, %h) return %y, %z, %u"),
        ("[2,20,12,11]", "[2,20,3,3]"),
        ('"direct"', '"im2col"'),
        ("%s = input : f32[2,20,1,1]", "%s = input : f32[2,1,1,1]"),
    ],
    ids=["outputs", "other readers", "few data", "another algorithm", "a scale of each image"],
)
def test_the_data_are_scaled_where(old: str, new: str) -> None:
    text = TEXT.replace(old, new)
    assert text != TEXT
    assert select(gates(text), XEON).chains == ()


def test_its_name_excludes_it_and_cuda_has_none() -> None:
    assert select(gates(), XEON, policy=Policy(exclude=("gated",))).chains == ()
    free = gates(TEXT.replace('algorithm = "direct", ', "").replace('algorithm = "direct"', ""))
    assert select(free, parse_target("cuda -arch=sm_90")).chains == ()


def test_a_lock_keeps_it(tmp_path: Path) -> None:
    graph = gates()
    plan = select(graph, XEON)
    lock_of(graph, plan, XEON, "hash", {}).write(tmp_path / "gates.lock")
    assert read_lock(tmp_path / "gates.lock").plan(graph, XEON, "hash").chains == plan.chains
