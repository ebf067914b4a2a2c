"""Every argument of every DSL function, replaced by what it is not: taken, or refused in the house's form, and never by Python or NumPy."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from convc.errors import DTypeError, ShapeError
from convc.frontend import dsl as cc
from tests.frontend.odd_arguments import ODD, complaint, complaints_about

X = cc.input("x", (1, 4, 8, 8))
ROW = cc.input("row", (2, 3))
LINE, VOLUME = cc.input("line", (1, 4, 8)), cc.input("volume", (1, 4, 4, 4, 4))

# What stands for each required argument, where it is not the same everywhere.
_GIVEN: dict[str, Any] = {
    "x": X, "a": X, "b": X, "bias": np.zeros(4), "scale": np.ones(4), "mean": np.zeros(4), "variance": np.ones(4), "gradient": X, "kernel": 1,
    "tensors": [X, X], "axes": 1, "pads": 1, "factors": 2, "size": 3, "shape": (4, -1), "value": [1.0, 2.0], "name": "n", "outputs": cc.sum(X),
    "wrt": X, "output_grads": None,
}  # fmt: skip
_OF_RANK = {"1d": LINE, "2d": X, "3d": VOLUME}


def _given(function: str) -> dict[str, Any]:
    """Return arguments that a function takes."""
    parameters = inspect.signature(getattr(cc, function)).parameters.values()
    found = {p.name: _GIVEN.get(p.name) for p in parameters if p.default is p.empty}
    if function[-2:] in _OF_RANK:
        found["x"] = _OF_RANK[function[-2:]]
    if "weight" in found:
        found["weight"] = np.ones((4, 4, *(1,) * (len(found["x"].shape) - 2)))
    if function in ("input", "parameter"):
        return {"name": "n", "shape": (2, 3)}
    if function == "dense":
        return {"x": ROW, "weight": np.ones((5, 3))}
    return found


FUNCTIONS = [name for name in cc.__all__ if name != "Tensor"]


# What NumPy says of a result that is infinite is no fault.
@pytest.mark.filterwarnings("error", "ignore::RuntimeWarning")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_odd_arguments_are_taken_or_refused_in_form(name):
    function, given = getattr(cc, name), _given(name)
    function(**given)
    arguments = inspect.signature(function).parameters
    assert not [c for a in arguments for c in complaints_about(function, given, a, ODD)]


METHODS: dict[str, Any] = {
    "index": lambda o: X[o],
    "slice": lambda o: X[0, o:],
    "step": lambda o: X[::o],
    "reshape": lambda o: X.reshape(o),
    "two extents": lambda o: X.reshape(4, o),
    "transpose": lambda o: X.transpose(o),
    "add": lambda o: X + o,
    "from": lambda o: o - X,
    "power": lambda o: X**o,
}


# What NumPy says of a result that is infinite is no fault.
@pytest.mark.filterwarnings("error", "ignore::RuntimeWarning")
@pytest.mark.parametrize("method", METHODS)
def test_odd_operands_of_tensors_methods(method):
    found = {repr(o): complaint(lambda o=o: METHODS[method](o)) for o in ODD}
    assert not {odd: said for odd, said in found.items() if said}


def test_numpys_whole_numbers_are_whole_numbers():
    w = np.ones((4, 2, 3, 3))
    y = cc.conv2d(X, w, strides=np.int64(2), pads=np.array([1, 1]), group=np.int32(2))
    assert y.shape == (1, 4, 4, 4)
    assert cc.sum(X, np.int64(-1)).shape == (1, 4, 8)
    assert cc.input("y", np.array([2, 3])).shape == (2, 3)


# ---- what was cut off in silence ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: cc.max_pool2d(X, (2.9, 2.9)), "kernel must be whole numbers; got (2.9, 2.9)."),
        (lambda: cc.reshape(X, (4.5, 64)), "shape must be whole numbers; got (4.5, 64)."),
        (lambda: cc.transpose(X, (0, 1.5, 2, 3)), "perm must be whole numbers; got (0, 1.5, 2, 3)."),
        (lambda: cc.input("y", (1.5, 2)), "extents of input 'y' must be whole numbers; got (1.5, 2)."),
        (lambda: cc.constant(np.ones(1, "c8"), dtype="float32"), "element type must be one of"),
        (lambda: cc.input("y", (2,), None), "element type must be one of"),
    ],
)  # fmt: skip
def test_nothing_is_cut_off(build, message):
    with pytest.raises(DTypeError) as caught:
        build()
    assert str(caught.value).startswith(message)


def test_flattening_before_an_axis_that_is_none():
    # Python's slices would take it for the end.
    with pytest.raises(ShapeError, match=r"axis must be in \[-4, 4\] for .*; got 7."):
        cc.flatten(X, 7)
