"""Aesara's answers (`aesara/README.md`): the cases, their data, and the call of `convc.nnet` that each one stands for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from convc import dsl, grad, nnet

FOLDER = Path(__file__).parent / "aesara"


def _pool_2d_grad(x: dsl.Tensor, g: dsl.Tensor, **keywords: object) -> dsl.Tensor:
    return grad([nnet.pool_2d(x, **keywords)], x, [g])


# op -> the function and its operands, in order
CALLS: Mapping[str, tuple[Callable[..., dsl.Tensor], str]] = {
    "conv2d": (nnet.conv2d, "xw"),
    "conv3d": (nnet.conv3d, "xw"),
    "conv2d_gi": (nnet.conv2d_grad_wrt_inputs, "gw"),
    "conv3d_gi": (nnet.conv3d_grad_wrt_inputs, "gw"),
    "conv2d_gw": (nnet.conv2d_grad_wrt_weights, "xg"),
    "conv3d_gw": (nnet.conv3d_grad_wrt_weights, "xg"),
    "conv2d_transpose": (nnet.conv2d_transpose, "xw"),
    "separable_conv2d": (nnet.separable_conv2d, "xdp"),
    "separable_conv3d": (nnet.separable_conv3d, "xdp"),
    "causal_conv1d": (nnet.causal_conv1d, "xw"),
    "conv3d2d": (nnet.conv3d2d.conv3d, "xw"),
    "bilinear_upsampling": (nnet.bilinear_upsampling, "x"),
    "pool_2d": (nnet.pool_2d, "x"),
    "pool_3d": (nnet.pool_3d, "x"),
    "pool_2d_grad": (_pool_2d_grad, "xg"),
    "log_softmax": (nnet.logsoftmax, "x"),
}
# Operands that are weights: known at compile time, unless a test wants them as inputs.
WEIGHTS = "wdp"


def _tuples(value: object) -> object:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


@dataclass(frozen=True, eq=False)
class Case:
    """One of Aesara's answers.

    Attributes:
        id: key of the answer.
        op: key of CALLS.
        shapes: operand -> shape.
        keywords: of the call.
        seed: of the operands.
    """

    id: str
    op: str
    shapes: Mapping[str, tuple[int, ...]]
    keywords: Mapping[str, object]
    seed: int

    def arrays(self) -> dict[str, np.ndarray]:
        rng = np.random.RandomState(self.seed)
        return {name: rng.standard_normal(shape) for name, shape in sorted(self.shapes.items())}

    def call(self, operands: Mapping[str, object]) -> dsl.Tensor:
        function, names = CALLS[self.op]
        return function(*(operands[n] for n in names), **self.keywords)

    @property
    def answer(self) -> np.ndarray:
        return _answers()[self.id]


@cache
def _answers() -> Mapping[str, np.ndarray]:
    with np.load(FOLDER / "outputs.npz") as file:
        return dict(file)


@cache
def cases() -> tuple[Case, ...]:
    rows = json.loads((FOLDER / "cases.json").read_text(encoding="utf-8"))
    return tuple(
        Case(
            r["id"],
            r["op"],
            {n: tuple(s) for n, s in r["inputs"].items()},
            {k: _tuples(v) for k, v in r["kw"].items()},
            r["seed"],
        )
        for r in rows
    )


def sample(rows: Sequence[Case], count: int) -> list[Case]:
    """Return the `count` cases with the lowest hashes: always the same ones."""
    return sorted(rows, key=lambda c: hashlib.sha256(c.id.encode()).digest())[:count]
