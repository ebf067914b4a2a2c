"""A network of half precision, planned and packaged as any other, on the emulated device: blocks of channels from layer to layer."""

from __future__ import annotations

import numpy as np
import pytest

from convc.ir.ops.pool import MaxPoolAttributes
from convc.ir.reference import interpret
from convc.ir.types import numpy_dtype
from tests.cuda_emulation.emulation import compile_and_run
from tests.lowering.net import ADD, BIAS, RELU, Net


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_layers_of_half_precision_hand_each_other_blocks(dtype):
    """An image of three channels, a pool and a sum between blocked layers, and a plain result; whole numbers, so that sums are exact."""
    net = Net(dtype)
    x = net.image(2, 3, 12, 12)
    a = net.conv(x, 32, 3, 1, name="first", steps=(RELU,))
    p = net.add("max_pool", [a], MaxPoolAttributes((2, 2), (2, 2)))
    bias = net.constant(net.array(32))
    b = net.conv(p, 32, 3, 1, name="second", steps=(BIAS, ADD, RELU), extras=(bias, p))
    c = net.conv(b, 24, 1, name="third")
    graph = net.finish({"y": c})
    data = net.array(2, 3, 12, 12)
    outputs, choices = compile_and_run(
        graph, {"x": data}, target="cuda -arch=sm_90", algo="tensor_core_blocked"
    )
    assert {algorithm for algorithm, _ in choices.values()} == {"tensor_core_blocked"}
    expected = interpret(graph, {"x": data})["y"]
    error = np.abs(outputs["y"].astype(np.float64) - expected.astype(np.float64)).max()
    # Each of the three layers rounds its result once; the reference rounds once at the end.
    rounding = 2.0 ** -(11 if dtype == "float16" else 8)
    assert error <= 3 * rounding * np.abs(expected.astype(np.float64)).max()
    assert outputs["y"].dtype == numpy_dtype(dtype)
