"""Transposes of plain values: every element in its place, in as few axes as can be, none at all where nothing moves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from convc.compiler import compile
from convc.frontend import dsl as cc
from convc.ir.text import parse
from convc.ir.types import numpy_dtype

# Runs that move as they are, in whole vectors, with a tail and short; the last axis moved, in whole tiles and not; many elements,
# which threads share; heads of attention, windows, a shuffle of pixels.
CASES = [
    ((5, 6, 32), (1, 0, 2)),
    ((4, 3, 37), (1, 0, 2)),
    ((7, 9, 4, 3), (0, 2, 1, 3)),
    ((33, 48), (1, 0)),
    ((2, 20, 19), (0, 2, 1)),
    ((3, 64, 80), (2, 1, 0)),
    ((2, 49, 3, 3, 4), (2, 0, 3, 1, 4)),
    ((1, 8, 4, 8, 4, 60), (0, 1, 3, 2, 4, 5)),
    ((1, 5, 2, 2, 9, 8), (0, 1, 4, 2, 5, 3)),
    ((1, 130, 1, 140), (0, 3, 2, 1)),
    ((40, 8, 64), (1, 0, 2)),
]
STAYS = [((1, 30, 1, 8), (0, 2, 1, 3)), ((6, 1, 1, 5), (2, 0, 1, 3))]


@pytest.fixture(scope="module")
def model():
    outputs = {}
    for at, (shape, perm) in enumerate(CASES + STAYS):
        outputs[f"y{at}"] = cc.input(f"x{at}", shape).transpose(*perm)
    return compile(cc.graph(outputs), threads=2)


def test_every_element_is_in_its_place(model):
    inputs = {
        f"x{at}": np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
        for at, (shape, _) in enumerate(CASES + STAYS)
    }
    for name, y in model.run(inputs).items():
        perm = (CASES + STAYS)[int(name[1:])][1]
        np.testing.assert_array_equal(y, inputs[f"x{name[1:]}"].transpose(perm))


def test_axes_of_one_element_move_nothing(model):
    moved = [s for s in model.manifest.steps if s.op == "transpose"]
    assert len(moved) == len(CASES)


@pytest.mark.parametrize("dtype", ["bf16", "f16", "i64", "i1", "u8"])
def test_every_type_is_moved(dtype):
    graph = parse(f"graph @g {{ %x = input : {dtype}[3,20,33]  %y = transpose(%x) {{perm = [2, 0, 1]}}  return %y }}")  # fmt: skip
    module = compile(graph, threads=1).load(threads=1)
    x = (np.arange(3 * 20 * 33) % 120).reshape(3, 20, 33).astype(numpy_dtype(graph["x"].type.dtype))
    np.testing.assert_array_equal(module(x), x.transpose(2, 0, 1))
