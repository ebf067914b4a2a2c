"""ONNX models with a symbolic batch: any number of samples, and a number that is written into the model is named."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from convc.compiler import compile
from convc.errors import InvalidModelError, ShapeError
from convc.frontend.onnx import from_onnx
from convc.ir.batch import shown
from convc.verify import verify

NET = """<ir_version: 8, opset_import: ["": 18]> g (float[batch,3,6,6] x) => (float[batch,5] y)
<float[4,3,3,3] k, float[5,4] w, int64[2] s = {BODY}>
{ c = Conv(x, k)  r = Relu(c)  m = GlobalAveragePool(r)  f = Reshape(m, s)  y = Gemm<transB = 1>(f, w) }"""


def net(shape: str = "-1, 4", **replaced: str) -> onnx.ModelProto:
    text = NET.replace("BODY", shape)
    for old, new in replaced.items():
        text = text.replace(old, new)
    text = text.replace("float[4,3,3,3] k, float[5,4] w, ", "")
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, dims in (("k", (4, 3, 3, 3)), ("w", (5, 4))):
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(rng.normal(size=dims).astype(np.float32), name)
        )
    return model


def test_an_open_leading_extent_is_a_batch() -> None:
    model = net()
    graph = from_onnx(model)
    assert (graph.batch, shown(graph, "x"), shown(graph, "y")) == (
        "batch",
        "f32[batch,3,6,6]",
        "f32[batch,5]",
    )
    module = compile(model, batch_sizes=(4, 2), threads=1).load(threads=1)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for n in (1, 2, 5, 11):
        x = np.random.default_rng(n).normal(size=(n, 3, 6, 6)).astype(np.float32)
        np.testing.assert_allclose(module(x), session.run(None, {"x": x})[0], rtol=1e-4, atol=1e-5)


def test_a_name_for_it_and_a_number_in_its_place() -> None:
    assert from_onnx(net(), shapes={"x": ("N", 3, 6, 6)}).batch == "N"
    assert from_onnx(net(), shapes={"x": (2, 3, 6, 6)}).batch == ""


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ("1, 4", r"runs for 1, and not for 3: .* while importing Reshape node 'f'.*dynamic batch\. .*--shape x:1x3x6x6"),
        ("1, -1", r"%f must have 3 samples .* got f32\[1,12\] for f32\[3,4\]: .* written into reshape 'f'"),
    ],
)  # fmt: skip
def test_a_baked_reshape_is_named(shape: str, text: str) -> None:
    model = net(shape, **{"y = Gemm<transB = 1>(f, w)": "y = Relu(f)"})
    with pytest.raises(ShapeError, match=text):
        from_onnx(model)
    assert from_onnx(model, shapes={"x": (1, 3, 6, 6)}).batch == ""


def test_what_mixes_samples_is_named_with_a_way_out() -> None:
    text = '<ir_version: 8, opset_import: ["": 18]> g (float[N,3] x) => (float[N,3] y) { y = Softmax<axis=0>(x) }'
    with pytest.raises(ShapeError, match="%y must treat the samples") as caught:
        from_onnx(onnx.parser.parse_model(text))
    assert caught.value.__notes__ == ["Give the batch a number: `--shape x:1x3`."]


def test_batches_that_cannot_be() -> None:
    with pytest.raises(
        InvalidModelError,
        match=r"leading extent, the batch, which alone may have a name; got \[N, C, 6, 6\]",
    ):
        from_onnx(net(), shapes={"x": ("N", "C", 6, 6)})
    fixed = net(**{"float[batch,3,6,6] x": "float[1,3,6,6] x"})
    with pytest.raises(
        InvalidModelError,
        match=r"open leading extent in the model .* got \[1, 3, 6, 6\] and \[N, 3, 6, 6\]",
    ):
        from_onnx(fixed, shapes={"x": ("N", 3, 6, 6)})
    two = '<ir_version: 8, opset_import: ["": 18]> g (float[A,3] a, float[B,3] b) => (float[A,3] y, float[B,3] z) { y = Relu(a) z = Relu(b) }'
    with pytest.raises(InvalidModelError, match="input 'b' must have a static shape"):
        from_onnx(onnx.parser.parse_model(two))
    with pytest.raises(InvalidModelError, match="one symbolic batch; got A, B"):
        from_onnx(onnx.parser.parse_model(two), shapes={"a": ("A", 3), "b": ("B", 3)})


def test_two_sizes_are_verified() -> None:
    graph = from_onnx(net())
    module = compile(graph, batch_sizes=(4, 2), threads=1).load(threads=1)
    seen = []

    class Watched:
        inputs, batch_sizes = module.inputs, (4, 2)

        def run(self, inputs):
            seen.append(len(inputs["x"]))
            return module.run(inputs)

    report = verify(Watched(), graph)
    assert report.ok
    assert (report.runs, seen) == (2, [6, 3])
