"""What ends in a quantize node: bounds in a row, and functions of a byte."""

from __future__ import annotations

import numpy as np
import pytest

from convc.ir.passes.quantize_layers import quantize_layers
from convc.ir.passes.tabulate import tabulate
from convc.ir.reference import interpret
from convc.ir.text import parse

HEAD = """
  %x = input : u8[1,2,3,4]  %s = constant splat(0.5) : f32[]  %z = constant splat(100.0) : f32[]  %t0 = dequantize(%x, %s, %z)
"""


@pytest.mark.parametrize(
    "bounds",
    [
        "%b = clip(%c) {min = -5.0, max = -1.0} %d = relu(%b)",
        "%b = relu(%c) %d = clip(%b) {min = -5.0, max = -1.0}",
        "%b = clip(%c) {min = 2.0, max = 3.0} %d = clip(%b) {min = -5.0, max = 1.0}",
        "%b = clip(%c) {min = -7.0, max = 2.0} %d = clip(%b) {min = -5.0, max = 6.0}",
    ],
)
def test_the_last_bounds_hold(bounds: str) -> None:
    graph = parse(
        f"graph @g {{ {HEAD} %i = constant dense([1, -2, 3, 4]) : i8[2,2,1,1] %zero = constant splat(0.0) : f32[]"
        f" %w = dequantize(%i, %s, %zero) %c = conv(%t0, %w) {bounds} %y = quantize(%d, %s, %z) return %y }}"
    )
    layers = quantize_layers(graph)
    assert [n.op for n in layers.nodes if n.op not in ("constant", "input")] == ["conv_quantized"]
    data = {"x": np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4) * 8}
    np.testing.assert_array_equal(interpret(layers, data)["y"], interpret(graph, data)["y"])


@pytest.mark.parametrize(("length", "found"), [(8, True), (2000, False)])
def test_long_chains_are_no_tables(length: int, found: bool) -> None:
    chain = " ".join(f"%t{i + 1} = abs(%t{i})" for i in range(length))
    graph = parse(f"graph @g {{ {HEAD} {chain} %y = quantize(%t{length}, %s, %z) return %y }}")
    assert any(n.op == "lookup" for n in tabulate(graph).nodes) == found


def test_constants_of_a_function_may_be_stored_as_bytes() -> None:
    """A GELU as quantisers write it: its 1 and 0.5 are bytes, too."""
    graph = parse(
        f"graph @g {{ {HEAD} %i = constant splat(102) : u8[] %one = dequantize(%i, %s, %z) %e = erf(%t0)"
        " %a = add(%e, %one) %p = quantize(%a, %s, %z) %q = dequantize(%p, %s, %z) %m = mul(%t0, %q)"
        " %y = quantize(%m, %s, %z) return %y }"
    )
    table = tabulate(graph)
    assert [n.op for n in table.nodes if n.op not in ("constant", "input")] == ["lookup"]
    data = {"x": np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4) * 11}
    np.testing.assert_array_equal(interpret(table, data)["y"], interpret(graph, data)["y"])
