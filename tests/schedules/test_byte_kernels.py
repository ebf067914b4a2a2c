"""What kernels of bytes are rewritten to is found in them: results alone would be the same where a rewrite fits no longer."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import tvm_ffi
from tvm import tirx
from tvm.ir import Call, TensorLoad

from convc.compiler import compile
from convc.ir import Graph, GraphBuilder, TensorType
from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.schedules.llvm import compiler

BYTES = {"uint8x16": 1, "uint8x32": 2, "uint8x64": 4}


def layer(filters: tuple[int, ...], data: tuple[int, ...], **geometry: Any) -> Graph:
    rng = np.random.default_rng(0)
    b = GraphBuilder("bytes")
    operands = [
        b.input("x", TensorType(data, "uint8")),
        b.constant(rng.integers(-128, 128, filters).astype(np.int8), "w"),
        b.constant(rng.integers(-9000, 9000, filters[0]).astype(np.int32), "b"),
        b.constant(np.full(filters[0], 1e-3, np.float32), "f"),
    ]
    form = QuantizedConvAttributes(zero=100, **geometry)
    return b.finish({"y": b.add("conv_quantized", operands, form, "y")})


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch):
    """Return a function that compiles one layer and gives its kernel as LLVM's generator gets it."""
    made: list[tirx.PrimFunc] = []

    def together(func: tirx.PrimFunc) -> tirx.PrimFunc:
        made.append(real(func))
        return made[-1]

    real = compiler.together
    monkeypatch.setattr(compiler, "together", together)

    def compiled(graph: Graph) -> tirx.PrimFunc:
        made.clear()
        compile(graph, threads=1, mcpu="icelake-server")
        (func,) = [f for f in made if "convc.byte_stores" in f.attrs]
        return func

    return compiled


def found(func: tirx.PrimFunc) -> Counter[str]:
    """Return how often a kernel stores rounded bytes together, loads quads of taps, puts them together by shifts, and adds the bias."""
    counts: Counter[str] = Counter()

    def stored(store: Any) -> None:
        if str(store.buffer.name) == "requantized":
            counts[f"{BYTES[str(store.value.ty.dtype)]} together"] += 1

    def called(call: Any) -> None:
        if call.args and str(call.args[0]).strip('"') == "convc_quads_of_taps":
            counts["quads"] += 1

    def added(add: Any) -> None:
        loads = [x for x in (add.a, add.b) if isinstance(x, TensorLoad)]
        counts["biases added"] += any(str(x.source.name) == "bias" for x in loads)

    def shifted(_: Any) -> None:
        counts["shifts"] += 1

    visits = [(tirx.BufferStore, stored), (Call, called), (tirx.Add, added), (tirx.LShift, shifted)]
    tvm_ffi.structural_walk(func.body, visits)
    return +counts


def test_a_depthwise_layer(kernel):
    counts = found(kernel(layer((16, 1, 3, 3), (1, 16, 28, 28), group=16, pads=(1,) * 4)))
    assert set(counts) == {"4 together", "quads"}


def test_a_pointwise_layer(kernel):
    counts = found(kernel(layer((16, 32, 1, 1), (1, 32, 28, 28))))
    assert set(counts) == {"4 together"}
