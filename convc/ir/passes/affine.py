"""What a chain of mul, div, add and sub by constants does to each channel, in float64: a whole chain is rounded once, at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops.definition import Array
from convc.ir.passes.channels import is_per_channel

__all__ = ["IDENTITY", "Affine", "follow", "is_finite"]


@dataclass(frozen=True, slots=True)
class Affine:
    """y -> scale * y + shift, in float64; each is one number for all channels, (1,), or one per channel, (K,)."""

    scale: Array
    shift: Array

    def then(self, op: str, c: Array, *, constant_first: bool) -> Affine | None:
        """Return this followed by an elementwise op with the constant `c`; None if that is not affine."""
        match op, constant_first:
            case "mul", _:
                return Affine(self.scale * c, self.shift * c)
            case "div", False:
                return Affine(self.scale / c, self.shift / c)
            case "add", _:
                return Affine(self.scale, self.shift + c)
            case "sub", False:
                return Affine(self.scale, self.shift - c)
            case "sub", True:
                return Affine(-self.scale, c - self.shift)
        return None


IDENTITY: Final = Affine(np.ones(1), np.zeros(1))


def follow(graph: Graph, affine: Affine, value: Node, node: Node) -> Affine | None:
    """Return `affine`, whose result is `value`, followed by `node`, which reads it.

    None unless the other operand is a constant that is a scalar or per channel, and broadcasting changes no type.
    """
    if len(node.inputs) != 2 or node.inputs[0] == node.inputs[1] or node.type != value.type:
        return None
    constant_first = node.inputs[1] == value.name
    other = graph[node.inputs[0 if constant_first else 1]]
    if other.op != CONSTANT or not is_per_channel(other.type.shape, value.type):
        return None
    c = other.value.astype(np.float64).reshape(-1)
    return affine.then(node.op, c, constant_first=constant_first)


def is_finite(array: Array) -> bool:
    """Whether all elements are finite; bfloat16 has no isfinite of its own."""
    return bool(np.isfinite(array.astype(np.float64)).all())
