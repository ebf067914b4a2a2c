"""Rounded bytes are packed by instructions that saturate: the same bytes, wherever sums lie and however many points are stored together."""

from __future__ import annotations

import numpy as np
import pytest
import tvm_ffi
from tvm import tirx

from convc.compiler import compile
from convc.ir import GraphBuilder, TensorType
from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.ir.reference import interpret
from convc.schedules.llvm.byte_stores import marked, together
from convc.schedules.quantized import saturates
from convc.schedules.rounded import rounded, unrounded
from convc.target import parse_target

# Zero points in the middle and at the ends, bounds of a ReLU, of a ReLU6, and without 0.
FORMS = (
    QuantizedConvAttributes(),
    QuantizedConvAttributes(zero=128),
    QuantizedConvAttributes(zero=255),
    QuantizedConvAttributes(zero=7, least=7, greatest=130),
    QuantizedConvAttributes(dtype="int8"),
    QuantizedConvAttributes(dtype="int8", zero=-128, least=-128),
    QuantizedConvAttributes(dtype="int8", zero=5, least=5, greatest=100),
    QuantizedConvAttributes(dtype="int8", zero=-9, least=-100, greatest=-2),
)


@pytest.mark.parametrize("mcpu", ["host", "x86-64-v4"])
@pytest.mark.parametrize(
    "factor", [3e-3, 0.4, 1.5, 4e6], ids=["bytes", "beyond", "above one", "beyond int32"]
)
def test_bytes_are_those_of_the_reference(mcpu: str, factor: float) -> None:
    """Rows of 1 to 30 points: stored by four, two and one vector; channels that fill no block."""
    rng = np.random.default_rng(0)
    b, outputs, feeds = GraphBuilder("bytes"), {}, {}
    widths = (1, 2, 3, 5, 7, 12, 14, 30)
    for i, (form, width) in enumerate(zip(FORMS, widths, strict=True)):
        x = b.input(f"x{i}", TensorType((1, 20, 3, width), "uint8"))
        feeds[x] = rng.integers(0, 256, (1, 20, 3, width)).astype(np.uint8)
        operands = [
            x,
            b.constant(rng.integers(-128, 128, (40, 20, 1, 1)).astype(np.int8), f"w{i}"),
            b.constant(rng.integers(-50000, 50000, 40).astype(np.int32), f"b{i}"),
            b.constant((rng.uniform(0.1, 1.0, 40) * factor).astype(np.float32), f"f{i}"),
        ]
        outputs[f"y{i}"] = b.add("conv_quantized", operands, form, f"y{i}")
    graph = b.finish(outputs)
    got, exact = compile(graph, threads=1, mcpu=mcpu).run(feeds), interpret(graph, feeds)
    for name, wanted in exact.items():
        np.testing.assert_array_equal(got[name], wanted, err_msg=name)
        assert len(np.unique(wanted)) > (20 if factor < 0.01 else 1), name


def test_sums_that_int32_may_not_hold_are_not_packed() -> None:
    target, form = parse_target("llvm", "icelake-server"), QuantizedConvAttributes()
    assert saturates(form, np.float32([0.1, 0.9]), target)
    assert not saturates(form, np.float32([0.1, 1.0]), target)
    # What is added to a result is added to a byte.
    assert saturates(QuantizedConvAttributes(added=(1.0, 1.0, 0.0)), np.float32([5.0]), target)
    assert not saturates(QuantizedConvAttributes(dtype="float32"), np.float32([0.1]), target)
    assert not saturates(form, np.float32([0.1]), parse_target("llvm", "haswell"))


def stores(count: int, gap: int = 0) -> tirx.PrimFunc:
    """Return a function that stores vectors of 16 rounded bytes one after the other, with a gap behind the fourth."""
    x = tirx.decl_buffer((16 * count + gap,), "float32", name="x")
    y = tirx.decl_buffer((16 * count + gap,), "uint8", name="y")
    statements = []
    for i in range(count):
        at = tirx.Ramp(16 * i + (gap if i > 3 else 0), 1, 16)
        value = tirx.BufferLoad(x, [at])
        zero = tirx.const(0.0, "float32x16")
        bits = tirx.min(
            tirx.reinterpret("int32x16", tirx.max(value, zero) + tirx.const(1.5 * 2**23, "float32x16")),
            tirx.const(0x4B400000 + 255, "int32x16"),
        )  # fmt: skip
        statements.append(tirx.BufferStore(y, tirx.Cast("uint8x16", bits), [at]))
    return tirx.PrimFunc([x, y], tirx.SeqStmt(statements))


@pytest.mark.parametrize(
    ("count", "gap", "widths"),
    [(2, 0, [32]), (3, 0, [32, 16]), (4, 0, [64]), (7, 0, [64, 32, 16]), (14, 0, [64, 64, 64, 32]), (6, 16, [64, 32]), (5, 8, [64, 16])],
)  # fmt: skip
def test_neighbours_are_stored_together(count, gap, widths):
    found: list[int] = []
    func = together(marked(stores(count, gap)))
    tvm_ffi.structural_walk(func.body, (tirx.BufferStore, lambda s: found.append(int(s.indices[0].lanes))))  # fmt: skip
    assert found == widths


def test_functions_without_the_mark_stay():
    func = stores(4)
    assert together(func) is func


def test_what_is_rounded_otherwise_is_not_taken_for_it():
    y = tirx.Var("y", "float32")
    whole = rounded(y, tirx.const(0.0, "float32"), 0, 255, "uint8")
    assert unrounded(tirx.Cast("uint8", y)) is None
    assert unrounded(tirx.Cast("uint8", whole.value + tirx.Var("z", "int32"))) is None
    # Lanes that hold no channel are 0, which the bounds must allow.
    beyond = tirx.Var("k", "int32") < 3
    nothing = tirx.const(0, "uint8")
    assert unrounded(tirx.Select(beyond, whole, nothing)) is not None
    least = rounded(y, tirx.const(0.0, "float32"), 5, 255, "uint8")
    assert unrounded(tirx.Select(beyond, least, nothing)) is None


@pytest.mark.parametrize(
    ("factor", "added"),
    [(3e4, ()), (-3e4, ()), (1e-4, (3e8, -2e8, 0.0)), (1e-4, (0.5, 0.5, 5e9)), (1e-4, (0.7, 0.4, 3.0))],
)  # fmt: skip
def test_what_is_beyond_int32_saturates(factor: float, added: tuple[float, ...]) -> None:
    rng = np.random.default_rng(0)
    b, shape = GraphBuilder("bytes"), (1, 32, 8, 8)
    operands = [
        b.input("x", TensorType(shape, "uint8")),
        b.constant(rng.integers(-128, 128, (32, 32, 1, 1)).astype(np.int8), "w"),
        b.constant(rng.integers(-9000, 9000, 32).astype(np.int32), "b"),
        b.constant(np.full(32, factor, np.float32), "f"),
        *([b.input("r", TensorType(shape, "uint8"))] if added else []),
    ]
    form = QuantizedConvAttributes(zero=100, added=added, own_least=-100, own_greatest=155)
    graph = b.finish({"y": b.add("conv_quantized", operands, form, "y")})
    feeds = {n.name: rng.integers(0, 256, shape).astype(np.uint8) for n in graph.inputs}
    wanted = interpret(graph, feeds)["y"]
    np.testing.assert_array_equal(compile(graph).run(feeds)["y"], wanted)
