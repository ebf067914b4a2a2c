"""The nine light models that ship with onnx, with their expected outputs."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from convc.frontend.onnx import from_onnx
from convc.ir.graph import ConstantAttributes
from convc.ir.reference import interpret

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NAMES = {
    "bvlc_alexnet": "prob_1",
    "densenet121": "fc6_1",
    "inception_v1": "prob_1",
    "inception_v2": "prob_1",
    "resnet50": "gpu_0/softmax_1",
    "shufflenet": "gpu_0/softmax_1",
    "squeezenet": "softmaxout_1",
    "vgg19": "prob_1",
    "zfnet512": "gpu_0/softmax_1",
}


def test_all_light_models_are_listed() -> None:
    assert {p.stem.removeprefix("light_") for p in FOLDER.glob("*.onnx")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_output_is_the_expected_one(name: str) -> None:
    graph = from_onnx(FOLDER / f"light_{name}.onnx")
    assert graph.name == f"light_{name}"
    (x,) = graph.inputs
    assert x.type.shape == (1, 3, 224, 224)
    assert [o.name for o in graph.outputs] == [NAMES[name]]
    # onnx.backend.test.runner.Runner.generate_dummy_data, random=False
    count = x.type.size
    data = (np.arange(count).reshape(x.type.shape) / count).astype(np.float32)
    got = interpret(graph, {x.name: data})[NAMES[name]]
    wanted = numpy_helper.to_array(onnx.load_tensor(FOLDER / f"light_{name}_output_0.pb"))
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["vgg19", "resnet50"])
def test_large_weights_stay_splats(name: str) -> None:
    stored = sum(
        n.attributes.value.itemsize if n.attributes.is_splat else n.type.nbytes
        for n in from_onnx(FOLDER / f"light_{name}.onnx").constants
        if isinstance(n.attributes, ConstantAttributes)
    )
    # The splats are 550 MB and 100 MB; what is left are the folded batch normalisations, one number a channel.
    assert stored < 1_000_000
