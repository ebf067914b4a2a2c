"""Compiled weight gradients against the reference: bit-exact on whole numbers, many cases in one module."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.ir import ConvSpec, GraphBuilder, TensorType
from convc.ir.ops.conv_weight_grad import ConvWeightGradAttributes
from convc.ir.reference import interpret
from convc.ir.types import numpy_dtype
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
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_weight_gradients(dtype):
    b = GraphBuilder("gradients")
    outputs = {}
    rng = np.random.default_rng(0)
    inputs = {}
    for i, spec in enumerate(SPECS):
        x, dy = (
            b.input(f"{name}{i}", TensorType(shape, dtype))
            for name, shape in (("x", spec.data), ("dy", spec.output))
        )
        for name, shape in ((x, spec.data), (dy, spec.output)):
            inputs[name] = rng.integers(-4, 5, shape).astype(numpy_dtype(dtype))
        attributes = ConvWeightGradAttributes(
            spec.kernel, spec.strides, spec.pads, spec.dilations, spec.group
        )
        outputs[f"dw{i}"] = b.add("conv_weight_grad", [x, dy], attributes)
    graph = b.finish(outputs)
    model = compile(graph, threads=1)
    actual, expected = model.run(inputs), interpret(graph, inputs)
    # Two axes at most, one group, float32: the kernel on blocks of channels.
    blocked = {step.node for step in model.manifest.steps if step.algorithm == "blocked"}
    assert len(blocked) == (5 if dtype == "float32" else 0)
    for name in outputs:
        assert_exact(actual[name], expected[name])
