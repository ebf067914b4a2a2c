"""Graphs written as ONNX models: the checker takes them, other programs and our own importer read the same numbers from them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from convc import dsl, from_onnx, nnet
from convc.errors import UnsupportedModelError
from convc.frontend.onnx import export
from convc.ir import Graph
from convc.ir.ops import elementwise
from convc.ir.passes import PIPELINE, run_passes
from convc.ir.reference import interpret

RNG = np.random.default_rng(0)


def values(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def network() -> Graph:
    x, v = dsl.input("x", (2, 4, 9, 8)), dsl.input("v", (2, 3, 12))
    h = dsl.relu(dsl.conv2d(x, values(6, 4, 3, 3), values(6), strides=(2, 1), pads=1, name="stem"))
    h = dsl.silu(
        dsl.conv2d(h, values(6, 3, 3, 2), group=2, dilations=(2, 1), pads=(2, 0, 2, 1)) + h
    )
    up = dsl.conv_transpose2d(h, values(6, 4, 3, 3), values(4), strides=2, pads=1, output_padding=1)
    pools = [
        dsl.max_pool2d(up, 2, strides=2, ceil_mode=True),
        dsl.average_pool2d(up, 3, strides=2, pads=1, count_include_pad=True),
    ]
    flat = dsl.flatten(dsl.global_average_pool(dsl.concat(pools)))
    signal = nnet.causal_conv1d(v, values(4, 3, 3), None, filter_dilation=2)
    return dsl.graph(
        {
            "prob": dsl.softmax(dsl.dense(flat, values(5, 8), values(5))),
            "log": dsl.log_softmax(dsl.matmul(signal, values(12, 5))),
            "scores": dsl.relu(dsl.matmul(signal, values(12, 4)) * 0.5 + values(4)) + values(4, 1),
            "lrn": dsl.lrn(up, 3),
            "wide": dsl.resize_nearest(dsl.pad(up, (0, 0, 1, 0, 0, 0, 0, 2), 1.5), (2, 1))[
                :, 1:3, ::2
            ],
            "all": dsl.clip(dsl.tanh(signal) * 2.0 - dsl.sigmoid(signal), -1.0, 1.0) ** 2.0,
            "kinds": dsl.leaky_relu(
                dsl.elu(dsl.hard_sigmoid(dsl.hard_swish(signal) / 3.0)) - 0.4, 0.3
            ),
            "top": dsl.max(dsl.maximum(up, 0.5), (1, 3), keepdims=True),
            "x again": x.transpose(0, 2, 3, 1),
        },
        name="everything",
    )


@pytest.mark.parametrize("passes", [False, True], ids=["as written", "after the passes"])
def test_a_model_means_the_same_everywhere(passes):
    graph = run_passes(network(), PIPELINE) if passes else network()
    model = graph.to_onnx()
    onnx.checker.check_model(model, full_check=True)
    inputs = {n.name: RNG.normal(size=n.type.shape).astype(np.float32) for n in graph.inputs}
    expected = interpret(graph, inputs)
    back = interpret(from_onnx(model), inputs)
    # Not onnx.reference, whose LRN forgets the last channel of the window.
    session = onnxruntime.InferenceSession(model.SerializeToString())
    results = session.run(None, inputs)
    assert [o.name for o in model.graph.output] == list(expected) == list(back)
    for name, result in zip(expected, results, strict=True):
        np.testing.assert_allclose(back[name], expected[name], rtol=1e-10, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(result, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_file_is_written(tmp_path):
    path = tmp_path / "net.onnx"
    network().to_onnx(path)
    names = [o.name for o in from_onnx(path).outputs]
    assert names == [o.name for o in network().outputs]


def test_what_onnx_has_no_operator_for_is_listed():
    x = dsl.input("x", (1, 2, 5, 5))
    y = nnet.conv2d(x, values(2, 3, 3, 2, 3, 3), unshared=True, name="local")
    (dx,) = dsl.grad([dsl.max_pool2d(x, 2)], [x], [values(1, 2, 4, 4)])
    with pytest.raises(UnsupportedModelError, match=r"conv_local \(local\), max_pool_grad \("):
        dsl.graph({"y": y, "dx": dx}).to_onnx()


def test_a_reversal_is_a_slice_with_negative_steps():
    graph = dsl.graph({"y": dsl.flip(dsl.input("x", (2, 3, 4)), (0, 2))})
    x = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    (y,) = ReferenceEvaluator(graph.to_onnx()).run(None, {"x": x})
    np.testing.assert_array_equal(y, x[::-1, :, ::-1])


def test_a_symbolic_batch_stays_symbolic():
    x = dsl.input("x", ("N", 4, 6, 6))
    h = dsl.resize_nearest(dsl.conv2d(x, values(3, 4, 3, 3))[:, 1:], 2)
    y = dsl.dense(dsl.flatten(h), values(5, 128))
    graph = dsl.graph({"y": y, "rows": dsl.reshape(h, (2, 64))})
    model = graph.to_onnx()
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    assert session.get_inputs()[0].shape == ["N", 4, 6, 6]
    assert session.get_outputs()[0].shape == ["N", 5]
    for n in (1, 3):
        fed = values(n, 4, 6, 6).astype(np.float32)
        wanted = interpret(graph, {"x": fed})
        for name, array in zip(("y", "rows"), session.run(["y", "rows"], {"x": fed}), strict=True):
            np.testing.assert_allclose(array, wanted[name], rtol=1e-4, atol=1e-4)


def test_a_constant_for_every_sample_is_refused():
    x = dsl.input("x", ("N", 4, 6))
    graph = dsl.graph({"y": dsl.concat([x, dsl.constant(np.ones((1, 4, 1)), dtype="float32")], 2)})
    with pytest.raises(UnsupportedModelError, match="must join values of the symbolic batch alone"):
        graph.to_onnx()


def test_every_function_of_one_value_is_written():
    assert set(elementwise.UNARY) <= set(export.ROWS)
