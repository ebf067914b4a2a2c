"""Dense layers and matrix products by one kernel, bit by bit on whole numbers: weights known, or packed by a step of each run."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.frontend import dsl as cc
from convc.ir.reference import interpret
from tests.tolerance import assert_exact

# (rows, depth, outputs): one row, tails of every tile, whole vectors, a sum shorter than a tile of the packing.
# The second: rows 4096 bytes apart.
SIZES = [(1, 7, 5), (19, 1024, 20), (8, 33, 10), (5, 20, 48), (20, 30, 100), (3, 40, 32), (1, 9, 64), (9, 12, 64)]  # fmt: skip

# Outputs of a stack of products: less than a vector, whole tiles, a tail.
BOTH = (4, 64, 100)


def whole(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape) + sum(shape)).integers(-4, 5, shape).astype(np.float32)


@pytest.fixture(scope="module")
def run():
    outputs, inputs = {}, {}

    def given(name, *shape):
        inputs[name] = whole(*shape)
        return cc.input(name, shape)

    for m, c, k in SIZES:
        x, at = given(f"x{m}.{c}.{k}", m, c), f"{m}.{c}.{k}"
        bias, residual = given(f"b{at}", k), given(f"r{at}", m, k)
        w, v = given(f"w{at}", k, c), given(f"v{at}", c, k)
        outputs[f"dense {at}"] = cc.relu(cc.dense(x, w, bias) + residual)
        outputs[f"matmul {at}"] = cc.matmul(x, v)
        outputs[f"known {at}"] = cc.matmul(x, whole(c, k))
    stack = given("stack", 2, 3, 6, 20)
    outputs["stack"] = cc.matmul(stack, given("right", 20, 17))
    outputs["stack, known"] = cc.matmul(stack, whole(20, 17))
    for k in BOTH:
        outputs[f"both stacks {k}"] = cc.matmul(stack, given(f"rights{k}", 2, 3, 20, k))
    outputs["both stacks, known"] = cc.matmul(stack, whole(2, 3, 20, 40))
    outputs["leading ones"] = cc.matmul(stack, given("one", 1, 1, 20, 5))
    outputs["repeated"] = cc.matmul(stack, given("three", 3, 20, 5))
    scores = cc.matmul(given("q", 5, 3, 7, 15), given("k", 5, 3, 15, 20))
    mask, bias = given("mask", 5, 1, 7, 20), given("by head", 3, 1, 1)
    outputs["scale and masks"] = scores * bias + mask + given("position", 1, 3, 7, 20)
    outputs["a factor, a row"] = cc.relu(
        cc.matmul(stack, whole(20, 33)) * 0.5 + given("row", 33) + given("along", 2, 1, 6, 1)
    )
    outputs["shared data"] = cc.matmul(given("left", 6, 20), given("several", 2, 3, 20, 17))
    outputs["one row each"] = cc.matmul(given("rows", 4, 1, 20), given("each", 4, 20, 18))
    outputs["one row, one matrix"] = cc.matmul(given("rows2", 4, 3, 1, 20), given("m", 3, 20, 18))
    outputs["plain, scaled"] = cc.matmul(x, given("v2", *SIZES[-1][1:])) * 2.0 + given(
        "row2", SIZES[-1][2]
    )
    outputs["empty"] = cc.matmul(cc.input("nothing", (0, 4)), whole(4, 3))
    inputs["nothing"] = np.zeros((0, 4), np.float32)
    graph = cc.graph(outputs)
    model = compile(graph, threads=2)
    return model, model.run(inputs), interpret(graph, inputs)


def test_products_are_exact(run):
    _, actual, expected = run
    for name, array in actual.items():
        assert_exact(array, expected[name])


def test_which_kernel_computes_them(run):
    model, _, _ = run
    steps = model.manifest.steps
    # As they are: the dense layers of one row; of the products those of few rows or short sums in whole vectors.
    plain = [s.node for s in steps if s.op in ("dense", "matmul") and s.algorithm != "dense"]
    packs = [s.node for s in steps if s.op == "pack"]
    packed = [s.node for s in steps if s.op in ("dense", "matmul") and s.algorithm == "dense"]
    assert len(plain) + len(packed) == 3 * len(SIZES) + len(BOTH) + 11
    assert set(packs) < set(packed)
    vectors = 16 if "avx512f" in model.manifest.target.features else 8
    short = [(m, c, k) for m, c, k in SIZES if k % vectors == 0 and (m < 4 or c <= 16)]
    assert len(plain) == sum(m < 2 for m, _, _ in SIZES) + len(short) + 1
