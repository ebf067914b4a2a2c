"""Gradients of compiled modules against PyTorch's autograd: another implementation's opinion, where it is installed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

import convc
from convc import dsl as cc
from convc.frontend.dsl.tensor import Tensor

torch = pytest.importorskip("torch")
F = torch.nn.functional
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Layer:
    """A convolution in both languages; `pads` are alike on both sides, as PyTorch has them."""

    data: tuple[int, ...]
    weight: tuple[int, ...]
    transposed: bool = False
    strides: int = 1
    pads: int = 0
    dilations: int = 1
    group: int = 1
    more: dict[str, int] = field(default_factory=dict)

    def ours(self, x: Tensor, w: Tensor) -> Tensor:
        rank = len(self.data) - 2
        name = f"conv_transpose{rank}d" if self.transposed else f"conv{rank}d"
        geometry = {"strides": self.strides, "pads": self.pads, "dilations": self.dilations}
        return getattr(cc, name)(x, w, group=self.group, **geometry, **self.more)

    def theirs(self, x, w):
        rank = len(self.data) - 2
        name = f"conv_transpose{rank}d" if self.transposed else f"conv{rank}d"
        geometry = {"stride": self.strides, "padding": self.pads, "dilation": self.dilations}
        return getattr(F, name)(x, w, groups=self.group, **geometry, **self.more)


LAYERS = [
    Layer((2, 3, 9, 8), (4, 3, 3, 3), pads=1),
    Layer((2, 8, 9, 8), (16, 8, 3, 3), strides=2, pads=1),
    Layer((2, 8, 7, 7), (12, 8, 1, 1), strides=2),
    Layer((1, 4, 11, 9), (6, 4, 5, 3), pads=2, dilations=2),
    Layer((2, 8, 6, 7), (8, 1, 3, 3), pads=1, group=8),
    Layer((2, 8, 6, 7), (12, 4, 3, 3), pads=1, group=2, strides=2),
    Layer((2, 4, 15), (8, 4, 4), strides=3, pads=1),
    Layer((1, 4, 5, 6, 7), (8, 4, 3, 3, 3), pads=1),
    Layer((1, 4, 6, 6, 6), (8, 2, 2, 2, 2), strides=2, group=2),
    Layer((2, 8, 5, 5), (8, 4, 3, 3), True, pads=1),
    Layer((2, 8, 5, 4), (8, 6, 4, 4), True, strides=2, pads=1),
    Layer((2, 4, 5, 4), (4, 3, 3, 3), True, strides=3, more={"output_padding": 2}),
]


def whole(*shape: int) -> np.ndarray:
    """Return whole numbers, of which every sum here is exact in float32."""
    return RNG.integers(-4, 5, shape).astype(np.float64)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_convolution(dtype):
    outputs, given, expected = {}, {}, {}
    for i, layer in enumerate(LAYERS):
        x, w = (cc.input(f"{n}{i}", s, dtype) for n, s in (("x", layer.data), ("w", layer.weight)))
        y = layer.ours(x, w)
        given |= {f"x{i}": whole(*x.shape), f"w{i}": whole(*w.shape)}
        seed = whole(*y.shape)
        outputs |= dict(zip((f"dx{i}", f"dw{i}"), cc.grad(y, [x, w], seed), strict=True))
        operands = [torch.tensor(given[f"{n}{i}"], requires_grad=True) for n in "xw"]
        result = layer.theirs(*operands)
        assert tuple(result.shape) == y.shape
        result.backward(torch.tensor(seed))
        expected |= {f"d{n}{i}": o.grad.numpy() for n, o in zip("xw", operands, strict=True)}
    # Winograd and FFT round; the others add whole numbers.
    model = convc.compile(cc.graph(outputs, name="gradients"), threads=1, algo="direct")
    found = model.run({n: a.astype(dtype) for n, a in given.items()})
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_a_whole_network():
    """A small residual network with batch statistics: every op that training needs, by the algorithms that convc chooses."""
    shapes = {"x": (4, 3, 16, 16), "a": (16, 3, 3, 3), "s": (16,), "t": (16,), "b": (16, 16, 3, 3), "d": (10, 16 * 64), "e": (10,)}  # fmt: skip
    arrays = {n: RNG.normal(size=s) / np.sqrt(np.prod(s[1:]) or 1) for n, s in shapes.items()}
    label = np.eye(10)[[1, 3, 5, 7]]

    p = {n: cc.input(n, s) for n, s in shapes.items()}
    h = cc.batch_norm_training(cc.conv2d(p["x"], p["a"], pads=1), p["s"], p["t"])[0]
    h = cc.max_pool2d(cc.relu(h), 2, strides=2)
    h = cc.relu(cc.conv2d(h, p["b"], pads=1) + h)
    loss = -cc.mean(cc.sum(cc.log_softmax(cc.dense(cc.flatten(h), p["d"], p["e"])) * label, 1))
    names = list(shapes)
    gradients = cc.grad(loss, [p[n] for n in names])
    graph = cc.graph({"loss": loss, **dict(zip(names, gradients, strict=True))}, name="step")
    found = convc.compile(graph, threads=1).run({n: a.astype("f") for n, a in arrays.items()})

    t = {n: torch.tensor(a, requires_grad=True) for n, a in arrays.items()}
    h = F.conv2d(t["x"], t["a"], padding=1)
    h = F.max_pool2d(F.relu(F.batch_norm(h, None, None, t["s"], t["t"], training=True)), 2)
    h = F.relu(F.conv2d(h, t["b"], padding=1) + h)
    wanted = -(F.log_softmax(F.linear(h.flatten(1), t["d"], t["e"]), 1) * torch.tensor(label)).sum(1).mean()  # fmt: skip
    wanted.backward()
    np.testing.assert_allclose(found["loss"], wanted.item(), rtol=1e-6)
    for name in names:
        exact = t[name].grad.numpy()
        # A few hundred roundings of float32, as `verify` counts them.
        assert np.abs(found[name] - exact).max() <= 2e-5 * np.abs(exact).max(), name
