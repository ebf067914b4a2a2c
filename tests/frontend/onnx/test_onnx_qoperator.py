"""ONNX Runtime's quantizer in QOperator format: its com.microsoft operators, within one step of what it computes itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from convc.compiler import compile
from convc.errors import UnsupportedModelError
from convc.frontend.onnx import from_onnx
from convc.source import load_graph

ort = pytest.importorskip("onnxruntime")

NET = """<ir_version: 8, opset_import: ["": 17]> g (float[1,3,16,16] x) => (float[1,5] y)
{ a = Conv<pads=[1,1,1,1]>(x, k0, b0)  r = Relu(a)  d = Conv<pads=[1,1,1,1], group=16>(r, k1, b0)  p = Conv(d, k2)
  s = Add(r, p)  c = Concat<axis=1>(s, d)  q = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c)  l = LeakyRelu<alpha=0.2>(q)
  e = Sigmoid(l)  m = Mul(l, e)  g = GlobalAveragePool(m)  f = Flatten(g)  h = Gemm<transB=1>(f, w, v)  y = Softmax<axis=1>(h) }"""
SHAPES = {"k0": (16, 3, 3, 3), "b0": (16,), "k1": (16, 1, 3, 3), "k2": (16, 16, 1, 1), "w": (5, 32), "v": (5,)}  # fmt: skip


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    folder = tmp_path_factory.mktemp("qoperator")
    model = onnx.parser.parse_model(NET)
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        values = (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, folder / "net.onnx")

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(rng.normal(size=(4, 1, 3, 16, 16)).astype(np.float32))

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {"x": image}

    out = folder / "q.onnx"
    quantize_static(
        folder / "net.onnx",
        out,
        Reader(),
        quant_format=QuantFormat.QOperator,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    return out


def test_the_quantizer_s_operators(quantised: Path) -> None:
    written = {n.op_type for n in onnx.load(quantised).graph.node if n.domain == "com.microsoft"}
    assert {"QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearSigmoid",
            "QLinearLeakyRelu", "QGemm", "QLinearSoftmax"} <= written  # fmt: skip
    module = compile(quantised, threads=1).load(threads=1)
    layers = [s for s in module.manifest.steps if s.algorithm == "quantized"]
    assert len(layers) == 4
    session = ort.InferenceSession(quantised, providers=["CPUExecutionProvider"])
    steps = []
    for seed in range(8):
        x = np.random.default_rng(seed).normal(size=(1, 3, 16, 16)).astype(np.float32)
        expected, actual = session.run(None, {"x": x})[0], module(x)
        assert isinstance(actual, np.ndarray)
        # Softmax of bytes: one step is 1/256.
        steps.append(np.abs(actual - expected).max() * 256)
    assert max(steps) <= 1.01


def test_unknown_operators_of_the_domain_are_named() -> None:
    text = '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> g (float[1,4] x) => (float[1,4] y) { y = com.microsoft.CDist(x, x) }'
    with pytest.raises(UnsupportedModelError, match=r"com\.microsoft::CDist .* not implemented"):
        from_onnx(onnx.parser.parse_model(text))


def test_dequantized(quantised: Path) -> None:
    graph = load_graph(quantised, dequantize=True)
    assert not any(n.op == "conv_quantized" for n in graph.nodes)
