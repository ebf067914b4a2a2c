"""The ops that only imported graphs have, compiled: every one with every variant, all in one module, against the reference."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.ir import Graph, GraphBuilder, TensorType
from convc.ir.epilogue import Step
from convc.ir.ops.gather import (
    REDUCTIONS,
    BatchAttributes,
    ScatterAttributes,
    ScatterNDAttributes,
)
from convc.ir.ops.group_norm import GroupNormAttributes
from convc.ir.ops.layer_norm import LayerNormAttributes
from convc.ir.ops.linear import AxisAttributes, ReduceAttributes
from convc.ir.ops.logic import (
    COMPARISONS,
    BitCastAttributes,
    CastAttributes,
    InfinityAttributes,
)
from convc.ir.ops.order import ArgAttributes, RunningAttributes, TopKAttributes
from convc.ir.ops.pool import MaxPoolIndicesAttributes
from convc.ir.ops.quantized import QuantizeAttributes
from convc.ir.ops.resample import ResampleAttributes
from convc.ir.ops.sample import DeformAttributes, GridAttributes, RoiAttributes
from convc.ir.ops.select import NmsAttributes
from convc.ir.ops.shape import PickChannelsAttributes
from convc.ir.reference import interpret
from convc.ir.text import parse
from tests.ir.imported_ops import IMPORTED

rng = np.random.default_rng(0)


def f(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def whole(*shape: int) -> np.ndarray:
    """Floats with ties."""
    return np.round(f(*shape) * 2)


def i(low: int, high: int, *shape: int, dtype: type = np.int64) -> np.ndarray:
    return rng.integers(low, high, shape).astype(dtype)


def b(*shape: int) -> np.ndarray:
    return rng.integers(0, 2, shape).astype(bool)


def special() -> np.ndarray:
    x = f(9)
    x[[1, 2, 3]] = np.nan, np.inf, -np.inf
    return x


BOXES = np.abs(f(5, 4)) * 4 + np.array([0, 0, 5, 5], np.float32)
SCALES, ZEROS = np.abs(f(1, 4, 1)) + 0.1, np.array([[[0], [3], [-2], [7]]], np.float32)
LARGE = i(-99, 99, 4, 3)


def nms_operands(count: int, centred: bool) -> list[np.ndarray]:
    """Boxes of two images on a grid of quarters, three classes of scores with ties, and the order of the scores."""
    first, size = i(-8, 8, 2, count, 2) / 4, i(-4, 9, 2, count, 2) / 4
    boxes = np.concatenate([first, np.abs(size) if centred else first + size], -1)
    scores = whole(2, 3, count)
    return [boxes.astype(np.float32), scores, np.argsort(-scores, -1, kind="stable")]


# Rows of whole vectors, of a part of one and of a prime; channels of a plain image; the leading axis; a single value.
LAYER_NORMS = [
    ((2, 5, 32), (1, 1, 32), 2), ((3, 40), (1, 40), 1), ((4, 7), (1, 7), 1), ((2, 12, 3, 5), (1, 12, 1, 1), 1), ((6, 9), (6, 1), 0), ((3, 1), (1, 1), 1),
]  # fmt: skip

# Groups of several channels and of one, all channels; rows of several vectors, of a part of one, in several chunks; one axis, two, three.
GROUP_NORMS = [
    ((2, 12, 6, 32), 4, ()),
    ((1, 5, 7, 3), 5, ("relu",)),
    ((2, 6, 130, 96), 1, ("silu",)),
    ((3, 8, 40), 2, ()),
    ((1, 4, 3, 5, 16), 2, ("tanh",)),
]

CASES = [
    *((n, [whole(4, 5), whole(5)], None) for n in COMPARISONS),
    ("less", [i(-3, 3, 4, 5, dtype=np.int8), i(-3, 3, 4, 5, dtype=np.int8)], None),
    ("equal", [b(33), b(33)], None),
    *((f"logical_{n}", [b(3, 4, 5), b(4, 5)], None) for n in ("and", "or", "xor")),
    ("logical_not", [b(70)], None),
    *((f"bit_{n}", [i(0, 100, 40, dtype=np.uint8), i(0, 100, 40, dtype=np.uint8)], None) for n in ("and", "or", "xor")),
    ("bit_not", [i(-100, 100, 40, dtype=np.int32)], None),
    *((f"shift_{n}", [i(0, 100, 40, dtype=np.uint16), i(0, 40, 40, dtype=np.uint16)], None) for n in ("left", "right")),
    *((f"shift_{n}", [i(-100, 100, 40, dtype=np.int8), i(-9, 12, 40, dtype=np.int8)], None) for n in ("left", "right")),
    *((n, [f(40), f(40)], None) for n in ("mod", "fmod")),
    *((n, [i(-50, 50, 40, dtype=t), i(-5, 5, 40, dtype=t)], None) for n in ("mod", "fmod", "div") for t in (np.int8, np.int64)),
    *((n, [i(0, 50, 40, dtype=np.uint8), i(0, 5, 40, dtype=np.uint8)], None) for n in ("mod", "fmod", "div")),
    *(("where", [b(4, 5), i(0, 2, 4, 5, dtype=t), i(0, 2, 5, dtype=t)], None) for t in (np.float32, np.int8, np.bool_)),
    *(("cast", [(f(37) * 3).astype(s)], CastAttributes(d)) for s in (np.float32, np.int8) for d in ("float64", "int32", "bool", "int64", "int8")),
    ("cast", [b(37)], CastAttributes("float32")),
    ("cast", [b(37)], CastAttributes("int64")),
    ("cast", [np.abs(f(37) * 90)], CastAttributes("uint8")),
    ("bit_cast", [f(17)], BitCastAttributes("float32", "int32")),
    ("bit_cast", [i(-9, 9, 17, dtype=np.int8)], BitCastAttributes("int8", "uint8")),
    ("is_nan", [special()], None),
    ("is_inf", [special()], None),
    ("is_inf", [special()], InfinityAttributes(False, True)),
    ("gather", [f(4, 5, 6), i(-5, 5, 2, 3)], AxisAttributes(1)),
    ("gather", [b(4, 5), np.array(2)], AxisAttributes(1)),
    ("gather", [f(4, 5), i(-99, 99, 7, dtype=np.int32)], AxisAttributes(1)),
    ("gather_elements", [f(4, 5, 6), i(-5, 5, 4, 3, 6)], AxisAttributes(1)),
    ("gather_nd", [f(4, 5, 6), i(-4, 4, 7, 2)], BatchAttributes(0)),
    ("gather_nd", [f(4, 5, 6), i(-5, 5, 4, 3, 1)], BatchAttributes(1)),
    *(("scatter_elements", [f(4, 5, 6), i(-5, 5, 4, 3, 6), f(4, 3, 6)], ScatterAttributes(1, r)) for r in REDUCTIONS),
    *(("scatter_elements", [f(4, 5), LARGE, f(4, 3)], ScatterAttributes(1, r)) for r in REDUCTIONS),
    *(("scatter_nd", [f(4, 5, 6), i(-4, 4, 7, 2), f(7, 6)], ScatterNDAttributes(r)) for r in REDUCTIONS),
    *(("argmax", [whole(3, 7, 5)], ArgAttributes(1, k, m, e)) for k in (True, False) for m in (True, False) for e in (True, False)),
    *(("topk", [whole(3, 17, 2)], TopKAttributes(1, k, m)) for k in (1, 2, 9, 17) for m in (True, False)),
    ("topk", [i(0, 200, 1000, dtype=np.uint8)], TopKAttributes(0, 100)),
    *(("running", [f(3, 5, 4)], RunningAttributes(1, n, e)) for n in ("sum", "prod") for e in (True, False)),
    ("running", [i(0, 4, 3, 5, dtype=np.int32)], RunningAttributes(1)),
    ("resample", [f(2, 3, 6, 7), i(0, 6, 9, 2, dtype=np.int32), f(9, 2)], ResampleAttributes(2)),
    ("resample", [f(2, 3, 6, 7), i(0, 7, 9, 12, dtype=np.int32), f(9, 12)], ResampleAttributes(3)),
    *(("layer_norm", [f(*s), f(*a), f(*a)], LayerNormAttributes(x)) for s, a, x in LAYER_NORMS),
    *(("group_norm", [f(*s) + 3, f(*c), f(*c)], GroupNormAttributes(g, 1e-3, tuple(map(Step, e)))) for s, g, e in GROUP_NORMS for c in [(1, s[1], *[1] * (len(s) - 2))]),
    *(("grid_sample", [f(2, 3, 6, 7), f(2, 4, 5, 2)], GridAttributes(m, p, a))
      for m, p, a in (("nearest", "zeros", True), ("nearest", "border", False), ("linear", "zeros", False), ("linear", "reflection", True), ("cubic", "zeros", False), ("cubic", "reflection", False))),
    ("grid_sample", [f(2, 3, 4, 6, 7), f(2, 4, 5, 3, 3)], GridAttributes("linear", "border")),
    *(("roi_align", [f(2, 3, 8, 9), BOXES, i(0, 2, 5)], RoiAttributes((3, 2), 0.7, s, m, h)) for m in ("avg", "max") for s, h in ((0, True), (2, False))),
    ("deform_columns", [f(2, 4, 6, 7), f(2, 36, 5, 6), f(2, 18, 5, 6)], DeformAttributes((3, 3), (1, 1), (1, 1, 0, 0), (1, 1), 2)),
    ("deform_columns", [f(2, 4, 6, 7), f(2, 8, 3, 3)], DeformAttributes((2, 2), (2, 2), (0, 0, 0, 0), (1, 1))),
    *(("max_pool_indices", [whole(2, 3, 6, 7)], MaxPoolIndicesAttributes((2, 3), (2, 2), (1, 1, 0, 1), (), True, c)) for c in (True, False)),
    ("pick_channels", [f(2, 3, 4, 5), f(2, 2, 4, 5)], PickChannelsAttributes((1, 0, 1, 0), (1, 2, 0, 0))),
    ("pick_channels", [i(-9, 9, 2, 6, 5)], PickChannelsAttributes((0,) * 6, (0, 3, 1, 4, 2, 5))),
    ("reduce_prod", [f(3, 4, 5)], ReduceAttributes((0, 2), False)),
    ("max_pool", [i(-100, 100, 1, 2, 6, 6, dtype=np.int8)], None),
    ("matmul", [i(-9, 9, 3, 4, dtype=np.int32), i(-9, 9, 4, 5, dtype=np.int32)], None),
    *(("quantize", [f(3, 4, 5), SCALES, ZEROS], QuantizeAttributes(t)) for t in ("uint8", "int8")),
    *(("lookup", [i(0, 256, 2, 20, 5, 5, dtype=np.uint8), i(-128, 128, 256, dtype=t)], None) for t in (np.uint8, np.int8)),
    *(("dequantize", [i(0, 100, 3, 4, 5, dtype=t), SCALES, ZEROS], None) for t in (np.uint8, np.int8, np.int32)),
    *(("nms", nms_operands(n, c), NmsAttributes(m, o, t, c)) for n, m, o, t in ((30, 30, 0.3, 0.0), (17, 4, 0.5, float("-inf")), (1, 1, 0.0, -9.0), (9, 0, 0.5, 0.0)) for c in (True, False)),
    *(("nonzero", [a], None) for a in (i(-1, 2, 3, 4, 5), whole(7), b(4, 5), np.zeros((2, 3), np.float32), np.ones((3, 1, 2), np.int8))),
]  # fmt: skip


def _graph() -> tuple[Graph, dict[str, np.ndarray]]:
    from convc.ir.ops.pool import MaxPoolAttributes

    builder, feeds, outputs = GraphBuilder("ops"), {}, {}
    for index, (op, arrays, attributes) in enumerate(CASES):
        names = []
        for place, array in enumerate(arrays):
            name = f"x{index}_{place}"
            names.append(builder.input(name, TensorType(array.shape, str(array.dtype))))
            feeds[name] = array
        chosen = MaxPoolAttributes((3, 3), (2, 2), (1, 1, 1, 1)) if op == "max_pool" else attributes
        outputs[f"{index}-{op}"] = builder.add(op, names, chosen)
    return builder.finish(outputs), feeds


@pytest.fixture(scope="module")
def results():
    graph, feeds = _graph()
    with np.errstate(all="ignore"):
        wanted = interpret(graph, feeds)
    return wanted, compile(graph, threads=1).run(feeds), graph


@pytest.mark.parametrize("name", [f"{n}-{op}" for n, (op, _, _) in enumerate(CASES)])
def test_compiled_op_equals_its_reference(results, name: str) -> None:
    wanted, got, graph = results
    (output,) = (o for o in graph.outputs if o.name == name)
    assert str(got[name].dtype) == graph[output.value].type.dtype
    # Positions between points are float32: a rounding of theirs, times the slope of the data there.
    np.testing.assert_allclose(
        got[name].astype(np.float64), wanted[name].astype(np.float64), rtol=2e-5, atol=4e-6
    )


NORMS = [
    "layer_norm(%a, %s, %b) {axis = 1}",
    "group_norm(%a, %s, %b) {groups = 8, epilogue = [relu]}",
    "group_norm(%a, %s, %b) {groups = 1}",
]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("channels", [40, 32])
def test_channels_in_blocks_are_normalised_as_they_lie(channels: int, norm: str) -> None:
    c = channels
    graph = parse(
        f"graph @g {{ %x = input : f32[2,8,6,7] %w = input : f32[{c},8,1,1] %v = input : f32[8,{c},1,1] %s = input : f32[1,{c},1,1]"
        f" %b = input : f32[1,{c},1,1] %a = conv(%x, %w) %n = {norm} %y = conv(%n, %v) return %y }}"
    )
    feed = {n.name: f(*n.type.shape) for n in graph.nodes if n.op == "input"}
    module = compile(graph, threads=1).load(threads=1)
    copied = {t.step.node for t in module.profile(feed, 1) if t.step.op == "reorder"}
    assert copied.isdisjoint({"a", "n"})
    got, wanted = module.run(feed)["y"], interpret(graph, feed)["y"]
    np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-5 * np.abs(wanted).max())


def test_every_imported_op_has_a_case() -> None:
    # Quantised convolutions have constant weights: tests/schedules/test_quantized.py.
    assert {op for op, _, _ in CASES} >= IMPORTED - {"conv_quantized"}
