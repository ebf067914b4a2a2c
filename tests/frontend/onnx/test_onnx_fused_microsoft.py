"""What ONNX Runtime's optimiser writes for several of ONNX's operators: within rounding of what it computes itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from convc.errors import InvalidModelError, ShapeError, UnsupportedModelError
from convc.frontend.onnx import from_onnx
from convc.ir.reference import interpret

ort = pytest.importorskip("onnxruntime")

# What is in brackets behind an operand's name is its shape.
CASES = {
    "conv": "FusedConv<pads=[1,1,1,1]>(x[2,4,7,6], w[6,4,3,3])",
    "conv, bias, relu": 'FusedConv<activation="Relu", pads=[1,1,1,1]>(x[2,4,7,6], w[6,4,3,3], b[6])',
    "conv, no bias, sum": 'FusedConv<activation="Relu", pads=[1,1,1,1]>(x[2,4,7,6], w[6,4,3,3], , z[2,6,7,6])',
    "conv, bias, sum": "FusedConv<group=2, strides=[2,1]>(x[1,4,7,6], w[6,2,3,3], b[6], z[1,6,3,4])",
    "conv, leaky": 'FusedConv<activation="LeakyRelu", activation_params=[0.3]>(x[1,4,7,6], w[6,4,1,1], b[6])',
    "conv, clip": 'FusedConv<activation="Clip", activation_params=[-0.25, 0.5]>(x[1,4,7,6], w[6,4,1,1], b[6])',
    "conv, hard sigmoid": 'FusedConv<activation="HardSigmoid", activation_params=[0.3, 0.4]>(x[1,4,9], w[6,4,2], b[6])',
    "conv, tanh": 'FusedConv<activation="Tanh", auto_pad="SAME_UPPER">(x[1,4,9], w[6,4,2], b[6])',
    "conv, sigmoid": 'FusedConv<activation="Sigmoid">(x[1,4,3,4,5], w[6,4,2,2,2])',
    "gemm, sigmoid": 'FusedGemm<activation="Sigmoid", alpha=0.5>(x[5,4], w[4,3], b[3])',
    "gemm, leaky": 'FusedGemm<activation="LeakyRelu", activation_alpha=0.2, transB=1>(x[5,4], w[3,4], b[3])',
    "gemm, relu": 'FusedGemm<activation="Relu", beta=2.0, transA=1>(x[4,5], w[4,3], b[5,3])',
    "gemm, elu": 'FusedGemm<activation="Elu", activation_alpha=0.5>(x[4,5], w[5,3], b[1,3])',
    "matmul": "FusedMatMul<alpha=0.25>(x[5,4], w[4,3])",
    "matmul of the data": "FusedMatMul<alpha=0.25, transA=1, transB=1>(x[2,3,4,5], y[2,3,6,4])",
    "matmul, broadcast": "FusedMatMul<alpha=3.0, transB=1>(x[2,3,5,4], y[6,4])",
    "matmul, transposed": "TransposeMatMul<transA=1>(x[2,4,5], y[2,4,3])",
    "matmul of a weight": "FusedMatMul<transA=1, transB=1>(x[4,5], w[3,4])",
    "gelu": "Gelu(x[3,5])",
    "bias gelu": "BiasGelu(x[2,3,5], b[5])",
    "fast gelu": "FastGelu(x[2,3,5])",
    "fast gelu, bias": "FastGelu(x[2,3,5], b[5])",
    "quick gelu": "QuickGelu(x[2,3,5])",
    "quick gelu, alpha": "QuickGelu<alpha=1.0>(x[2,3,5])",
    "skip": "SkipLayerNormalization<epsilon=0.001>(x[2,3,8], y[2,3,8], g[8], b[8])",
    "skip, broadcast": "SkipLayerNormalization(x[2,3,8], y[1,3,8], g[8], b[8], v[8])",
    "skip, no bias": "SkipLayerNormalization(x[2,3,8], y[2,3,8], g[8])",
    "skip, simplified": "SkipSimplifiedLayerNormalization<epsilon=0.01>(x[2,3,8], y[2,3,8], g[8], v[8])",
    "heads": "MultiHeadAttention<num_heads=2>(x[2,5,8], y[2,6,8], v[2,6,12])",
    "heads, bias": "MultiHeadAttention<num_heads=2, scale=0.3>(x[2,5,8], y[2,6,8], v[2,6,12], b[28])",
    "heads, added": "MultiHeadAttention<num_heads=2>(x[2,5,8], y[2,6,8], v[2,6,8], , , a[1,2,5,6])",
    "heads apart": "MultiHeadAttention<num_heads=2>(x[2,5,8], y[2,2,6,4], v[2,2,6,4])",
    "heads, later": "MultiHeadAttention<num_heads=2, unidirectional=1>(x[2,6,8], y[2,6,8], v[2,6,8])",
    "attention": "Attention<num_heads=2>(x[2,5,6], w[6,24], b[24])",
    "attention, sizes": "Attention<num_heads=2, qkv_hidden_sizes=[8,8,12]>(x[2,5,6], w[6,28], b[28])",
    "attention, later": "Attention<num_heads=2, unidirectional=1, scale=0.7>(x[2,5,6], w[6,24], b[24])",
    "attention, masked": "Attention<num_heads=2>(x[2,5,6], w[6,24], b[24], mask[2,5])",
    "heads, masked": "MultiHeadAttention<num_heads=2>(x[2,5,8], y[2,6,8], v[2,6,8], , mask[2,6])",
}
CONSTANT = ("w", "b", "g", "mask")


def model_of(text: str, outputs: tuple[str, ...] = ("r",)) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:  # fmt: skip
    """Return a model of one operator, weights in it, and its inputs' data."""
    rng = np.random.default_rng(len(text))
    shapes = {name: tuple(map(int, dims.split(","))) for name, dims in re.findall(r"(\w+)\[([\d,]+)\](?=[,)])", text)}  # fmt: skip
    call = re.sub(r"(\w+)\[[\d,]+\](?=[,)])", r"\1", text)
    values: dict[str, np.ndarray] = {
        n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()
    }
    if "mask" in values:
        values["mask"] = (rng.random(shapes["mask"]) < 0.7).astype(np.int32)
    inputs = [n for n in shapes if n not in CONSTANT]
    declared = ", ".join(f"float[{','.join(map(str, shapes[n]))}] {n}" for n in inputs)
    head = '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1, "com.microsoft.nchwc": 1]>'
    model = onnx.parser.parse_model(f"{head} g ({declared}) => ({', '.join(f'float {o}' for o in outputs if o)}) {{ {', '.join(outputs)} = com.microsoft.{call} }}")  # fmt: skip
    for name in shapes:
        if name in CONSTANT:
            model.graph.initializer.append(onnx.numpy_helper.from_array(values[name], name))
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return model, {n: values[n] for n in inputs}


def theirs(model: onnx.ModelProto, data: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(data))


@pytest.mark.parametrize("text", CASES.values(), ids=CASES)
def test_results(text: str) -> None:
    model, data = model_of(text)
    (expected,), (actual,) = theirs(model, data), interpret(from_onnx(model), data).values()
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
def test_the_sum_that_is_normalised(name: str) -> None:
    model, data = model_of(f"{name}(x[2,3,8], y[2,3,8], g[8])", ("r", "", "", "total"))
    expected, actual = theirs(model, data), interpret(from_onnx(model), data)
    for a, e in zip((actual["r"], actual["total"]), expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("FusedMatMul<transBatchA=1>(x[2,3,4], y[3,4,5])", r"attribute transBatchA=1 \(only 0\)"),
        ("FusedMatMul(x[4], w[4,5])", "only matrices"),
        ("nchwc.Conv(x[1,16,5,5], w[16,16,1,1])", r'"com.microsoft.nchwc" \(layouts of one machine; save the model with ORT_ENABLE_EXTENDED'),
        ('FusedConv<activation="Selu">(x[1,4,5,5], w[4,4,1,1])', "attribute activation=Selu"),
        ("MultiHeadAttention<num_heads=2>(x[2,5,2,3,4])", "packed operands"),
        ("MultiHeadAttention<num_heads=2>(x[1,5,8], y[1,6,8], v[1,6,8], , mask[1])", "a mask"),
        ("MultiHeadAttention<num_heads=2>(x[1,5,8], y[1,6,8], v[1,6,8], , , , p[1,2,1,4], q[1,2,1,4])", "of earlier calls"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        from_onnx(model_of(text)[0])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Attention<num_heads=0>(x[1,5,6], w[6,24], b[24])", "num_heads must be 1 or more; got 0"),
        ("Attention<num_heads=5>(x[1,5,6], w[6,24], b[24])", "num_heads must divide 8; got 5"),
        ("Attention<num_heads=2>(x[1,5,6], w[6,25], b[25])", "three parts, .* got f32.6,25."),
        ("Attention<num_heads=2, qkv_hidden_sizes=[8,8,16]>(x[1,5,6], w[6,24], b[24])", "three parts"),
        ("Attention<num_heads=2, qkv_hidden_sizes=[-8,8,24]>(x[1,5,6], w[6,24], b[24])", "room for three parts"),
        ("Attention<num_heads=2>(x[5,6], w[6,24], b[24])", "an input of 3 axes"),
        ("MultiHeadAttention<num_heads=2>(x[1,5,8], y[5,8], v[5,8])", "3 or 4 axes"),
        ("MultiHeadAttention<num_heads=2>(x[1,5,8], y[1,5,8], v[1,5,8], b[16])", "room for three parts"),
        ("SkipLayerNormalization(x[2,3,8], y[2,3,8], g[7])", "7"),
        ("BiasGelu(x[2,3,8], b[3])", "broadcast"),
        ("BiasGelu(x[2,3,8])", "must be given input 1"),
        ("FastGelu()", "must be given input 0"),
        ("SkipLayerNormalization()", "must be given input 0"),
        ("SkipLayerNormalization(x[3,3], , g[3])", "must be given input 1"),
        ("SkipLayerNormalization(x[3,3], y[3,3])", "must be given input 2"),
    ],
)  # fmt: skip
def test_what_is_no_model(text: str, reason: str) -> None:
    with pytest.raises((InvalidModelError, ShapeError), match=reason):
        from_onnx(model_of(text)[0])


def test_halves_hold_what_leaves_later_keys_out() -> None:
    text = "MultiHeadAttention<num_heads=2, unidirectional=1>(x[2,6,8], y[2,6,8], v[2,6,8])"
    model, data = model_of(text)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    halves = {name: x.astype(np.float16) for name, x in data.items()}
    (later,) = (n.value for n in from_onnx(model).nodes if "later" in n.name)
    assert later.min() == -65504
    (expected,), (actual,) = theirs(model, halves), interpret(from_onnx(model), halves).values()
    np.testing.assert_allclose(actual, expected, rtol=4e-3, atol=4e-3)


NET = """<ir_version: 8, opset_import: ["": 17]> g (float[1,3,16,16] x) => (float[1,5] y)
{ a = Conv<pads=[1,1,1,1]>(x, k0, b0)  r = Relu(a)  d = Conv<pads=[1,1,1,1]>(r, k1, b0)  s = Add(d, r)  t = Relu(s)
  g1 = Sigmoid(t)  u = Mul(t, g1)  f = ReduceMean<axes=[2,3], keepdims=0>(u)  h = Gemm<transB=1>(f, w, v)  y = Relu(h) }"""
SHAPES = {"k0": (16, 3, 3, 3), "b0": (16,), "k1": (16, 16, 3, 3), "w": (5, 16), "v": (5,)}


def test_a_saved_model_means_what_the_model_means(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(NET)
    for name, shape in SHAPES.items():
        values = (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "saved.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    saved = onnx.load(tmp_path / "saved.onnx")
    written = {n.op_type for n in saved.graph.node if n.domain == "com.microsoft"}
    assert {"FusedConv", "FusedGemm"} <= written
    data = {"x": rng.normal(size=(1, 3, 16, 16)).astype(np.float32)}
    ours, theirs = (interpret(from_onnx(m), data)["y"] for m in (model, saved))
    np.testing.assert_allclose(theirs, ours, rtol=1e-12)
