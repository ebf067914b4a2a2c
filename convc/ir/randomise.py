"""Give a graph seeded random weights: for models that ship without any, whose constants are all one number.

    Rewrite:
        %w = constant splat(0.02) : f32[64,3,7,7];  %y = conv(%x, %w)
        -->
        %w = N(0, s) : f32[64,3,7,7];     %y = conv(%x, %w)        with s such that %y has standard deviation 1

The scale of every filter is measured, not assumed: the graph is run once, layer by layer, on a standard normal input, and each
filter is divided by the standard deviation of what it gives. So values neither vanish nor explode, however deep the network
and whatever its residual sums and pools do. Per-channel factors (an imported BatchNormalization) are drawn from [0.5, 1.5],
per-channel summands from N(0, 0.1). Single numbers and constants in any other place stay as they are.

SOURCE  Mishkin, Matas: All you need is a good init, 2016 (layer-sequential unit variance), algorithm 1, with Gaussian filters.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from convc.ir.graph import CONSTANT, INPUT, Graph, Node, constant
from convc.ir.ops import OPS
from convc.ir.ops.conv import ConvAttributes, ConvTransposeAttributes, DenseAttributes
from convc.ir.ops.definition import Array, Attributes
from convc.ir.ops.linear import MatmulAttributes
from convc.ir.types import numpy_dtype

__all__ = ["randomise"]

Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]

_WEIGHTED: Final = ("conv", "conv_transpose", "dense", "matmul")


def _filter(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return generator.standard_normal(shape)


def _factor(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return generator.uniform(0.5, 1.5, shape)


def _summand(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return 0.1 * generator.standard_normal(shape)


# (op, operand position) -> what a constant there is; None stands for any position not named.
_ROLES: Final[dict[tuple[str, int | None], Draw]] = {
    **{(op, 1): _filter for op in _WEIGHTED},
    ("matmul", 0): _filter,
    # Extra operands of an epilogue: a bias or a residual.
    **{(op, None): _summand for op in _WEIGHTED},
    ("mul", None): _factor,
    ("div", 1): _factor,
    ("add", None): _summand,
    ("sub", None): _summand,
}


def _role(node: Node, position: int) -> Draw | None:
    return _ROLES.get((node.op, position)) or _ROLES.get((node.op, None))


def randomise(graph: Graph, seed: int = 0) -> Graph:
    """Return the graph with random weights; same graph and seed give the same weights.

    Args:
        graph: as imported, or after any passes. Its names and types stay.
        seed: of the weights. A constant's values depend on its name as well, not on its place.

    Example:
        >>> from convc.ir.text import parse
        >>> text = "graph @g { %x = input : f32[1,8]  %w = constant splat(0.5) : f32[4,8]  %y = dense(%x, %w)  return %y }"
        >>> weight = randomise(parse(text))["w"].value
        >>> weight.shape, len(set(weight.ravel().tolist()))
        ((4, 8), 32)
    """
    drawn: dict[str, Array] = {}
    values: dict[str, Array] = {}
    last_use = {operand: node.name for node in graph.nodes for operand in node.inputs}
    for node in graph.nodes:
        if node.op == INPUT:
            values[node.name] = _input(node, _generator(seed, node.name))
        elif node.op == CONSTANT:
            values[node.name] = _widened(node.value)
        else:
            new = _draw_operands(graph, node, seed, drawn)
            values.update(new)
            drawn.update(new)
            _normalise(node, new, values, drawn)
            values[node.name] = _evaluate(node, values)
            for operand in set(node.inputs):
                if last_use[operand] == node.name:
                    del values[operand]
    nodes = (
        constant(n.name, drawn[n.name].astype(numpy_dtype(n.type.dtype))) if n.name in drawn else n
        for n in graph.nodes
    )
    return graph.with_nodes(nodes)


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng((seed, zlib.crc32(name.encode())))


def _input(node: Node, generator: np.random.Generator) -> Array:
    if node.type.is_float:
        return generator.standard_normal(node.type.shape)
    return np.zeros(node.type.shape, numpy_dtype(node.type.dtype))


def _widened(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind in "fV" else array


def _draw_operands(
    graph: Graph, node: Node, seed: int, drawn: dict[str, Array]
) -> dict[str, Array]:
    """Return new values for the constants that this node is the first to use."""
    new: dict[str, Array] = {}
    for position, operand in enumerate(graph.operands(node)):
        role = _role(node, position)
        is_weight = operand.op == CONSTANT and operand.type.is_float and operand.type.size > 1
        if role is not None and is_weight and operand.name not in drawn:
            new[operand.name] = role(_generator(seed, operand.name), operand.type.shape)
    return new


def _normalise(
    node: Node, new: dict[str, Array], values: dict[str, Array], drawn: dict[str, Array]
) -> None:
    """Divide a filter that was just drawn by the standard deviation of the node's result without its epilogue."""
    filters = [i for i in node.inputs[:2] if i in new]
    if node.op not in _WEIGHTED or not filters:
        return
    bare = replace(node, inputs=node.inputs[:2], attributes=_without_epilogue(node.attributes))
    deviation = float(_evaluate(bare, values).std())
    if deviation > 0:
        values[filters[-1]] = drawn[filters[-1]] = new[filters[-1]] / deviation


def _without_epilogue(attributes: Attributes) -> Attributes:
    layers = ConvAttributes | ConvTransposeAttributes | DenseAttributes | MatmulAttributes
    if isinstance(attributes, layers):
        return replace(attributes, epilogue=())
    return attributes


def _evaluate(node: Node, values: dict[str, Array]) -> Array:
    return OPS[node.op].reference([values[i] for i in node.inputs], node.attributes)
