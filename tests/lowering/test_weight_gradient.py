"""Compiled weight gradients against the reference: bit-exact on whole numbers, many cases in one module."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest

from convc.compiler import compile
from convc.errors import UnknownNameError, UnsupportedConvError
from convc.explaining import explain
from convc.ir import ConvSpec, GraphBuilder, TensorType
from convc.ir.ops.conv_weight_grad import ConvWeightGradAttributes
from convc.ir.reference import interpret
from convc.ir.types import numpy_dtype
from convc.schedules.policy import Policy
from tests.tolerance import assert_exact

SPECS = (
    ConvSpec.of((2, 4, 9), (6, 4, 3), strides=(2,), pads=(1, 2)),
    ConvSpec.of((2, 4, 9), (6, 2, 3), dilations=(2,), group=2),
    ConvSpec.of((2, 4, 6, 7), (8, 4, 3, 3), pads=(1, 1, 1, 1)),
    ConvSpec.of((2, 4, 6, 7), (8, 4, 1, 1)),
    ConvSpec.of((1, 3, 12, 12), (17, 3, 7, 7), strides=(2, 2), pads=(3, 3, 3, 3)),
    ConvSpec.of((3, 18, 5, 6), (33, 18, 3, 2), strides=(2, 1), pads=(0, 1, 2, 1)),
    ConvSpec.of((2, 6, 7, 7), (6, 1, 3, 3), pads=(1, 1, 1, 1), group=6),
    ConvSpec.of((2, 8, 7, 7), (4, 2, 3, 3), dilations=(2, 1), pads=(2, 0, 2, 0), group=4),
    ConvSpec.of((2, 4, 5, 4, 6), (8, 2, 2, 3, 3), strides=(1, 2, 1), pads=(1,) * 6, group=2),
    ConvSpec.of((2, 5, 4, 5, 6), (18, 5, 2, 3, 3), strides=(1, 2, 1), pads=(1, 0, 1, 1, 2, 1)),
    ConvSpec.of((1, 2, 3, 5, 6), (6, 2, 3, 1, 2), dilations=(1, 2, 2)),
    ConvSpec.of((2, 64, 5, 6), (96, 32, 3, 3), pads=(1, 1, 1, 1), group=2),
    ConvSpec.of((2, 6, 9), (12, 3, 3), pads=(1, 1), strides=(2,), group=2),
    ConvSpec.of((3, 20, 6, 5), (20, 1, 5, 5), pads=(2, 2, 2, 2), strides=(2, 1), group=20),
    ConvSpec.of((1, 33, 8, 8), (33, 1, 7, 7), pads=(3, 3, 3, 3), group=33),
    ConvSpec.of((2, 9, 6, 5), (6, 3, 3, 3), pads=(1, 1, 1, 1), group=3),
    ConvSpec.of((1, 8, 4, 5, 5), (16, 1, 3, 3, 3), pads=(1,) * 6, group=8),
    ConvSpec.of((2, 32, 6, 5), (32, 4, 3, 3), pads=(1, 1, 1, 1), strides=(1, 2), group=8),
    ConvSpec.of((2, 16, 6, 5), (32, 4, 3, 3), pads=(1, 1, 1, 1), group=4),
    ConvSpec.of((1, 128, 4, 4), (32, 16, 1, 3), pads=(0, 1, 0, 1), group=8),
)


# Of half types' operands: which part is not zero.
SPARSE = {"float16": 1.0, "bfloat16": 0.5}


# One type has all, the others a third each, of both algorithms: 27 s where all in every type took 42.
@pytest.mark.parametrize(
    ("dtype", "chosen", "algorithms"),
    [
        ("float32", slice(None), {"blocked": 11, "grouped": 9}),
        ("float64", slice(0, None, 3), {"blocked": 4, "grouped": 3}),
        ("float16", slice(1, None, 3), {"blocked": 3, "grouped": 4}),
        ("bfloat16", slice(2, None, 3), {"blocked": 4, "grouped": 2}),
    ],
)
def test_compiled_weight_gradients(dtype, chosen, algorithms):
    b = GraphBuilder("gradients")
    outputs = {}
    rng = np.random.default_rng(0)
    inputs = {}
    for i, spec in enumerate(SPECS[chosen]):
        x, dy = (
            b.input(f"{name}{i}", TensorType(shape, dtype))
            for name, shape in (("x", spec.data), ("dy", spec.output))
        )
        for name, shape in ((x, spec.data), (dy, spec.output)):
            # Sums of few products in half types, so that they are whole numbers below 2048 (float16) or 256 (bfloat16): exact.
            values = rng.integers(-4, 5, shape)
            if dtype in SPARSE:
                values = np.sign(values) * (rng.random(shape) < SPARSE[dtype])
            inputs[name] = values.astype(numpy_dtype(dtype))
        attributes = ConvWeightGradAttributes(
            spec.kernel, spec.strides, spec.pads, spec.dilations, spec.group
        )
        outputs[f"dw{i}"] = b.add("conv_weight_grad", [x, dy], attributes)
    graph = b.finish(outputs)
    model = compile(graph, threads=1)
    actual, expected = model.run(inputs), interpret(graph, inputs)
    # One group or whole blocks; groups of few channels.
    found = Counter(
        step.algorithm for step in model.manifest.steps if step.op == "conv_weight_grad"
    )
    assert found == algorithms
    for name in outputs:
        assert_exact(actual[name], expected[name])


@pytest.mark.parametrize(
    ("algorithm", "spec"),
    [
        ("blocked", ConvSpec.of((1, 36, 5, 6), (68, 36, 3, 3), dtype="bfloat16")),
        ("grouped", ConvSpec.of((1, 2048, 4, 4), (2048, 1, 3, 3), group=2048)),
    ],
)
def test_the_workspace_is_what_a_module_takes_and_what_a_policy_bounds(algorithm, spec):
    """More than lies on a stack: the runtime is asked for it; below it plain loops are left, with the reason."""
    b = GraphBuilder("gradient")
    x, dy = (b.input(n, TensorType(s, spec.dtype)) for n, s in (("x", spec.data), ("dy", spec.output)))  # fmt: skip
    attributes = ConvWeightGradAttributes(spec.kernel, spec.strides, spec.pads, spec.dilations, spec.group)  # fmt: skip
    graph = b.finish({"dw": b.add("conv_weight_grad", [x, dy], attributes, "dw")})
    (report,) = explain(graph, threads=1)
    (row,) = (c for c in report.candidates if c.chosen)
    assert row.algorithm == algorithm
    assert row.workspace_bytes is not None
    # Pieces begin at cache lines.
    taken = compile(graph, threads=1).manifest.workspace_bytes
    assert 0 <= taken - row.workspace_bytes < 64
    assert taken >= 4 * math.prod(spec.weight)
    limit = row.workspace_bytes - 1
    (report,) = explain(graph, threads=1, policy=Policy(workspace_limit=limit))
    reasons = {c.algorithm: c.reason for c in report.candidates}
    assert next(c.algorithm for c in report.candidates if c.chosen) == "plain"
    assert reasons[algorithm] == f"workspace must be at most {limit} bytes; got {limit + 1}"


def step(pins, policy=None):
    b = GraphBuilder("gradient")
    x, dy = (b.input(n, TensorType((1, 8, 6, 6))) for n in ("x", "dy"))
    y = b.add(
        "conv_weight_grad", [x, dy], ConvWeightGradAttributes((3, 3), pads=(1, 1, 1, 1)), "dw"
    )
    return compile(b.finish({"dw": y}), threads=1, algo_for=pins, policy=policy)


def test_a_weight_gradient_is_in_the_plan_and_can_be_pinned():
    chosen = step({}).plan["dw"]
    assert chosen.algorithm == "blocked"
    assert re.fullmatch(r"estimated \d+\.\d\d x faster than plain", chosen.reason)
    assert [c.algorithm for c in chosen.candidates] == ["blocked", "grouped", "plain"]
    model = step({"d*": "plain"})
    assert model.plan["dw"].reason == "pinned by --algo-for d*"
    (call,) = (s for s in model.manifest.steps if s.op == "conv_weight_grad")
    assert (call.algorithm, call.reason) == ("plain", "pinned by --algo-for d*")
    with pytest.raises(UnsupportedConvError) as caught:
        step({"dw": "grouped"})
    assert str(caught.value) == (
        "weight gradient 'grouped' cannot compute 'dw': groups must be several; got 1. These can: blocked, plain."
    )
    with pytest.raises(UnknownNameError, match="unknown weight gradient 'winograd'"):
        step({"dw": "winograd"})
    without = step({}, Policy(exclude=("blocked",))).plan["dw"]
    assert without.algorithm == "plain"
    assert without.candidates[0].reason == "excluded by the policy"
