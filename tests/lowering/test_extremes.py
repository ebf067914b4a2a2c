"""The greatest of nothing but -inf is -inf, in every op that looks for an extreme, and NaN is ignored wherever it lies."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.ir.reference import interpret
from convc.ir.text import parse

GRAPH = parse(
    """graph @extremes {
  %x = input : f32[2,16,4,4]
  %top = reduce_max(%x) {axes = [3]} : f32[2,16,4,1]
  %bottom = reduce_min(%x) {axes = [1, 2], keepdims = false} : f32[2,4]
  %pooled = max_pool(%x) {kernel = [2, 2], strides = [2, 2]} : f32[2,16,2,2]
  return %top, %bottom, %pooled
}"""
)


@pytest.mark.parametrize("value", [-np.inf, np.inf])
def test_rows_of_one_infinity_keep_it(value: float) -> None:
    x = np.random.default_rng(0).standard_normal((2, 16, 4, 4)).astype(np.float32)
    x[0] = value
    x[1, :, :2] = value
    expected, actual = interpret(GRAPH, {"x": x}), compile(GRAPH, threads=1).run({"x": x})
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)
    assert (expected["top"][0] == value).all()


@pytest.mark.parametrize("shape", [(1024,), (1, 37, 97), (2, 3, 24, 16)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_of_a_whole_tensor_wherever_it_lies(shape: tuple[int, ...], keepdims: bool) -> None:
    axes = list(range(len(shape)))
    extents = ",".join(map(str, shape))
    form = f"{{axes = {axes}, keepdims = {str(keepdims).lower()}}}"
    graph = parse(
        f"graph @whole {{ %x = input : f32[{extents}] %t = reduce_max(%x) {form} %b = reduce_min(%x) {form} return %t, %b }}"
    )
    compiled = compile(graph, threads=1)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for at in (0, x.size // 2, x.size - 65, x.size - 1):
        flat = x.ravel().copy()
        flat[at], flat[at - 1] = 9.0, -9.0
        got = compiled.run({"x": flat.reshape(shape)})
        assert got["t"].shape == ((1,) * len(shape) if keepdims else ())
        assert (got["t"], got["b"]) == (9.0, -9.0), at


PLACES = """graph @places {
  %x = input : f32[2,16,6,6]
  %all = reduce_max(%x) {axes = [0, 1, 2, 3]} : f32[1,1,1,1]
  %rows = reduce_min(%x) {axes = [3]} : f32[2,16,6,1]
  %channels = reduce_max(%x) {axes = [1], keepdims = false} : f32[2,6,6]
  %global = reduce_max(%x) {axes = [2, 3]} : f32[2,16,1,1]
  %pooled = max_pool(%x) {kernel = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]} : f32[2,16,3,3]
  %held = max_pool_indices(%x) {kernel = [2, 2], strides = [2, 2]} : i64[2,16,3,3]
  %first = argmax(%x) {axis = 3} : i64[2,16,6,1]
  %last = argmax(%x) {axis = 1, largest = false, last = true} : i64[2,1,6,6]
  return %all, %rows, %channels, %global, %pooled, %held, %first, %last
}"""


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_nan_is_ignored_wherever_it_lies(dtype: str) -> None:
    graph = parse(
        str(PLACES).replace("f32", {"float64": "f64", "float16": "f16"}.get(dtype, "f32"))
    )
    compiled = compile(graph, threads=1)
    rng = np.random.default_rng(0)
    # No two elements alike, so that every place is one.
    numbers = rng.permutation(2 * 16 * 6 * 6).reshape(2, 16, 6, 6).astype(dtype)
    for share in (0.0, 0.02, 0.5, 0.95, 1.0):
        x = np.where(rng.random(numbers.shape) < share, np.array(np.nan, dtype), numbers)
        expected, actual = interpret(graph, {"x": x}), compiled.run({"x": x})
        for name, array in expected.items():
            np.testing.assert_array_equal(actual[name], array, err_msg=f"{name} {share}")
            assert not np.isnan(array).any()
    assert (actual["all"], actual["first"].min(), actual["last"].max()) == (-np.inf, 5, 0)
    assert actual["held"].max() == x.size - 1


def test_what_is_before_nan_counts() -> None:
    graph = parse(
        "graph @row { %x = input : f32[1,1,3] %t = reduce_max(%x) {axes = [2], keepdims = false} %p = max_pool(%x) {kernel = [3]} return %t, %p }"
    )
    x = np.float32([[[5, np.nan, 1]]])
    got = compile(graph, threads=1).run({"x": x})
    assert (got["t"], got["p"]) == (5, 5)
