"""Products of bytes of a zero point that is measured at run time."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.ir import Graph
from convc.ir.passes.fuse_dynamic_layers import fuse_dynamic_layers
from convc.ir.reference import interpret
from convc.ir.text import parse

_CENTRED = '%c = cast(%x) {dtype = "int32"} %d = sub(%c, %z) '
_SCALED = ' %f = cast(%m) {dtype = "float32"} %y = mul(%f, %s)'


def _graph(data: str, weight: str, layer: str, scale: str, greatest: int = 127) -> Graph:
    shape = [int(n) for n in weight.split(",")]
    rng = np.random.default_rng(0)
    values = rng.integers(-128, greatest + 1, shape).ravel().tolist()
    values[:2] = -128, greatest
    return parse(
        f"graph @g {{ %x = input : u8[{data}] %z = input : i32[] %s = input : f32[{scale}]"
        f" %w = constant dense({values}) : i32[{weight}] {_CENTRED} %m = {layer} {_SCALED} return %y }}"
    )


_TAKEN = {
    "tokens": ("2,7,20", "20,24", "matmul(%d, %w)", "24"),
    "one scale": ("37,32", "32,40", "matmul(%d, %w)", "1"),
    "strides": ("1,3,9,9", "20,3,3,3", "conv(%d, %w) {strides = [2, 2]}", "1,20,1,1"),
    "depthwise": ("1,24,8,8", "24,1,3,3", "conv(%d, %w) {group = 24}", "1"),
    "lines": ("2,16,21", "8,16,5", "conv(%d, %w)", ""),
}


@pytest.mark.parametrize("mcpu", ["host", "x86-64-v3"])
@pytest.mark.parametrize("case", _TAKEN)
def test_scaled_sums_are_layers_of_bytes(case: str, mcpu: str) -> None:
    graph = _graph(*_TAKEN[case])
    fused = fuse_dynamic_layers(graph)
    ops = [n.op for n in fused.nodes]
    assert ops.count("conv_quantized") == 1
    assert not {"matmul", "conv", "cast"} & set(ops)
    rng = np.random.default_rng(1)
    data, _, scale = graph.inputs
    feeds = {
        "x": rng.integers(0, 256, data.type.shape).astype(np.uint8),
        "z": np.array(131, np.int32),
        "s": rng.uniform(1e-3, 2e-3, scale.type.shape).astype(np.float32),
    }
    wanted = interpret(graph, feeds)["y"]
    np.testing.assert_allclose(interpret(fused, feeds)["y"], wanted, rtol=1e-14)
    compiled = compile(graph, threads=1, mcpu=mcpu)
    assert [s.algorithm for s in compiled.manifest.steps if s.op == "conv_quantized"] == ["quantized"]  # fmt: skip
    # A sum below 2^24 and the scale are float32, and their product is rounded.
    np.testing.assert_allclose(compiled.run(feeds)["y"], wanted, rtol=2**-24, atol=1e-30)


@pytest.mark.parametrize("own", [True, False], ids=["its zero point", "another one"])
def test_padding_is_the_zero_point_that_the_data_are_rounded_with(own: bool) -> None:
    rng = np.random.default_rng(2)
    weight = rng.integers(-128, 128, (12, 5, 3, 3)).ravel().tolist()
    graph = parse(
        f"graph @g {{ %v = input : f32[1,5,7,9] %k = input : f32[] %z8 = input : u8[] %o8 = input : u8[]"
        f" %w = constant dense({weight}) : i32[12,5,3,3] %s = constant splat(0.001) : f32[]"
        f' %f0 = cast(%{"z8" if own else "o8"}) {{dtype = "float32"}} %z = cast(%z8) {{dtype = "int32"}} %x = quantize(%v, %k, %f0) {_CENTRED}'
        f" %m = conv(%d, %w) {{pads = [1, 0, 1, 2], strides = [2, 1]}} {_SCALED} return %y }}"
    )
    fused = fuse_dynamic_layers(graph)
    assert any(n.op == "conv_quantized" for n in fused.nodes) == own
    feeds = {
        "v": rng.normal(size=(1, 5, 7, 9)).astype(np.float32),
        "k": np.array(0.02, np.float32),
        "z8": np.array(119, np.uint8),
        "o8": np.array(7, np.uint8),
    }
    wanted = interpret(graph, feeds)["y"]
    np.testing.assert_allclose(interpret(fused, feeds)["y"], wanted, rtol=1e-14)
    np.testing.assert_allclose(compile(graph, threads=1).run(feeds)["y"], wanted, rtol=2**-24, atol=1e-30)  # fmt: skip


@pytest.mark.parametrize(
    "graph",
    [
        _graph("1,3,9,9", "20,3,3,3", "conv(%d, %w) {pads = [1, 1, 1, 1]}", "1"),
        _graph("2,7,20", "20,24", "matmul(%d, %w)", "24", greatest=128),
        _graph("2,7,20", "20,24", "matmul(%d, %w)", "7,1"),
    ],
    ids=["pads", "weights of nine bits", "scales of rows"],
)
def test_what_is_no_such_layer_stays(graph: Graph) -> None:
    assert fuse_dynamic_layers(graph) is graph
