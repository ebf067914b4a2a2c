"""Pools, softmax and their gradients as cuDNN's by choice: when, why not, and modules with them, from DSL and ONNX to what runs."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

import convc
from convc.errors import ScheduleError, UnknownNameError
from convc.explaining import explain
from convc.frontend import dsl as cc
from convc.frontend.dsl.tensor import apply
from convc.ir import Graph
from convc.ir.ops.pool_grad import SumPoolGradAttributes
from convc.ir.reference import interpret
from convc.lowering.emit import emit
from convc.planning import Wishes, plan_graph
from convc.schedules.policy import Policy
from convc.schedules.select import select
from convc.target import parse_target
from tests.cuda_emulation.emulation import worker

TARGET = parse_target("cuda -arch=sm_90")


def net() -> Graph:
    """Two pools, one of which cuDNN does not take, behind a convolution, and a softmax."""
    x = cc.input("x", (2, 3, 12, 12))
    w = np.random.default_rng(0).integers(-2, 3, (4, 3, 3, 3)).astype(np.float32)
    h = cc.conv2d(x, w, pads=1, name="stem")
    h = cc.max_pool2d(h, 2, strides=2, name="pool1")
    h = cc.average_pool2d(h, 3, strides=2, pads=(0, 1, 1, 1), name="pool2")
    return cc.graph({"y": cc.softmax(h, 1, name="soft")}, name="net")


def chosen(use: Any = "auto", pins: Any = None, graph: Graph | None = None, policy: Policy | None = None) -> dict[str, tuple[str, str]]:  # fmt: skip
    wishes = Wishes.of(algo_for=pins, cudnn=use, policy=policy)
    plan = plan_graph(graph or net(), TARGET, wishes, "").plan
    both = {**plan.choices, **plan.operations}
    return {name: (choice.algorithm, choice.reason) for name, choice in both.items()}


def test_nobody_asked():
    found = chosen()
    assert {n: a for n, (a, _) in found.items() if n != "stem"} == dict.fromkeys(("pool1", "pool2", "soft"), "plain")  # fmt: skip
    assert found["pool1"][1] == "nobody asked for another"


def test_a_pin_takes_one_of_them():
    found = chosen(pins={"pool1": "cudnn"})
    assert found["pool1"] == ("cudnn", "pinned by --algo-for pool1")
    assert (found["soft"][0], found["stem"][0] == "cudnn") == ("plain", False)
    assert chosen("require", {"pool1": "plain"})["pool1"][0] == "plain"


@pytest.mark.parametrize("use", ["prefer", "require"])
def test_prefer_and_require_mean_ops_where_cudnn_applies(use):
    """`require` is about convolutions: a pool that cuDNN does not take is no error, and the plan says why."""
    found = chosen(use)
    assert {n: a for n, (a, _) in found.items()} == {"stem": "cudnn", "pool1": "cudnn", "pool2": "plain", "soft": "cudnn"}  # fmt: skip
    assert found["pool2"][1] == "cudnn asked for, but pads must be equal at both ends of an axis; got (0, 1, 1, 1)"  # fmt: skip


def test_a_model_without_convolutions_may_require_it():
    x = cc.input("x", (1, 2, 4, 4))
    pools = cc.graph({"y": cc.max_pool2d(x, 2, name="a"), "z": cc.max_pool2d(x, 2, dilations=2, name="b")})  # fmt: skip
    found = chosen("require", graph=pools)
    assert {n: a for n, (a, _) in found.items()} == {"a": "cudnn", "b": "plain"}


def test_off_and_policies():
    assert chosen("off")["pool1"][0] == "plain"
    assert chosen("off", {"pool1": "cudnn"})["pool1"][0] == "cudnn"
    assert chosen(policy=Policy(prefer=("cudnn",)))["soft"] == ("cudnn", "asked for by the policy")
    plan = select(net(), TARGET, algo="cudnn")
    assert (plan["pool1"].algorithm, plan["pool1"].reason) == ("cudnn", "asked for by --algo cudnn")
    # A pattern that matches convolutions is about those; ops take what it names where it applies.
    assert chosen(pins={"*": "cudnn"})["pool2"][0] == "plain"


def test_what_a_pin_cannot_have_is_an_error():
    with pytest.raises(ScheduleError, match=r"'cudnn' cannot compute 'pool2': pads must be equal.*These can: plain"):  # fmt: skip
        chosen(pins={"pool2": "cudnn"})
    with pytest.raises(UnknownNameError, match="unknown algorithm 'winograd'; known: cudnn, plain"):
        chosen(pins={"pool1": "winograd"})
    with pytest.raises(UnknownNameError, match="unknown layer with a choice 'pool9'"):
        chosen(pins={"pool9": "cudnn"})


@pytest.mark.parametrize(
    ("dtype", "make", "reason"),
    [
        ("float32", lambda x: cc.max_pool2d(x, 2, dilations=2), "dilations must be 1; got (2, 2)"),
        ("float32", lambda x: cc.max_pool2d(x, 2, strides=2, ceil_mode=True), "no window may hang over the end: there must be (2, 2); got (3, 3)"),
        ("float32", lambda x: cc.max_pool2d(x, 2, pads=(0, 0, 1, 0)), "pads must be equal at both ends of an axis; got (0, 0, 1, 0)"),
        ("float32", lambda x: cc.mean(x, (1, 2, 3)), "a mean must be over all of 1 to 3 spatial axes, and no other; got axes (1, 2, 3) of f32[1,2,5,5]"),
        ("float32", lambda x: cc.mean(x, (2,)), "a mean must be over all of 1 to 3 spatial axes, and no other; got axes (2,) of f32[1,2,5,5]"),
    ],
)  # fmt: skip
def test_refusals_have_reasons(dtype, make, reason):
    graph = cc.graph({"y": make(cc.input("x", (1, 2, 5, 5), dtype))})
    (choice,) = select(graph, TARGET).operations.values()
    assert next(c.reason for c in choice.candidates if c.algorithm == "cudnn") == reason


def test_a_maximum_s_gradient_is_cudnn_s_by_a_pin_alone():
    """Ties: cuDNN computes another subgradient than the op, which nothing but a pin on the node may choose."""
    x = cc.input("x", (1, 2, 4, 4))
    y = cc.max_pool2d(x, 2, name="pool")
    graph = cc.graph({"dx": cc.grad(cc.sum(y * y), x)})
    (name,) = (n.name for n in graph.nodes if n.op == "max_pool_grad")
    preferred = chosen("prefer", graph=graph)
    assert preferred[name][0] == "plain"
    assert preferred[name][1].startswith("cudnn asked for, but only a pin on it takes it: of equal")
    algorithm, reason = chosen(pins={name: "cudnn"}, graph=graph)[name]
    assert algorithm == "cudnn"
    assert reason.startswith(f"pinned by --algo-for {name}; of equal greatest elements")


def test_explain_and_the_lock_have_them(tmp_path):
    reports = {r.node: r for r in explain(net(), target="cuda -arch=sm_90", cudnn="prefer")}
    rows = {c.algorithm: c for c in reports["pool2"].candidates}
    assert reports["pool2"].key == "average_pool(f32[2,4,6,6]) {kernel = [3, 3], strides = [2, 2], pads = [0, 1, 1, 1]}"  # fmt: skip
    assert rows["plain"].chosen
    assert rows["cudnn"].reason == "pads must be equal at both ends of an axis; got (0, 1, 1, 1)"
    beside = [c for c in reports["pool1"].candidates if c.beside]
    assert [(c.algorithm, c.reason) for c in beside] == [("plain", "for devices whose cudnn refuses it")]  # fmt: skip
    planned = plan_graph(net(), TARGET, Wishes.of(cudnn="prefer"), "sha")
    lock = tmp_path / "net.lock"
    planned.lock.write(lock)
    again = plan_graph(net(), TARGET, Wishes.of(locked=lock), "sha").plan
    assert {n: c.algorithm for n, c in again.operations.items()} == {"pool1": "cudnn", "pool2": "plain", "soft": "cudnn"}  # fmt: skip
    assert again.operations["soft"].source == "lock"


def test_on_a_cpu_there_is_no_such_choice():
    plan = select(net(), parse_target("llvm"))
    offered = {n: [row.algorithm for row in c.candidates] for n, c in plan.operations.items()}
    assert offered == {"soft": ["rows", "plain"]}


def test_pools_between_layers_that_are_channels_last_are_so_too():
    """Half precision: convolution, pool, convolution hand each other one block of all channels; two copies at the ends."""
    x = cc.input("x", (1, 8, 8, 8), "float16")
    w = np.ones((8, 8, 3, 3), np.float16) / 8
    h = cc.max_pool2d(cc.conv2d(x, w, pads=1), 2, strides=2, name="pool")
    graph = cc.graph({"y": cc.conv2d(h, w, pads=1)}, name="half")
    plan = plan_graph(graph, TARGET, Wishes.of(cudnn="require"), "").plan
    calls = emit(graph, plan, TARGET).calls
    assert sum("reorder" in call.kernel.symbol for call in calls) == 2
    image = np.random.default_rng(1).integers(-3, 4, (1, 8, 8, 8)).astype(np.float16)
    outputs, story = run(graph, {"x": image}, cudnn="require")
    np.testing.assert_array_equal(outputs["y"], interpret(graph, {"x": image})["y"])
    assert "pool 0;" in story


def run(source: Any, inputs: dict[str, np.ndarray], **options: Any) -> tuple[dict[str, np.ndarray], str]:  # fmt: skip
    options = {"target": "cuda -arch=sm_90", **options}
    outputs, _, story = worker().call(
        "tests.cudnn.candidate:compile_and_run", source, options, inputs
    )
    return outputs, story


def whole(shape: tuple[int, ...], seed: int, dtype: str = "float32") -> np.ndarray:
    """Whole numbers, no two of them equal."""
    size = int(np.prod(shape))
    return (np.random.default_rng(seed).permutation(size) - size // 2).reshape(shape).astype(dtype)


def pools(x: cc.Tensor) -> dict[str, cc.Tensor]:
    n = len(x.shape) - 2
    pool = {1: cc.max_pool1d, 2: cc.max_pool2d, 3: cc.max_pool3d}[n]
    mean = {1: cc.average_pool1d, 2: cc.average_pool2d, 3: cc.average_pool3d}[n]
    return {
        f"max{n}": pool(x, 3, strides=2, pads=1),
        f"mean{n}": mean(x, 2, strides=2),
        f"padded{n}": mean(x, 3, strides=2, pads=1),
        f"counted{n}": mean(x, 3, strides=1, pads=1, count_include_pad=True),
    }


def test_forward_and_backward_in_one_module():
    """Pools of one to three dimensions, softmax on every axis, and all gradients, against the oracle in float64."""
    inputs, outputs, losses, given = [], {}, [], {}
    for shape in ((2, 3, 9), (1, 3, 7, 6), (1, 2, 4, 5, 4)):
        x = cc.input(f"x{len(shape)}", shape)
        inputs.append(x)
        given[x.node.name] = whole(shape, len(shape))
        for name, y in pools(x).items():
            outputs[name] = y
            losses.append(cc.sum(y * y))
    s = cc.input("s", (3, 4, 5))
    given["s"] = whole((3, 4, 5), 7) / np.float32(8)
    for axis in range(3):
        for function in (cc.softmax, cc.log_softmax):
            outputs[f"{function.__name__}{axis}"] = y = function(s, axis)
            losses.append(cc.sum(y * y))
    total = losses[0]
    for loss in losses[1:]:
        total = total + loss
    inputs.append(s)
    for x, dx in zip(inputs, cc.grad(total, inputs), strict=True):
        outputs[f"d{x.node.name}"] = dx
    graph = cc.graph(outputs, name="everything")
    pins = {n.name: "cudnn" for n in graph.nodes if n.op == "max_pool_grad"}
    found, story = run(graph, given, cudnn="prefer", algo_for=pins)
    expected = interpret(graph, given)
    for name, wanted in expected.items():
        # Sums of at most 100 terms, each rounded once or twice.
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=64 * scale * 2.0**-24, err_msg=name)  # fmt: skip
    assert [story.count(f"pool {mode};") for mode in (0, 1, 2)] == [3, 3, 6]
    # The nine averages' gradients are those of sums, which count the padding, too; maxima's are the deterministic ones.
    assert [story.count(f"pool_backward {mode};") for mode in (1, 2, 3)] == [9, 0, 3]
    assert [story.count(f"softmax {algorithm} 1;") for algorithm in (1, 2)] == [3, 3]
    assert story.count("softmax_backward ") == 6


def test_bfloat16():
    """Pools, softmax and their gradients: the values of the oracle, each rounded once."""
    x, s = cc.input("x", (1, 3, 6, 6), "bfloat16"), cc.input("s", (4, 6), "bfloat16")
    outputs = pools(x)
    outputs["soft"], outputs["log"] = cc.softmax(s, 1), cc.log_softmax(s, 0)
    means, soft = cc.sum(outputs["mean2"] * outputs["mean2"]), cc.sum(outputs["soft"] * s)
    outputs["dmean"], outputs["dsoft"] = cc.grad(means, x), cc.grad(soft, s)
    graph = cc.graph(outputs, name="halves")
    given = {"x": whole((1, 3, 6, 6), 0, "bfloat16"), "s": whole((4, 6), 1, "bfloat16") / ml_dtypes.bfloat16(8)}  # fmt: skip
    found, story = run(graph, given, cudnn="prefer")
    for name, wanted in interpret(graph, given).items():
        wide = wanted.astype(np.float64)
        # What a gradient reads has been rounded before.
        atol = np.abs(wide).max() * 2.0 ** (-6 if name.startswith("d") else -8)
        np.testing.assert_allclose(found[name].astype(np.float64), wide, rtol=0, atol=atol, err_msg=name)  # fmt: skip
    assert [story.count(f"pool {mode};") for mode in (0, 1, 2)] == [1, 1, 2]
    assert (story.count("pool_backward 1;"), story.count("softmax_backward 1;")) == (1, 1)


def test_means_of_maps():
    """Of one to three dimensions, with and without the axes that are gone; others stay convc's own."""
    outputs, given = {}, {}
    for shape in ((2, 3, 9), (1, 3, 7, 6), (1, 2, 4, 5, 4)):
        # Of the same data both would be one pool.
        x, y = (cc.input(f"{name}{len(shape)}", shape) for name in "xy")
        spatial = tuple(range(2, len(shape)))
        given |= {v.node.name: whole(shape, len(shape) + i) for i, v in enumerate((x, y))}
        outputs[f"kept{len(shape)}"] = cc.mean(x, spatial, keepdims=True)
        outputs[f"gone{len(shape)}"] = cc.mean(y, spatial)
        outputs[f"rows{len(shape)}"] = cc.mean(x, (1,))
    graph = cc.graph(outputs, name="means")
    found, story = run(graph, given, cudnn="prefer")
    for name, wanted in interpret(graph, given).items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-6, atol=1e-6, err_msg=name)
    assert story == "pool 1;" * 6


def test_a_network_s_global_pool():
    """Behind a layer in half precision it reads channels last, as the layer writes; refused, convc's own reads the same."""
    x = cc.input("x", (1, 8, 6, 6), "float16")
    w = np.ones((8, 8, 3, 3), np.float16) / 8
    y = cc.global_average_pool(cc.conv2d(x, w, pads=1, name="layer"), name="pool")
    graph = cc.graph({"y": y}, name="net")
    plan = plan_graph(graph, TARGET, Wishes.of(cudnn="prefer"), "").plan
    copies = [c for c in emit(graph, plan, TARGET).calls if "reorder" in c.kernel.symbol]
    # The image into that order, and the eight means out of it.
    assert [c.arguments[-1].view.shape for c in copies] == [(1, 1, 6, 6, 8), (1, 8, 1, 1)]
    image = np.random.default_rng(1).integers(-3, 4, (1, 8, 6, 6)).astype(np.float16)
    wanted = interpret(graph, {"x": image})["y"].astype(np.float64)
    for failures in ([], [("cudnnPoolingForward", -1, 3000)]):
        options = {"target": "cuda -arch=sm_90", "cudnn": "prefer"}
        said = worker().call("tests.cudnn.candidate:loaded", graph, options, {"x": image}, failures)
        np.testing.assert_allclose(said["outputs"]["y"].astype(np.float64), wanted, rtol=2**-10)
        assert (said["ran"]["pool"][0] == "cudnn") != bool(failures)
        assert [f.layer for f in said["prepared"].fallbacks] == ["pool"] * bool(failures)


def test_from_onnx(tmp_path):
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p"], name="pool1", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("AveragePool", ["p"], ["a"], kernel_shape=[2, 2], strides=[1, 1]),
        helper.make_node("Flatten", ["a"], ["f"]),
        helper.make_node("Softmax", ["f"], ["y"], axis=1),
    ]  # fmt: skip
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [2, 3, 8, 8]), ("y", [2, 27])))  # fmt: skip
    model = helper.make_model(
        helper.make_graph(nodes, "m", [x], [y]), opset_imports=[helper.make_opsetid("", 17)]
    )
    data = whole((2, 3, 8, 8), 3) / np.float32(64)
    file = tmp_path / "pools.onnx"
    file.write_bytes(model.SerializeToString())
    found, story = run(str(file), {"x": data}, cudnn="prefer")
    expected = interpret(convc.from_onnx(model), {"x": data})
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-6)
    assert story == "pool 0;pool 2;softmax 1 1;"


def test_an_average_s_gradient_of_a_sum():
    g = cc.input("g", (1, 2, 3, 3))
    a = SumPoolGradAttributes((5, 5), (3, 3), (2, 2), (1, 1, 1, 1))
    graph = cc.graph({"y": apply("sum_pool_grad", [g], a, name="back")})
    data = whole((1, 2, 3, 3), 0)
    found, story = run(graph, {"g": data}, algo_for={"back": "cudnn"})
    np.testing.assert_array_equal(found["y"], interpret(graph, {"g": data})["y"])
    assert story == "pool_backward 1;"


def test_softmax_of_more_dimensions_than_cudnn_has():
    """Tensors of cuDNN have five at most: those before and behind the axis become one each."""
    x = cc.input("x", (2, 3, 2, 1, 2, 2))
    graph = cc.graph({f"y{axis}": cc.softmax(x, axis) for axis in (1, 5)}, name="wide")
    data = whole((2, 3, 2, 1, 2, 2), 5) / np.float32(8)
    found, story = run(graph, {"x": data}, cudnn="prefer")
    for name, wanted in interpret(graph, {"x": data}).items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-6)
    assert story.count("softmax 1 1;") == 2
