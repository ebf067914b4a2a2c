"""Values that a module holds for its calls."""

from __future__ import annotations

import numpy as np
import pytest

from convc import dsl
from convc.compiler import compile
from convc.errors import InputError


@pytest.fixture(scope="module")
def compiled():
    x, w, b = dsl.input("x", (1, 2)), dsl.parameter("w", (3, 2)), dsl.parameter("b", (3,))
    return compile(dsl.graph({"y": dsl.dense(x, w, b)}), threads=1)


X, W, B = (
    np.arange(n, dtype=np.float32).reshape(s) for n, s in ((2, (1, 2)), (6, (3, 2)), (3, (3,)))
)


def test_held_inputs_need_not_be_given(compiled):
    module = compiled.load(threads=1)
    expected = X @ W.T + B
    w = W.copy()
    module.set_params({"w": w})
    w[:] = 0  # the module has a copy
    np.testing.assert_array_equal(module(X, B), expected)
    module.set_params({"b": B})
    np.testing.assert_array_equal(module(X), expected)
    np.testing.assert_array_equal(module.run({"x": X})["y"], expected)
    np.testing.assert_array_equal(module.run({"x": X, "b": -B})["y"], expected - 2 * B)
    np.testing.assert_array_equal(module(X, w=-W), X @ -W.T + B)
    module.set_params({"w": 2 * W})
    np.testing.assert_array_equal(module(X), X @ (2 * W).T + B)
    assert set(module.params) == {"w", "b"}
    with pytest.raises(ValueError, match="read-only"):
        module.params["w"][0] = 1


def test_what_is_wrong_is_said_and_nothing_is_held(compiled):
    module = compiled.load(threads=1)
    with pytest.raises(
        InputError, match=r"parameters must be among the inputs 'x', 'w', 'b'; got 'v'\."
    ):
        module.set_params({"w": W, "v": W})
    with pytest.raises(InputError, match=r"input 'w' must have shape \(3, 2\); got \(2, 3\)"):
        module.set_params({"b": B, "w": W.T.copy()})
    assert module.params == {}
    module.set_params({"w": W})
    with pytest.raises(
        InputError, match=r"inputs must be exactly 'x', 'b'; got 'x' \(missing 'b'\)\."
    ):
        module(X)
    with pytest.raises(InputError, match="inputs must be at most 2"):
        module(X, B, W)
