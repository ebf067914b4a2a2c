"""Stores of narrowed elements stay within their rows, whatever LLVM makes of the loop around them."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import tirx

from convc.schedules.llvm.compiler import build
from convc.schedules.llvm.short_loops import write_out
from convc.target import parse_target

GUARD = 7


def kernel(count: int, rounds: int, dtype: str) -> tirx.PrimFunc:
    """for i in range(rounds): if i < count: y[i] = dtype(x[i] >> 16)"""
    x, y = (tirx.decl_buffer((n,), t, name) for n, t, name in ((count, "int32", "x"), (count + 8, dtype, "y")))  # fmt: skip
    i = tirx.Var("i", "int32")
    value = tirx.Cast(dtype, tirx.BufferLoad(x, [i]) >> 16)
    body = tirx.IfThenElse(i < count, tirx.BufferStore(y, value, [i]), None)
    loop = tirx.For(i, 0, rounds, tirx.ForKind.SERIAL, body)
    return tirx.PrimFunc([x, y], loop).with_attr({"global_symbol": "narrow", "tirx.noalias": True})


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int8", "uint8"])
@pytest.mark.parametrize(
    ("count", "rounds"),
    [(9, 16), (17, 32), (1, 8), (33, 64), (9, 9), (5, 5), (65, 80), (65, 128), (129, 256)],
)
def test_nothing_behind_the_last_element_is_written(count, rounds, dtype):
    module = tvm.IRModule({"narrow": kernel(count, rounds, dtype)})
    x = np.arange(1, count + 1, dtype=np.int32) % 100 << 16
    y = np.full(count + 8, GUARD, dtype)
    given, result = tvm.runtime.tensor(x), tvm.runtime.tensor(y)
    build(module, parse_target("llvm"))["narrow"](given, result)
    np.testing.assert_array_equal(result.numpy()[:count], np.arange(1, count + 1) % 100)
    assert (result.numpy()[count:] == GUARD).all()


def test_long_loops_and_wide_stores_stay_loops():
    long = write_out(kernel(80, 128, "uint16")).body
    assert (int(long.extent), long.kind) == (80, tirx.ForKind.SERIAL)
    assert isinstance(long.body, tirx.BufferStore)
    wide = kernel(9, 16, "int32")
    assert write_out(wide).body.same_as(wide.body)


def test_loops_of_vectors_stay():
    """LLVM makes no vectors of vectors; a row of a depthwise layer of bytes, unrolled, is 14 times the code."""
    x, y = (tirx.decl_buffer((64,), dtype, name) for dtype, name in (("int32", "x"), ("int8", "y")))
    i = tirx.Var("i", "int32")
    at = tirx.Ramp(i * 16, 1, 16)
    store = tirx.BufferStore(y, tirx.Cast("int8x16", tirx.BufferLoad(x, [at])), [at])
    func = tirx.PrimFunc([x, y], tirx.For(i, 0, 4, tirx.ForKind.SERIAL, store))
    assert write_out(func).body.kind == tirx.ForKind.SERIAL
