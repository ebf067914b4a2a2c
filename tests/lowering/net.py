"""Hand-made graphs in short words, and their compiled numbers against the reference, twice, with poisoned memory between."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convc.ir import Graph, GraphBuilder, Step, TensorType
from convc.ir.ops.conv import ConvAttributes
from convc.ir.reference import interpret
from convc.ir.types import numpy_dtype
from tests.lowering.module_steps import poison_arena
from tests.tolerance import assert_exact

__all__ = ["ADD", "BIAS", "RELU", "Build", "Net", "check", "finish"]

Build = Callable[["Net"], dict[str, str] | str]
BIAS, ADD, RELU = Step("bias"), Step("add"), Step("relu")


class Net(GraphBuilder):
    """A builder with short words for what these graphs are made of."""

    def __init__(self, dtype: str = "float32") -> None:
        super().__init__("special")
        self.dtype = dtype
        self.rng = np.random.default_rng(0)

    def array(self, *shape: int) -> np.ndarray:
        return self.rng.integers(-2, 3, shape).astype(numpy_dtype(self.dtype))

    def image(self, *shape: int, name: str = "x") -> str:
        return self.input(name, TensorType(shape, self.dtype))

    def conv(
        self, x: str, k: int, r: int = 1, p: int = 0, *, name=None, steps=(), extras=(), **more
    ) -> str:
        c, rank = self.type(x).shape[1], self.type(x).rank - 2
        shape = (k, c // more.get("group", 1), *(r,) * rank)
        attributes = ConvAttributes(pads=(p,) * (2 * rank), epilogue=tuple(steps), **more)
        return self.add(
            "conv", [x, self.constant(self.array(*shape), "w"), *extras], attributes, name
        )


def finish(build: Build, dtype: str = "float32") -> Graph:
    net = Net(dtype)
    outputs = build(net)
    return net.finish({"y": outputs} if isinstance(outputs, str) else outputs)


def check(graph: Graph, module) -> None:
    rng = np.random.default_rng(1)
    for _ in range(2):
        inputs = {
            n.name: rng.integers(-3, 4, n.type.shape).astype(numpy_dtype(n.type.dtype))
            for n in graph.inputs
        }
        actual, expected = module.run(inputs), interpret(graph, inputs)
        for name in expected:
            assert actual[name].shape == expected[name].shape
            assert_exact(actual[name], expected[name])
        poison_arena(module)
