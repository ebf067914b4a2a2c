"""Compiled unshared convolutions and their gradients against the reference: bit-exact on whole numbers, many cases in one module."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.frontend import dsl as cc
from convc.frontend.dsl.tensor import apply
from convc.ir import ConvSpec
from convc.ir.ops.conv_local import (
    LocalAttributes,
    LocalDataGradAttributes,
    LocalWeightGradAttributes,
    local_weight,
)
from convc.ir.reference import interpret
from convc.ir.types import numpy_dtype
from tests.tolerance import assert_exact

SPECS = (
    ConvSpec.of((2, 4, 9), (6, 4, 3), strides=(2,), pads=(1, 2)),
    ConvSpec.of((3, 6, 12), (4, 3, 5), dilations=(2,), pads=(3, 5), group=2),
    # Windows of 144 (whole vectors), 27 (three vectors of 8 and a rest), 50 (three of 16 and a rest), 1.
    ConvSpec.of((1, 16, 7, 6), (8, 16, 3, 3), pads=(1, 1, 1, 1)),
    ConvSpec.of((8, 3, 6, 5), (10, 3, 3, 3), pads=(0, 1, 2, 0), strides=(2, 1)),
    ConvSpec.of((5, 2, 8, 9), (3, 2, 5, 5), pads=(2, 2, 2, 2)),
    ConvSpec.of((2, 2, 4, 4), (4, 1, 1, 1), group=2),
    # Enough points for threads, by rows and one by one.
    ConvSpec.of((1, 8, 16, 12), (12, 4, 3, 3), pads=(1, 1, 1, 1), group=2),
    ConvSpec.of((16, 16, 6, 20), (6, 16, 3, 3), pads=(1, 1, 1, 1)),
    ConvSpec.of((2, 4, 4, 5, 6), (6, 2, 2, 3, 3), strides=(1, 2, 1), pads=(1, 0, 1, 1, 2, 1), group=2),
)  # fmt: skip


def network(dtype):
    outputs, inputs = {}, {}
    rng = np.random.default_rng(0)
    for i, spec in enumerate(SPECS):
        geometry = (spec.strides, spec.pads, spec.dilations, spec.group)
        shapes = {"x": spec.data, "w": local_weight(spec), "g": spec.output}
        x, w, g = (cc.input(f"{name}{i}", shape, dtype) for name, shape in shapes.items())
        for name, shape in shapes.items():
            # Sums below 256 in magnitude are exact in every float type.
            values = rng.integers(-1, 2, shape) * (rng.random(shape) < 0.6)
            inputs[f"{name}{i}"] = values.astype(numpy_dtype(dtype))
        outputs[f"y{i}"] = apply("conv_local", [x, w], LocalAttributes(*geometry))
        outputs[f"dx{i}"] = apply(
            "conv_local_data_grad", [g, w], LocalDataGradAttributes(spec.data[2:], *geometry)
        )
        outputs[f"dw{i}"] = apply(
            "conv_local_weight_grad", [x, g], LocalWeightGradAttributes(spec.kernel, *geometry)
        )
    return cc.graph(outputs), inputs


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_compiled_unshared_convolutions(dtype):
    graph, inputs = network(dtype)
    results = compile(graph, threads=2).load(threads=2).run(inputs)
    for name, expected in interpret(graph, inputs).items():
        assert np.abs(expected).max() <= 256
        assert_exact(results[name], expected)


def test_infinities_stay_at_their_own_point():
    """A vector of products reads no filter but its own point's: what lies behind them is another's."""
    spec = ConvSpec.of((1, 3, 4, 4), (2, 3, 3, 3))
    x, w = cc.input("x", spec.data), cc.input("w", local_weight(spec))
    graph = cc.graph({"y": apply("conv_local", [x, w], LocalAttributes())})
    filters = np.ones(local_weight(spec), np.float32)
    filters[0, 0, 1] = np.inf
    y = compile(graph, threads=1).run({"x": np.zeros(spec.data, np.float32), "w": filters})["y"]
    assert np.isnan(y[0, 0, 0, 1])
    assert np.count_nonzero(y) == 1
