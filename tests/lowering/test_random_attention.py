"""Random blocks of attention on whole numbers, bit by bit: heads, masks of every shape, windows, tokens and images, outputs in between."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from convc.compiler import compile
from convc.frontend import dsl as cc
from convc.frontend.dsl import Tensor
from convc.ir.reference import interpret
from tests.lowering.module_steps import poison_arena
from tests.tolerance import assert_exact

# Extents of tokens and channels: one, primes, less than a vector, whole ones, tails of one element and of one less.
TOKENS = (1, 2, 6, 9, 12, 16, 20, 33, 49)
CHANNELS = (1, 3, 7, 15, 16, 17, 30, 32, 48)
SEEDS = [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 300))]


class Blocks:
    """A graph of whole numbers being made; a clip after each sum of products keeps them exact in float32."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.given: dict[str, np.ndarray] = {}
        self.between: list[Tensor] = []

    def one_of(self, values: Sequence[int]) -> int:
        return int(self.random.choice(values))

    def chance(self, p: float) -> bool:
        return bool(self.random.random() < p)

    def whole(self, *shape: int) -> np.ndarray:
        return self.random.integers(-2, 3, shape).astype(np.float32)

    def input(self, *shape: int) -> Tensor:
        name = f"x{len(self.given)}"
        self.given[name] = self.whole(*shape)
        return cc.input(name, shape)

    def broadcast(self, shape: Sequence[int]) -> Tensor | np.ndarray:
        """Return an operand that broadcasts to a shape, known or not."""
        own = [1 if self.chance(0.4) else n for n in shape]
        while len(own) > 1 and self.chance(0.3):
            own = own[1:]
        return self.whole(*own) if self.chance(0.5) else self.input(*own)

    def kept(self, x: Tensor) -> Tensor:
        if self.chance(0.1):
            self.between.append(x)
        return x

    def linear(self, x: Tensor, outputs: int | None = None) -> Tensor:
        outputs = outputs or self.one_of(CHANNELS)
        y = cc.matmul(x, self.whole(x.shape[-1], outputs))
        if self.chance(0.6):
            y = y + self.whole(outputs)
        return self.kept(cc.clip(y, -2, 2))

    def pointwise(self, x: Tensor) -> Tensor:
        other = self.broadcast(x.shape)
        y = x * other if self.chance(0.4) else x - other if self.chance(0.5) else other + x
        return cc.clip(y, -2, 2) if self.chance(0.7) else cc.relu(cc.clip(y, -3, 2))

    def heads(self, x: Tensor) -> list[Tensor]:
        b, n, _ = x.shape
        h, d = self.one_of((1, 2, 3)), self.one_of((1, 7, 15, 16, 17, 30))
        style = self.one_of((0, 1, 2))
        if style == 0:
            parts = [cc.reshape(self.linear(x, h * d), (b, n, h, d)) for _ in range(3)]
        elif style == 1:
            packed = cc.reshape(self.linear(x, 3 * h * d), (b, n, 3, h, d)).transpose(2, 0, 3, 1, 4)
            return [cc.reshape(packed[i : i + 1], (b, h, n, d)) for i in range(3)]
        else:
            packed = self.linear(x, 3 * h * d)
            cut = [packed[:, :, i * h * d : (i + 1) * h * d] for i in range(3)]
            parts = [cc.reshape(part, (b, n, h, d)) for part in cut]
        return [self.kept(part.transpose(0, 2, 1, 3)) for part in parts]

    def attention(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        b, h, n, d = q.shape
        if self.chance(0.3):
            q = q * 2.0
        scores = cc.matmul(q, k.transpose(0, 1, 3, 2))
        if self.chance(0.5):
            scores = scores * (0.5 if self.chance(0.5) else self.whole(h, 1, 1))
        for _ in range(self.one_of((0, 1, 2))):
            scores = scores + self.broadcast(scores.shape)
        if self.chance(0.3):
            windows = self.one_of([i for i in (1, 2, 3) if b % i == 0])
            shape = (b // windows, windows, h, n, n)
            scores = cc.reshape(scores, shape) + self.broadcast((1, windows, 1, n, n))
            scores = cc.reshape(scores, (b, h, n, n))
        y = cc.matmul(self.kept(cc.clip(scores, -2, 2)), v).transpose(0, 2, 1, 3)
        y = self.linear(cc.reshape(y, (b, n, h * d)), x.shape[-1])
        return cc.clip(x + y, -2, 2) if self.chance(0.7) else y

    def image(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        height = self.one_of([i for i in range(1, n + 1) if n % i == 0])
        area = (height, n // height)
        if self.chance(0.5):
            y = cc.reshape(x.transpose(0, 2, 1), (b, c, *area))
        else:
            y = cc.reshape(x, (b, *area, c)).transpose(0, 3, 1, 2)
        if self.chance(0.5):
            y = cc.conv2d(y, self.whole(c, 1, 3, 3), pads=1, group=c)
        elif self.chance(0.5):
            y = cc.conv2d(y, self.whole(self.one_of(CHANNELS), c, 1, 1))
        y = self.kept(cc.clip(y, -2, 2))
        if self.chance(0.5):
            return cc.reshape(y, (b, y.shape[1], n)).transpose(0, 2, 1)
        return cc.reshape(y.transpose(0, 2, 3, 1), (b, n, y.shape[1]))

    def windows(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        rows = self.one_of([i for i in range(1, n + 1) if n % i == 0])
        columns = n // rows
        y = cc.reshape(x, (b, rows, columns, c))
        shift = self.one_of(range(columns))
        if shift:
            y = cc.concat([y[:, :, shift:], y[:, :, :shift]], axis=2)
        tall = self.one_of([i for i in range(1, rows + 1) if rows % i == 0])
        wide = self.one_of([i for i in range(1, columns + 1) if columns % i == 0])
        y = cc.reshape(y, (b, rows // tall, tall, columns // wide, wide, c))
        y = y.transpose(0, 1, 3, 2, 4, 5)
        return cc.reshape(y, (b * (n // (tall * wide)), tall * wide, c))


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_are_exact(seed):
    blocks = Blocks(seed)
    x = blocks.input(blocks.one_of((1, 2, 3, 4)), blocks.one_of(TOKENS), blocks.one_of(CHANNELS))
    makers = (blocks.linear, blocks.pointwise, blocks.attention, blocks.attention, blocks.image)
    for _ in range(blocks.one_of((2, 3, 4, 5))):
        make = (*makers, blocks.windows)[blocks.one_of(range(len(makers) + 1))]
        x = make(x)
    outputs = {"y": x, **{f"between{i}": t for i, t in enumerate(blocks.between)}}
    graph = cc.graph(outputs)
    threads = 1 + seed % 2
    module = compile(graph, threads=threads, algo="direct").load(threads=threads)
    expected = interpret(graph, blocks.given)
    for _ in range(2):
        actual = module.run(blocks.given)
        for name, array in expected.items():
            assert_exact(actual[name], array)
        poison_arena(module)
