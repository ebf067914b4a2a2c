"""Sums rounded to bfloat16 by the instruction for it: bit for bit but for denormals, whatever else a kernel does keeps integers."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import te, tirx

from convc.ir.types import numpy_dtype
from convc.lowering.views import with_views
from convc.schedules.bfloat16_bits import SUMS, rounded, unrounded
from convc.schedules.layout import Layout
from convc.schedules.llvm.compiler import build
from convc.schedules.llvm.elementwise import schedule
from convc.target import parse_target

ZEN4, HOST = parse_target(mcpu="znver4"), parse_target(cores=1)
LEAST = np.float32(2.0**-126)


def kernel(size: int, *, sums: bool, target=ZEN4) -> tvm.runtime.Executable:
    """Return y = bfloat16(x), as a kernel of sums or as another one."""
    x = te.placeholder((size,), "float32", name="x")
    y = te.compute((size,), lambda i: x(i), name="y")
    func = schedule(te.create_prim_func([x, y]), target)
    views = [Layout().view((size,), dtype) for dtype in ("float32", "bfloat16")]
    func = with_views(func, views).with_attr("global_symbol", "kernel")
    func = func.with_attr(SUMS, True) if sums else func
    return build(tvm.IRModule({"kernel": func}), target)


def test_the_instruction_is_for_sums_on_a_cpu_that_has_it():
    old = parse_target(mcpu="cascadelake")
    for sums, target, wanted in ((True, ZEN4, True), (False, ZEN4, False), (True, old, False)):
        text = kernel(4096, sums=sums, target=target).mod.inspect_source("s")
        assert ("vcvtneps2bf16" in text) == wanted


def test_only_what_rounding_is_made_of_is_recognised():
    x = tirx.Var("x", "float32")
    node = rounded(x)
    assert unrounded(node).same_as(x)
    select = node.value
    for other in (
        tirx.Cast("uint16", select.true_value),
        tirx.Cast("uint16", tirx.Select(select.condition, select.true_value, select.true_value)),
        tirx.Cast("int16", select),
    ):
        assert unrounded(other) is None


@pytest.mark.skipif(
    "avx512bf16" not in HOST.features,
    reason="needs a CPU with AVX512_BF16, as any from Zen 4 or Cooper Lake on",
)
def test_numbers_are_rounded_as_in_integers():
    """Every pattern of the upper half, ties and their neighbours; the last elements, no whole vector, are rounded in integers."""
    high = np.arange(1 << 16, dtype=np.uint32) << 16
    low = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x1000], np.uint32)
    x = (high[:, None] | low).view(np.float32).reshape(-1)[:-3]
    y = tvm.runtime.tensor(np.zeros(x.size, np.uint16))
    kernel(x.size, sums=True, target=HOST)["kernel"](tvm.runtime.tensor(x), y)
    found = y.numpy().view(numpy_dtype("bfloat16")).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(numpy_dtype("bfloat16")).astype(np.float32)
    nan, tiny = np.isnan(x), np.abs(x) < LEAST
    assert np.isnan(found[nan]).all()
    plain = ~nan & ~tiny
    np.testing.assert_array_equal(found[plain].view(np.uint32), expected[plain].view(np.uint32))
    # Denormals become zeros of their sign.
    assert (np.abs(found[tiny]) <= LEAST).all()
    np.testing.assert_array_equal(np.signbit(found[tiny]), np.signbit(x[tiny]))
