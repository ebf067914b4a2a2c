"""The greatest of nothing but -inf is -inf, in every op that looks for an extreme; the finite type's limits are no substitute."""

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
