"""Conv, ConvTranspose and pool attributes, drawn at random, against onnx.reference."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, helper

from convc.errors import InvalidModelError, UnsupportedModelError
from convc.frontend.onnx import from_onnx
from convc.frontend.onnx.auto_pad import Window, same_pads
from tests.frontend.onnx.onnx_models import (
    check_against_onnx,
    make_model,
    random_inputs,
    run_onnxruntime,
)

small = st.integers(1, 3)


def conv_model(draw: st.DrawFn, auto_pad: str) -> ModelProto:
    rank = draw(st.integers(1, 3))
    group, c, k = draw(small), draw(small), draw(small)
    kernel = draw(st.lists(small, min_size=rank, max_size=rank))
    extents = draw(st.lists(st.integers(4, 7), min_size=rank, max_size=rank))
    attributes = {
        "group": group,
        "strides": draw(st.lists(small, min_size=rank, max_size=rank)),
        "auto_pad": auto_pad,
    }
    if auto_pad == "NOTSET":
        attributes["pads"] = draw(st.lists(st.integers(0, 3), min_size=2 * rank, max_size=2 * rank))
    if auto_pad == "NOTSET" or auto_pad == "VALID":
        attributes["dilations"] = draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank))
        covered = [d * (s - 1) + 1 for d, s in zip(attributes["dilations"], kernel, strict=True)]
        assume(all(n >= e for n, e in zip(extents, covered, strict=True)))
    if draw(st.booleans()):
        attributes["kernel_shape"] = kernel
    rng = np.random.default_rng(0)
    # Whole numbers: every product and sum is exact.
    weight = rng.integers(-4, 5, (group * k, c, *kernel)).astype(np.float32)
    bias = rng.integers(-4, 5, group * k).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes)
    shape = (draw(st.integers(1, 2)), group * c, *extents)
    return make_model([node], {"x": shape}, ["y"], opset=11, constants={"w": weight, "b": bias})


@pytest.mark.parametrize("auto_pad", ["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
@settings(deadline=None, max_examples=25, derandomize=True)
@given(data=st.data())
def test_conv_attributes(auto_pad: str, data: st.DataObject) -> None:
    model = data.draw(st.composite(conv_model)(auto_pad))
    feeds = {"x": np.round(random_inputs(model)["x"])}
    # onnx.reference crops nothing where strides exceed the kernel, and ignores it with SAME: onnxruntime decides there.
    oracle = {} if auto_pad in ("NOTSET", "VALID") else {"oracle": run_onnxruntime}
    check_against_onnx(model, feeds, tolerance=0, **oracle)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.integers(1, 30), small, small, small, st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))
def test_same_pads_give_one_result_per_stride(
    extent: int, kernel: int, stride: int, dilation: int, auto_pad: str
) -> None:
    window = Window((kernel,), (stride,), (dilation,), (0, 0), auto_pad)
    begin, end = same_pads((extent,), window)
    covered = dilation * (kernel - 1) + 1
    assert (extent + begin + end - covered) // stride + 1 == -(-extent // stride)
    assert 0 <= (end - begin if auto_pad == "SAME_UPPER" else begin - end) <= 1


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    op=st.sampled_from(["MaxPool", "AveragePool"]),
    extents=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    kernel=st.tuples(st.integers(2, 3), st.integers(2, 3)),
    strides=st.tuples(small, small),
    pads=st.tuples(*[st.integers(0, 1)] * 4),
    ceil_mode=st.booleans(),
    include=st.booleans(),
)
def test_pool_attributes(op, extents, kernel, strides, pads, ceil_mode, include) -> None:
    attributes = {
        "kernel_shape": kernel,
        "strides": strides,
        "pads": pads,
        "ceil_mode": int(ceil_mode),
    }
    if op == "AveragePool":
        attributes["count_include_pad"] = int(include)
    node = helper.make_node(op, ["x"], ["y"], **attributes)
    # The Relu behind it sees that a mistake in onnx's inference of the pool does not spread.
    nodes = [node, helper.make_node("Relu", ["y"], ["z"])]
    model = make_model(nodes, {"x": (1, 2, *extents)}, ["z"], opset=19)
    check_against_onnx(model, random_inputs(model), oracle=run_onnxruntime)


def one_conv(**attributes: object) -> ModelProto:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv1", **attributes)
    weight = np.ones((4, 3, 3, 3), np.float32)
    return make_model([node], {"x": (1, 3, 8, 8)}, ["y"], opset=11, constants={"w": weight})


def test_kernel_shape_must_be_the_weights() -> None:
    with pytest.raises(InvalidModelError) as caught:
        from_onnx(one_conv(kernel_shape=[5, 5]))
    assert str(caught.value) == "Conv kernel_shape must be that of the weight, [3, 3]; got [5, 5]."
    assert caught.value.__notes__ == ["while importing Conv node 'conv1' (opset 11) from net"]


def test_wrong_length_is_told_with_both_values() -> None:
    with pytest.raises(InvalidModelError) as caught:
        from_onnx(one_conv(strides=[2]))
    assert str(caught.value) == "Conv strides must have 2 values for kernel_shape [3, 3]; got [2]."


def test_pads_beside_auto_pad_are_refused() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        from_onnx(one_conv(pads=[1, 1, 1, 1], auto_pad="SAME_UPPER"))
    assert str(caught.value) == (
        "net cannot be compiled: 1 use of operators is not supported\n"
        "  ai.onnx::Conv  v11  x1  conv1  attribute pads=[1, 1, 1, 1] together with auto_pad=SAME_UPPER\n"
        "help: `convc ops` lists what is supported"
    )


@pytest.mark.parametrize(("opset", "supported"), [(10, False), (11, True)])
def test_odd_output_shape_before_opset_11(opset: int, supported: bool) -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2], output_shape=[8])
    weight = np.ones((1, 1, 3), np.float32)
    model = make_model([node], {"x": (1, 1, 4)}, ["y"], opset=opset, constants={"w": weight})
    if supported:
        check_against_onnx(model, random_inputs(model), oracle=run_onnxruntime)
        return
    with pytest.raises(
        UnsupportedModelError, match=r"output_shape=\[8\] with an odd total padding"
    ):
        from_onnx(model)
