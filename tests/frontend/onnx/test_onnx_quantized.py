"""Quantised models run in integers: within one step of ONNX Runtime, in every form and for both signs of activations."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convc.compiler import compile
from convc.frontend.onnx import from_onnx
from convc.ir import Graph
from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.ir.passes import run_passes
from convc.ir.passes.quantize_layers import quantize_layers
from convc.ir.reference import interpret
from convc.ir.types import Shape
from convc.source import load_graph

ort = pytest.importorskip("onnxruntime")


class _Net:
    """A model in QDQ form, written layer by layer."""

    def __init__(self, dtype: str) -> None:
        self.dtype, self.rng = np.dtype(dtype), np.random.default_rng(5)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def pair(self, x: str, scale: float, zero: int) -> str:
        """Return x quantised and dequantised; `zero` counts from the type's least value."""
        zero += np.iinfo(self.dtype).min
        constants = [self.constant(np.array(scale, np.float32)), self.constant(np.array(zero, self.dtype))]  # fmt: skip
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, *constants), *constants)

    def weights(self, *shape: int, axis: int = 0, group: int = 1) -> list[str]:
        """Return weights of one scale an entry of `axis`, and a bias of as many values a group."""
        w = self.rng.integers(-127, 128, shape).astype(np.int8)
        scale = self.rng.uniform(0.001, 0.004, shape[axis]).astype(np.float32)
        operands = [self.constant(w), self.constant(scale), self.constant(np.zeros(shape[axis], np.int8))]  # fmt: skip
        bias = self.rng.integers(-800, 800, group * shape[axis]).astype(np.int32)
        scaled = self.constant(np.tile(scale * 0.02, group).astype(np.float32))
        return [
            self.node("DequantizeLinear", *operands, axis=axis),
            self.node("DequantizeLinear", self.constant(bias), scaled, axis=0),
        ]

    def layer(self, op: str, x: str, *shape: int, **attributes: Any) -> str:
        return self.node(op, x, *self.weights(*shape), **attributes)

    def transposed(self, x: str, *shape: int, group: int = 1, **attributes: Any) -> str:
        weights = self.weights(*shape, axis=1, group=group)
        return self.node("ConvTranspose", x, *weights, group=group, **attributes)

    def model(self, y: str, shape: tuple[int, ...]) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        out = helper.make_tensor_value_info(y, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "net", [x], [out], self.tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _residual_net(dtype: str) -> onnx.ModelProto:
    n = _Net(dtype)
    x = n.pair("x", 0.02, 114)
    # Padded where 0 is not stored as 0; then a ReLU in the rounding, a pool of integers, a residual, a mean, a dense layer.
    a = n.pair(n.node("Relu", n.layer("Conv", x, 20, 3, 3, 3, pads=[1, 1, 1, 1])), 0.02, 0)
    a = n.pair(n.node("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2]), 0.02, 0)
    b = n.pair(n.layer("Conv", a, 20, 20, 3, 3, pads=[1, 1, 1, 1]), 0.05, 120)
    c = n.pair(n.node("Relu", n.node("Add", a, b)), 0.04, 0)
    d = n.pair(n.node("Clip", n.layer("Conv", c, 20, 1, 3, 3, pads=[1, 1, 1, 1], group=20), n.constant(np.zeros((), np.float32)), n.constant(np.full((), 2, np.float32))), 0.01, 0)  # fmt: skip
    e = n.pair(n.node("Flatten", n.pair(n.node("GlobalAveragePool", d), 0.01, 0)), 0.01, 0)
    y = n.pair(n.layer("Gemm", e, 10, 20, transB=1), 0.02, 128)
    return n.model(y, (2, 3, 10, 10))


def _three(model: onnx.ModelProto, graph: Graph, shape: Shape) -> tuple[np.ndarray, ...]:
    """Return a network's result by convc, by the reference, by ONNX Runtime."""
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"x": x})
    (got,) = compile(graph, threads=1).run({"x": x}).values()
    (exact,) = interpret(graph, {"x": x}).values()
    return got, exact, wanted


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_within_a_step_of_onnxruntime(dtype: str) -> None:
    model = _residual_net(dtype)
    graph = load_graph(model)
    ops = Counter(node.op for node in graph.nodes)
    assert ops["conv_quantized"] == 4
    assert ops["conv"] == ops["dense"] == ops["add"] == ops["pad"] == 0
    assert sum(bool(getattr(node.attributes, "added", ())) for node in graph.nodes) == 1
    got, exact, wanted = _three(model, graph, (2, 3, 10, 10))
    assert len(np.unique(wanted)) > 8
    assert np.abs(got - wanted).max() <= 0.02 * 1.001
    assert np.abs(got - exact).max() <= 0.02 * 1.001
    assert np.mean(got == exact.astype(np.float32)) > 0.9


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("group", [1, 20])
def test_filters_that_exceed_the_data_pad_by_themselves(group: int, dtype: str) -> None:
    """What they read beside the data is the zero point; taps that read nothing else are in the bias."""
    n = _Net(dtype)
    weights = n.weights(20, 20 // group, 3, 3)
    ends = {"dilations": [6, 4], "pads": [6, 4, 6, 4]}
    y = n.node("Conv", n.pair("x", 0.02, 114), *weights, group=group, **ends)
    model = n.model(y, (2, 20, 5, 7))
    graph = load_graph(model)
    ops = Counter(node.op for node in graph.nodes)
    assert (ops["conv_quantized"], ops["pad"]) == (1, 0)
    (layer,) = (node for node in run_passes(graph).nodes if node.op == "conv_quantized")
    assert isinstance(layer.attributes, QuantizedConvAttributes)
    assert layer.attributes.pads == (0, 4, 0, 4)
    got, exact, wanted = _three(model, graph, (2, 20, 5, 7))
    np.testing.assert_allclose(got, exact, rtol=3 * 2**-24, atol=0)
    # ONNX Runtime adds floats up.
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def _decoder(dtype: str) -> onnx.ModelProto:
    n = _Net(dtype)
    x = n.pair("x", 0.02, 114)
    up = {"strides": [2, 2]}
    a = n.pair(n.node("Relu", n.transposed(x, 3, 16, 2, 2, **up)), 0.02, 0)
    b = n.pair(n.transposed(a, 16, 12, 4, 4, pads=[1, 1, 1, 1], **up), 0.05, 120)
    c = n.pair(n.transposed(a, 16, 6, 3, 3, pads=[1, 1, 1, 1], output_padding=[1, 1], group=2, **up), 0.05, 110)  # fmt: skip
    d = n.pair(n.node("Relu", n.node("Add", b, c)), 0.04, 0)
    # One scale for all weights; a result that stays a float.
    w = n.rng.integers(0, 256, (12, 4, 2, 2)).astype(np.uint8)
    one = [n.constant(w), n.constant(np.array(0.003, np.float32)), n.constant(np.array(128, np.uint8))]  # fmt: skip
    y = n.node("ConvTranspose", d, n.node("DequantizeLinear", *one), **up)
    return n.model(y, (2, 3, 5, 6))


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_transposed_convolutions(dtype: str) -> None:
    model = _decoder(dtype)
    graph = load_graph(model)
    ops = Counter(node.op for node in graph.nodes)
    assert ops["conv_quantized"] == 4
    assert ops["conv_transpose"] == ops["add"] == ops["relu"] == 0
    got, exact, wanted = _three(model, graph, (2, 3, 5, 6))
    # Bytes are equal; the last sums are exact, and rounded to float32.
    np.testing.assert_allclose(got, exact, rtol=3 * 2**-24, atol=0)
    # ONNX Runtime adds floats up: what lies beside the middle of two steps may fall to the other one.
    assert np.abs(got - wanted).max() <= 0.01 * np.abs(wanted).max()
    assert np.mean(np.abs(got - wanted) < 1e-4) > 0.98


def test_scales_along_the_input_channels_stay_floats() -> None:
    n = _Net("uint8")
    weights = n.weights(8, 8, 2, 2, axis=0)
    y = n.node("ConvTranspose", n.pair("x", 0.02, 114), weights[0], strides=[2, 2])
    ops = Counter(node.op for node in load_graph(n.model(y, (1, 8, 4, 4))).nodes)
    assert ops["conv_transpose"] == 1
    assert ops["conv_quantized"] == 0


def test_dequantize_computes_floats() -> None:
    model = _residual_net("uint8")
    floats = load_graph(model, dequantize=True)
    assert not any(node.op == "conv_quantized" for node in floats.nodes)
    x = np.random.default_rng(2).normal(size=(2, 3, 10, 10)).astype(np.float32)
    (a,) = interpret(floats, {"x": x}).values()
    (b,) = interpret(load_graph(model), {"x": x}).values()
    assert np.abs(a - b).max() <= 0.02 * 1.001


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_products_of_several_matrices_with_one(dtype: str) -> None:
    """Tokens, whose scales are one a column, and none; the second result stays a float."""
    n = _Net(dtype)
    x = n.pair("x", 0.02, 114)
    w, _ = n.weights(20, 24, axis=1)
    y = n.pair(n.node("Relu", n.node("MatMul", x, w)), 0.01, 0)
    one = [n.constant(n.rng.integers(-127, 128, (24, 9)).astype(np.int8)), n.constant(np.array(0.003, np.float32)), n.constant(np.array(0, np.int8))]  # fmt: skip
    model = n.model(n.node("MatMul", y, n.node("DequantizeLinear", *one)), (2, 7, 20))
    graph = load_graph(model)
    ops = Counter(node.op for node in graph.nodes)
    assert (ops["conv_quantized"], ops["matmul"]) == (2, 0)
    got, exact, wanted = _three(model, graph, (2, 7, 20))
    assert got.shape == wanted.shape == (2, 7, 9)
    np.testing.assert_allclose(got, exact, rtol=1e-6)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=0.01 * 0.003 * 127)


def test_qlinear_matmul_of_several_matrices() -> None:
    text = """<ir_version: 8, opset_import: ["": 13]> g (uint8[2,5,8] x) => (uint8[2,5,6] y)
    <float xs = {0.02}, uint8 xz = {120}, float[6] ws = {0.01,0.02,0.01,0.03,0.01,0.02}, int8[6] wz = {0,0,0,0,0,0}, float ys = {0.05}, uint8 yz = {100}>
    { y = QLinearMatMul (x, xs, xz, w, ws, wz, ys, yz) }"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(3)
    w = rng.integers(-127, 128, (8, 6)).astype(np.int8)
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    graph = load_graph(model)
    assert "conv_quantized" in [n.op for n in graph.compute_nodes]
    x = rng.integers(0, 256, (2, 5, 8)).astype(np.uint8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"x": x})
    assert np.abs(compile(graph, threads=1).run({"x": x})["y"].astype(int) - wanted).max() <= 1


def test_qlinear_conv_is_the_same_layer() -> None:
    text = """<ir_version: 8, opset_import: ["": 13]> g (uint8[1,4,5,5] x) => (uint8[1,6,5,5] y)
    <float xs = {0.02}, uint8 xz = {120}, float[6] ws = {0.01,0.02,0.01,0.03,0.01,0.02}, int8 wz = {0}, float ys = {0.1}, uint8 yz = {100}>
    { y = QLinearConv <pads = [1,1,1,1]> (x, xs, xz, w, ws, wz, ys, yz, b) }"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(3)
    w = rng.integers(-127, 128, (6, 4, 3, 3)).astype(np.int8)
    b = rng.integers(-500, 500, 6).astype(np.int32)
    model.graph.initializer.extend(
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")]
    )
    graph = load_graph(model)
    assert [n.op for n in graph.compute_nodes] == ["conv_quantized"]
    x = rng.integers(0, 256, (1, 4, 5, 5)).astype(np.uint8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"x": x})
    assert np.abs(compile(graph, threads=1).run({"x": x})["y"].astype(int) - wanted).max() <= 1


def test_what_is_read_elsewhere_stays_a_float() -> None:
    n = _Net("uint8")
    x = n.pair("x", 0.02, 114)
    c = n.layer("Conv", x, 8, 3, 1, 1)
    y = n.node("Add", n.pair(n.node("Relu", c), 0.02, 0), c)
    graph = quantize_layers(from_onnx(n.model(y, (1, 3, 4, 4))))
    (layer,) = (node for node in graph.nodes if node.op == "conv_quantized")
    assert layer.type.dtype == "float32"
    assert sum(node.op == "quantize" for node in graph.nodes) == 2


def notes(text: str, mcpu: str = "x86-64-v3", target: str = "llvm", **options: Any) -> str:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 13]> {text}')
    return " ".join(compile(model, target=target, mcpu=mcpu, threads=1, **options).planned.notes)


LAYER = """<float xs = {0.5}, ZERO xz = {0}, int8[4,4,1,1] w = {1,2,3,4,1,2,3,4,1,2,3,4,1,2,3,4}, float ws = {0.25}, int8 wz = {0}, float ys = {0.5}, ZERO yz = {0}>
{ y = QLinearConv (x, xs, xz, w, ws, wz, ys, yz) }"""


def test_where_quantised_layers_are_slow_it_is_said() -> None:
    text = f"g (uint8[1,4,3,3] x) => (uint8[1,4,3,3] y) {LAYER.replace('ZERO', 'uint8')}"
    assert (
        "1 quantised layer ('y/conv') run one product at a time: x86-64-v3 has no instruction"
        in notes(text)
    )
    assert notes(text, "host", "cuda -arch=90") == ""
    old = notes(text, "host", "cuda -arch=75")
    assert "run in plain integer loops (group must equal C and K; got group = 1" in old
    assert "; sm must be at least 80 for tensor cores; got 75)" in old
    assert notes(text, dequantize=True) == ""
    assert notes(text, "sapphirerapids") == ""
    # Of several CPUs one may lack it; and a layer with one filter is no depthwise one.
    assert "x86-64-v3 has no instruction" in notes(text, "sapphirerapids,x86-64-v3")
    one = text.replace(
        "int8[4,4,1,1] w = {1,2,3,4,1,2,3,4,1,2,3,4,1,2,3,4}", "int8[1,4,1,1] w = {1,2,3,4}"
    )
    assert "1 quantised layer ('y/conv') run one product at a time" in notes(one.replace("1,4,3,3] y", "1,1,3,3] y"))  # fmt: skip


def test_where_quantised_layers_run_in_floats_it_is_said() -> None:
    text = f"g (int8[1,4,3,3] x) => (int8[1,4,3,3] y) {LAYER.replace('ZERO', 'int8')}"
    said = notes(text, "sapphirerapids")
    assert "run in float32: the data of" in said
    assert "are int8, and not quantised by the model itself" in said


def _silu_net() -> onnx.ModelProto:
    n = _Net("uint8")

    def silu(x: str, zero: int) -> str:
        x = n.pair(x, 0.05, 128)
        return n.pair(n.node("Mul", x, n.pair(n.node("Sigmoid", x), 1 / 255, 0)), 0.03, zero)

    x = n.pair("x", 0.02, 114)
    a = silu(n.layer("Conv", x, 16, 3, 3, 3, pads=[1, 1, 1, 1]), 10)
    b = silu(n.layer("Conv", a, 20, 16, 1, 1), 9)
    c = n.pair(n.node("Concat", a, b, axis=1), 0.04, 8)
    d = silu(n.layer("Conv", c, 12, 36, 3, 3, pads=[1, 1, 1, 1]), 12)
    up = n.constant(np.array([1, 1, 2, 2], np.float32))
    d = n.pair(n.node("Resize", d, "", up, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"), 0.03, 12)  # fmt: skip
    return n.model(n.pair(n.layer("Conv", d, 8, 12, 1, 1), 0.02, 128), (1, 3, 8, 8))


def test_functions_of_a_byte_are_tables() -> None:
    """SiLU between roundings, and other scales behind a concatenation."""
    model = _silu_net()
    graph = load_graph(model)
    ops = Counter(node.op for node in graph.nodes)
    # Of a, of d, and both parts of the concatenation, straight from the layers.
    assert ops["lookup"] == 4
    assert ops["sigmoid"] == ops["mul"] == 0
    assert ops["quantize"] == ops["dequantize"] == 1
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    (wanted,) = session.run(None, {"x": x})
    (got,) = compile(graph, threads=1).run({"x": x}).values()
    assert len(np.unique(wanted)) > 50
    assert np.abs(got - wanted).max() <= 0.02 * 1.001
    (exact,) = interpret(graph, {"x": x}).values()
    assert np.mean(got == exact.astype(np.float32)) > 0.99


@pytest.mark.parametrize(("dtype", "zero"), [("uint8", 100), ("int8", -20)])
def test_what_is_no_number_is_the_least_byte(dtype: str, zero: int) -> None:
    """Vectors and what is left of them, of both signs of NaN; infinities are the ends."""
    text = f"""<ir_version: 8, opset_import: ["": 19]> g (float[37] x) => ({dtype}[37] y)
    <float s = {{0.5}}, {dtype} z = {{{zero}}}> {{ y = QuantizeLinear(x, s, z) }}"""
    model = onnx.parser.parse_model(text)
    x = np.random.default_rng(7).normal(size=37).astype(np.float32)
    x[[0, 5, 36]], x[[1, 20, 35]] = np.nan, -np.float32(np.nan)
    x[[2, 21]], x[[3, 22]] = np.inf, -np.inf
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"x": x})
    graph = load_graph(model)
    np.testing.assert_array_equal(compile(graph, threads=1).run({"x": x})["y"], wanted)
    np.testing.assert_array_equal(interpret(graph, {"x": x})["y"], wanted)
    assert wanted[[0, 1]].tolist() == [np.iinfo(dtype).min] * 2


def test_bytes_of_either_sign_are_moved_and_joined() -> None:
    """In QOperator format pools, slices and shuffles of channels stand between layers as they are: int8 becomes uint8 through them."""
    text = """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> g (float[1,3,9,9] x) => (float[1,16,5,5] y)
    <float s = {0.05}, int8 z = {-9}, float ws = {0.01}, int8 wz = {0}, int64[5] a = {1,2,8,5,5}, int64[4] b = {1,16,5,5}>
    { q = QuantizeLinear(x, s, z)  c = QLinearConv<pads=[1,1,1,1]>(q, s, z, u, ws, wz, s, z)
      p = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(c)  d = QLinearConv(p, s, z, v, ws, wz, s, z)
      j = com.microsoft.QLinearConcat<axis=1>(s, z, p, s, z, d, s, z)  k = Reshape(j, a)  l = Transpose<perm=[0,2,1,3,4]>(k)
      m = Reshape(l, b)  n = QLinearConv(m, s, z, w, ws, wz, s, z)  y = DequantizeLinear(n, s, z) }"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(8)
    for name, shape in (("u", (8, 3, 3, 3)), ("v", (8, 8, 1, 1)), ("w", (16, 16, 1, 1))):
        values = rng.integers(-127, 128, shape).astype(np.int8)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    graph = load_graph(model)
    ops = Counter(node.op for node in graph.nodes)
    assert ops["conv_quantized"] == 3
    assert ops["conv"] == 0
    assert ops["quantize"] == ops["dequantize"] == 1
    x = rng.normal(size=(1, 3, 9, 9)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"x": x})
    (got,) = compile(graph, threads=1).run({"x": x}).values()
    assert len(np.unique(wanted)) > 50
    assert np.abs(got - wanted).max() <= 0.05 * 1.001
