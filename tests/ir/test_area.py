"""An open height and width: the graph of the largest area is, for every smaller size, the graph of that size."""

from __future__ import annotations

import numpy as np
import pytest

from convc.errors import ShapeError
from convc.ir.area import open_area
from convc.ir.area_graph import AreaGraph
from convc.ir.graph import Graph
from convc.ir.reference import interpret
from convc.ir.text import parse

LARGEST = (13, 11)
SIZES = [(13, 11), (12, 11), (7, 9), (6, 6), (9, 5)]

BODIES = {
    "padded": "%y = conv(%b, %w) {pads = [1, 1, 1, 1]}",
    "strided": "%y = conv(%b, %w) {pads = [0, 1, 2, 1], strides = [2, 3]}",
    "dilated": "%y = conv(%b, %w) {pads = [2, 2, 2, 2], dilations = [2, 2]}",
    "without padding": "%y = conv(%b, %w)",
    "1x1, then padded": "%a = conv(%b, %v) %y = conv(%a, %w) {pads = [1, 1, 1, 1]}",
    "transposed": "%y = conv_transpose(%b, %w) {strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 0]}",
    "max pool": "%n = neg(%b) %y = max_pool(%n) {kernel = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]}",
    "max pool, ceil": "%n = neg(%b) %y = max_pool(%n) {kernel = [3, 3], strides = [2, 2], ceil_mode = true}",
    "mean of data": "%y = average_pool(%b) {kernel = [3, 3], strides = [1, 2], pads = [1, 1, 1, 1]}",
    "mean of data, ceil": "%y = average_pool(%b) {kernel = [3, 3], strides = [2, 2], ceil_mode = true}",
    "mean with padding": "%y = average_pool(%b) {kernel = [3, 3], pads = [1, 1, 1, 1], count_include_pad = true}",
    "global mean": "%y = reduce_mean(%b) {axes = [2, 3]}",
    "global mean of channels, too": "%y = reduce_mean(%b) {axes = [1, 2, 3], keepdims = false}",
    "global maximum": "%n = neg(%b) %y = reduce_max(%n) {axes = [2, 3], keepdims = false}",
    "global minimum": "%y = reduce_min(%b) {axes = [2, 3]}",
    "global sum": "%y = reduce_sum(%b) {axes = [2, 3]}",
    "channels": "%m = reduce_mean(%b) {axes = [1]} %d = sub(%b, %m) %s = softmax(%d) {axis = 1} %y = conv(%s, %w) {pads = [1, 1, 1, 1]}",
    "gate": "%m = reduce_mean(%b) {axes = [2, 3]} %s = sigmoid(%m) %g = mul(%b, %s) %y = conv(%g, %w) {pads = [1, 1, 1, 1]}",
    "up and joined": "%p = max_pool(%b) {kernel = [1, 1]} %u = resize(%p) {factors = [1, 1, 2, 2]} %c = concat(%u, %u) {axis = 1}"
    " %y = lrn(%c) {size = 3}",
    "padding with a value": "%q = pad(%b) {pads = [0, 0, 1, 1, 0, 0, 2, 1], value = 0.5} %y = conv(%q, %w)",
    "some channels": "%q = slice(%b) {begins = [0, 1, 0, 0], ends = [1, 4, 13, 11], steps = [1, 1, 1, 1]} %y = max_pool(%q) {kernel = [2, 2], pads = [0, 0, 1, 1]}",
    "a table of bytes": f"%t = constant dense({[255 - i for i in range(256)]}) : u8[256] %q = quantize(%b, %o, %o) %l = lookup(%q, %t)"
    " %d = dequantize(%l, %o, %o) %y = conv(%d, %w) {pads = [1, 1, 1, 1]}",
    "layers of bytes": "$quantised %l = conv_quantized(%q, %k, %i, %f) {pads = [1, 1, 1, 1], pad = 7, zero = 3, least = 3}"
    " %m = conv_quantized(%l, %k, %i, %f, %q) {pads = [1, 1, 1, 1], pad = 3, zero = 9, added = [0.5, 0.25, 1.5], own_least = -90, own_greatest = 90}"
    " %p = max_pool(%m) {kernel = [2, 2], strides = [2, 2], ceil_mode = true} %y = dequantize(%p, %s, %z)",
    "layers of bytes, transposed": "$quantised %l = conv_quantized(%q, %k, %i, %f) {transposed = true, strides = [2, 2], pads = [1, 1, 1, 1],"
    " output_padding = [1, 1], pad = 7, zero = 3} %y = conv_quantized(%l, %k, %i, %f) {strides = [2, 3], dilations = [2, 1], pads = [1, 1, 1, 1],"
    " pad = 3, dtype = \"float32\"}",
    "logarithms of nothing": "%k = log(%x) %l = relu(%k) %y = conv(%l, %w) {pads = [1, 1, 1, 1]}",
}  # fmt: skip


# Data and weights as bytes, biases and factors.
QUANTISED = (
    '%s = constant splat(0.02) : f32[] %z = constant splat(7.0) : f32[] %q = quantize(%b, %s, %z) %k = quantize(%w, %s, %z) {dtype = "int8"}'
    " %i = constant dense([-300, 0, 400, 900]) : i32[4] %f = constant splat(0.004) : f32[4]"
)


def graph_of(body: str, size: tuple[int, int]) -> Graph:
    h, w = size
    body = body.replace("$quantised", QUANTISED)
    body = body.replace("13, 11", f"{h}, {w}")
    head = f"%x = input : f32[1,4,{h},{w}] %w = input : f32[4,4,3,3] %v = input : f32[4,4,1,1] %o = constant splat(1.5) : f32[] %b = add(%x, %o)"
    return parse(f"graph @g {{ {head} {body} return %y }}")


def run(opened: AreaGraph, x: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """What a runtime does: zeros around the data, masks, the result cut."""
    size = x.shape[2:]
    whole = np.zeros((1, 4, *LARGEST))
    whole[:, :, : size[0], : size[1]] = x
    fed = {"x": whole, **weights}
    for name, extents in opened.masks.items():
        rows, cols = extents.at(*size)
        fed[name] = np.zeros(opened.graph[name].type.shape, bool)
        fed[name][:, :, :rows, :cols] = True
    for names, taps in opened.taps.items():
        for name, values in zip(names, taps.at(size[taps.axis - 2]), strict=True):
            fed[name] = np.zeros(opened.graph[name].type.shape, values.dtype)
            fed[name][: values.shape[0], : values.shape[1]] = values
    with np.errstate(all="ignore"):  # beyond what is valid anything may be computed
        y = interpret(opened.graph, fed)["y"]
    if opened.graph.outputs[0].value in opened.values:
        rows, cols = opened.values["y"].at(*size)
        y = y[:, :, :rows, :cols]
    return y


@pytest.mark.parametrize("name", BODIES)
def test_every_size_is_its_own_graph(name: str) -> None:
    opened = open_area(graph_of(BODIES[name], LARGEST), ["x"])
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, 4, 3, 3)), "v": rng.normal(size=(4, 4, 1, 1))}
    for size in SIZES:
        x = rng.uniform(0.5, 2.0, (1, 4, *size))
        expected = interpret(graph_of(BODIES[name], size), {"x": x, **weights})["y"]
        np.testing.assert_allclose(run(opened, x, weights), expected, rtol=1e-9, atol=1e-12, err_msg=str(size))  # fmt: skip


def test_the_least_size_is_what_every_window_fits() -> None:
    assert open_area(graph_of("%y = conv(%b, %w)", LARGEST), ["x"]).least == (3, 3)
    body = "%a = conv(%b, %w) {strides = [2, 1]} %y = conv(%a, %w)"
    assert open_area(graph_of(body, LARGEST), ["x"]).least == (7, 5)


REFUSED = {
    "%y = reshape(%b) {shape = [1, 4, 143]}": "%y must compute each place .* reshape does not",
    "%y = transpose(%b) {perm = [0, 2, 3, 1]}": "transpose does not",
    "%y = softmax(%b) {axis = 3}": "softmax does not: it works along height or width",
    "%y = reduce_mean(%b) {axes = [3]}": "along height or width alone",
    "%k = constant splat(1.0) : f32[1,4,13,11] %y = add(%b, %k)": "%k holds a value for each place of the largest area",
    "%q = conv(%b, %w) {strides = [2, 2], pads = [1, 1, 1, 1]} %u = resize(%q) {factors = [1, 1, 2, 2]}"
    " %c = slice(%u) {begins = [0, 0, 0, 0], ends = [1, 4, 13, 11], steps = [1, 1, 1, 1]} %y = add(%b, %c)": "slice does not: it cuts out",
}  # fmt: skip


@pytest.mark.parametrize("body", REFUSED)
def test_what_needs_a_size_is_refused_by_name(body: str) -> None:
    with pytest.raises(ShapeError, match=REFUSED[body]):
        open_area(graph_of(body, LARGEST), ["x"])


def test_sizes_that_agree_for_the_largest_area_alone() -> None:
    # 12 -> 6 rows on both ways, and 11 -> 6 on one, 5 on the other.
    body = "%p = conv(%b, %w) {strides = [2, 2], pads = [1, 1, 1, 1]} %q = conv(%b, %w) {strides = [2, 2], pads = [0, 0, 1, 1]} %y = add(%p, %q)"
    text = f"graph @g {{ %x = input : f32[1,4,12,12] %w = input : f32[4,4,3,3] %b = relu(%x) {body} return %y }}"
    with pytest.raises(ShapeError, match=r"%y .* other heights or widths for other sizes"):
        open_area(parse(text), ["x"])
