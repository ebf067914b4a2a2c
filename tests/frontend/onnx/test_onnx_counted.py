"""Results as large as the data says: NonMaxSuppression, NonZero, Compress and what follows them, compiled, against onnx.reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from convc.compiler import compile
from convc.errors import UnsupportedModelError, VerifyError
from convc.frontend.onnx import from_onnx
from convc.ir import text
from convc.ir.reference import interpret
from convc.runtime import load
from convc.verify import verify

HEAD = '<ir_version: 8, opset_import: ["": 18]> g'
# What a detector ends with: boxes, classes and scores of what is kept, the boxes scaled; and masks by NonZero and by Compress.
DETECTOR = (
    HEAD
    + """ (float[2, 40, 4] boxes, float[2, 3, 40] scores, float[6, 7] map, bool[5] kept)
  => (int64[n, 3] selected, float[n, 4] picked, int64[n, 1] classes, float[n] best, int64[2, m] places, float[m] positive, float[6, k] columns)
{
  most = Constant <value = int64[1] {5}> ()
  overlap = Constant <value = float[1] {0.3}> ()
  least = Constant <value = float[1] {0.6}> ()
  selected = NonMaxSuppression(boxes, scores, most, overlap, least)
  ends = Constant <value = int64[2] {0, 2}> ()
  class = Constant <value = int64[1] {1}> ()
  pairs = Gather <axis = 1> (selected, ends)
  classes = Gather <axis = 1> (selected, class)
  rows = GatherND(boxes, pairs)
  size = Constant <value = float[4] {320.0, 240.0, 320.0, 240.0}> ()
  picked = Mul(rows, size)
  best = GatherND(scores, selected)
  none = Constant <value = float {0.0}> ()
  above = Greater(map, none)
  places = NonZero(above)
  indices = Transpose <perm = [1, 0]> (places)
  positive = GatherND(map, indices)
  columns = Compress <axis = 1> (map, kept)
}"""
)


def _feeds(seed: int, greatest: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 1, (2, 40, 2)), rng.uniform(0, 0.6, (2, 40, 2))
    return {
        "boxes": np.concatenate([corner, corner + size], -1).astype(np.float32),
        "scores": rng.uniform(0, greatest, (2, 3, 40)).astype(np.float32),
        "map": rng.normal(size=(6, 7)).astype(np.float32) - np.float32(1 - greatest) * 9,
        "kept": rng.integers(0, 2, 5) > (greatest < 1),
    }


@pytest.fixture(scope="module")
def detector():
    model = onnx.parser.parse_model(DETECTOR)
    graph = from_onnx(model)
    return model, graph, compile(graph, threads=1)


# The last has nothing to find: all sizes are 0.
@pytest.mark.parametrize(("seed", "greatest"), [(0, 1.0), (1, 1.0), (2, 0.5)])
def test_results_have_the_size_that_the_data_says(detector, seed: int, greatest: float) -> None:
    model, graph, compiled = detector
    feeds = _feeds(seed, greatest)
    names = [o.name for o in model.graph.output]
    wanted = dict(zip(names, _run(model, feeds), strict=True))
    got, exact = compiled.run(feeds), interpret(graph, feeds)
    assert list(got) == list(exact) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value.reshape(got[name].shape), name)
        np.testing.assert_allclose(exact[name], got[name], rtol=1e-6)
    assert (len(got["selected"]) == 0) == (greatest < 1)


def test_called_or_into_the_callers_memory(detector) -> None:
    _, _, compiled = detector
    feeds, module = _feeds(0, 1.0), compiled.load(threads=1)
    from convc.runtime import aligned_empty

    room = aligned_empty((30, 3), np.int64)
    got = module.run(feeds, outputs={"selected": room})
    assert got["selected"].base is room or got["selected"].base is room.base
    called = module(*feeds.values())
    assert [len(x.shape) for x in called] == [2, 2, 2, 1, 2, 1, 2]
    np.testing.assert_array_equal(called[0], got["selected"])


def test_the_count_is_an_output_for_other_languages(detector, tmp_path) -> None:
    _, graph, compiled = detector
    module = load(compiled.export(tmp_path / "m.so"), threads=1)
    ports = {t.name: (t.shape, t.count, t.axis) for t in module.outputs}
    assert ports["selected"] == ((30, 3), "selected.count", 0)
    assert ports["picked"] == ((30, 4), "selected.count", 0)
    assert ports["places"] == ((2, 42), "places.count", 1)
    assert ports["columns"] == ((6, 5), "columns.count", 1)
    assert ports["selected.count"] == ((), "", 0)
    assert verify(module, graph, n=2).ok


def test_the_text_form_keeps_it(detector) -> None:
    _, graph, _ = detector
    assert text.parse(text.print_graph(graph)).outputs == graph.outputs


def test_a_count_must_be_one(detector) -> None:
    _, graph, _ = detector
    first, *others = graph.outputs
    with pytest.raises(VerifyError, match=r"counted by an output of type i64\[\]; got 'picked'"):
        replace(graph, outputs=(replace(first, count="picked"), *others)).verify()
    with pytest.raises(VerifyError, match=r"along an axis in \[0, 2\); got 2"):
        replace(graph, outputs=(replace(first, axis=2), *others)).verify()


REFUSED = {
    "Shape": "y = Shape(z)",
    "ReduceSum": "y = ReduceSum(z)",
    "Softmax": "y = Softmax <axis = 1> (z)",
    "Gather": "i = Constant <value = int64 {0}> () y = Gather <axis = 1> (z, i)",
    "Add": "c = Constant <value = int64[8] {1, 2, 3, 4, 5, 6, 7, 8}> () y = Add(z, c)",
    "Concat": "y = Concat <axis = 1> (z, z)",
    "TopK": "k = Constant <value = int64[1] {1}> () y, v = TopK <axis = 1> (z, k)",
    "Reshape": "s = Constant <value = int64[1] {-1}> () y = Reshape(z, s)",
}


@pytest.mark.parametrize("operator", REFUSED)
def test_what_looks_along_the_axis_is_refused_by_name(operator: str) -> None:
    model = onnx.parser.parse_model(f"{HEAD} (int64[2, 4] x) => (int64[n] y) {{ z = NonZero(x) {REFUSED[operator]} }}")  # fmt: skip
    with pytest.raises(UnsupportedModelError) as caught:
        from_onnx(model)
    (line,) = (row for row in str(caught.value).splitlines() if f"::{operator} " in row)
    assert line.endswith(
        "the size of 'z' is known at run time only, and axis 1 does not pass through"
    )


def test_two_sizes_do_not_mix() -> None:
    model = onnx.parser.parse_model(f"{HEAD} (int64[8] x, int64[8] w) => (int64[1, n] y) {{ a = NonZero(x) b = NonZero(w) y = Add(a, b) }}")  # fmt: skip
    with pytest.raises(UnsupportedModelError, match="'a', 'b' have sizes that are known at run time only, each its own"):  # fmt: skip
        from_onnx(model)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("y = Add(z, z)", 1),
        ("c = Constant <value = int64[1] {3}> () y = Mul(z, c)", 1),
        ("y = Concat <axis = 0> (z, z)", 1),
        ("a = Constant <value = int64[1] {0}> () y = Unsqueeze(z, a)", 2),
        ("s, t = Split <axis = 0, num_outputs = 2> (z) y = Sub(s, t)", 1),
        ("w = Constant <value = int64[2, 2] {1, 2, 3, 4}> () t = Transpose(z) y = MatMul(t, w)", 0),
        ("b = Constant <value = int64[1] {1}> () a = Constant <value = int64[1] {0}> () e = Constant <value = int64[1] {2}> () y = Slice(z, b, e, a)", 1),
    ],
)  # fmt: skip
def test_rows_stay_rows(body: str, wanted: int) -> None:
    model = onnx.parser.parse_model(f"{HEAD} (int64[3, 4] x) => (int64[n] y) {{ z = NonZero(x) {body} }}")  # fmt: skip
    model.graph.output[0].type.tensor_type.ClearField("shape")
    graph = from_onnx(model)
    assert graph.outputs[0].axis == wanted
    x = np.array([[0, 1, 0, 2], [3, 0, 0, 0], [0, 0, 5, 6]])
    (exact,) = _run(model, {"x": x})
    np.testing.assert_array_equal(interpret(graph, {"x": x})["y"], exact)


def _run(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    results = ReferenceEvaluator(model).run(None, dict(feeds))
    assert isinstance(results, list), "in the order of the model's outputs"
    return [np.asarray(value) for value in results]
