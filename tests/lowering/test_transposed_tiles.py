"""Images move between plain order and blocks of channels bit by bit: of every type, in whole tiles, with tails, in short rows."""

from __future__ import annotations

import re

import numpy as np
import pytest

from convc.compiler import compile
from convc.ir import GraphBuilder, TensorType
from convc.ir.ops.conv import ConvAttributes
from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.ir.reference import interpret
from convc.ir.types import numpy_dtype

# Data, output channels: three channels (blocks of four bytes), a block and a bit, whole blocks; rows of whole tiles, of a tile and a
# bit, of less than one; lines, images and volumes.
CASES = (
    ((2, 3, 5, 40), 20),
    ((1, 20, 17, 19), 24),
    ((2, 32, 3, 16), 40),
    ((1, 16, 7, 7), 16),
    ((1, 40, 3, 14), 40),
    ((2, 20, 4, 5), 20),
    ((1, 16, 4, 3), 16),
    ((1, 16, 33), 18),
    ((1, 8, 3, 4, 18), 8),
)


@pytest.mark.parametrize(("mcpu", "threads"), [("host", 2), ("x86-64-v3", 1)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16", "bfloat16"])
def test_what_is_moved_is_exact(dtype: str, mcpu: str, threads: int) -> None:
    rng = np.random.default_rng(0)
    b, outputs, feeds = GraphBuilder("moves"), {}, {}
    for i, (shape, k) in enumerate(CASES):
        rank = len(shape) - 2
        x = b.input(f"x{i}", TensorType(shape, dtype))
        # One tap: what comes out is what goes in, channel by channel. Padded, so that blocks have halos.
        w = np.zeros((k, shape[1], *(3,) * rank))
        for channel in range(k):
            w[(channel, channel % shape[1], *(1,) * rank)] = 1
        pads = (1,) * 2 * rank
        feeds[x] = rng.integers(0, 256, shape).astype(numpy_dtype(dtype))
        if dtype == "uint8":
            rest = [
                b.constant(np.zeros(k, np.int32), f"b{i}"),
                b.constant(np.ones(k, np.float32), f"f{i}"),
            ]
            operands = [x, b.constant(w.astype(np.int8), f"w{i}"), *rest]
            form = QuantizedConvAttributes(pads=pads, pad=7)
            outputs[f"y{i}"] = b.add("conv_quantized", operands, form, f"y{i}")
        else:
            outputs[f"y{i}"] = b.add(
                "conv",
                [x, b.constant(w.astype(numpy_dtype(dtype)), f"w{i}")],
                ConvAttributes(pads=pads),
                f"y{i}",
            )
    graph = b.finish(outputs)
    compiled = compile(
        graph, threads=threads, mcpu=mcpu, algo="auto" if dtype == "uint8" else "direct"
    )
    got, exact = compiled.run(feeds), interpret(graph, feeds)
    for name in outputs:
        np.testing.assert_array_equal(got[name].astype(np.float32), exact[name], err_msg=name)
    moves = {s.reason.split(" -> ")[0] for s in compiled.manifest.steps if s.op == "reorder"}
    assert "plain" in moves
    assert moves & {"nchw16c", "nchw8c"}


@pytest.mark.parametrize(("first", "middle"), [("direct", 3), ("inner_product", 8)])
@pytest.mark.parametrize("shape", [(2, 20, 5, 40), (1, 16, 7, 7), (1, 24, 33)])
def test_blocks_of_one_channel_are_moved_like_plain_order(
    shape: tuple[int, ...], first: str, middle: int
) -> None:
    """A padded layer of three channels reads NCHW1c, from one that writes blocks; what `inner_product` writes so goes into blocks."""
    rng = np.random.default_rng(0)
    rank, b = len(shape) - 2, GraphBuilder("few")
    x = b.input("x", TensorType(shape, "float32"))
    near = rng.integers(-3, 4, (middle, shape[1], *(1,) * rank)).astype(np.float32)
    wide = rng.integers(-3, 4, (24, middle, *(3,) * rank)).astype(np.float32)
    few = b.add("conv", [x, b.constant(near, "w")], ConvAttributes(), "few")
    y = b.add("conv", [few, b.constant(wide, "v")], ConvAttributes(pads=(1,) * 2 * rank), "y")
    graph = b.finish({"y": y})
    compiled = compile(graph, threads=1, algo_for={"few": first, "y": "direct"})
    feeds = {x: rng.integers(-8, 9, shape).astype(np.float32)}
    np.testing.assert_array_equal(compiled.run(feeds)["y"], interpret(graph, feeds)["y"])
    moved = r"reorder_(\d+_1|1_\d+)_"
    assert any(re.match(moved, step.symbol) for step in compiled.manifest.steps)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    "shape", [(2, 40, 5, 7), (1, 160, 14, 14), (1, 24, 3, 5, 6), (1, 33, 2, 9)]
)
def test_rows_of_a_dense_image_are_moved_exactly(
    shape: tuple[int, ...], dtype: str, threads: int
) -> None:
    """No border parts a 1x1 layer's rows: they are moved as one, but by two threads where blocks are few."""
    rng = np.random.default_rng(0)
    b = GraphBuilder("rows")
    x = b.input("x", TensorType(shape, dtype))
    w = np.eye(shape[1], dtype=numpy_dtype(dtype)).reshape(
        *shape[:2][1:] * 2, *(1,) * (len(shape) - 2)
    )
    y = b.add("conv", [x, b.constant(w, "w")], ConvAttributes(), "y")
    compiled = compile(b.finish({"y": y}), threads=threads, algo="direct")
    data = rng.integers(-9, 10, shape).astype(numpy_dtype(dtype))
    np.testing.assert_array_equal(compiled.run({x: data})["y"], data)
    moves = [s for s in compiled.manifest.steps if s.op == "reorder"]
    assert len(moves) == 2
