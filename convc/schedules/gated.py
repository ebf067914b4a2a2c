"""Gated: a layer whose data are scaled channel by channel has its weights scaled instead, where they are fewer (squeeze-excitation).

Rewrite:
    %g = mul(%x, %s);  %y = conv(%g, %w)      (s of shape (N, C, 1, 1): a pass over the map, then the layer)
    -->
    v[n, k, c] = w[k, c] s[n, c];  y = conv of image n with v[n]      (a pass over the packed weights, which then lie in L2)
Unless:
    %g has another reader or is a graph output; the layer is not `direct`, in one group, with constant float32 weights; its weights are
    not fewer than its data

Measured on one core of an Intel Xeon (Emerald Rapids): 144 channels at 56 x 56, to 24: the pass over the map takes 134 us, that over
the weights 2; 240 channels at 28 x 28, to 40: 28 and 4 us.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from tvm import te

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.types import Shape
from convc.schedules.algorithm import Problem
from convc.schedules.backend import Backend
from convc.schedules.plan import Chain, Choice
from convc.schedules.policy import Policy

__all__ = ["ALGORITHM", "NAME", "gate_of", "gated_layers", "joins", "scaled_weights"]

NAME: Final = "gated"

# The algorithm whose kernel takes weights of each image, see the knob `per_image`.
ALGORITHM: Final = "direct"

# Weights of a layer, as a part of its data, up to which they are scaled instead: the data are still in L2, the weights come from beyond.
# Measured: a twentieth takes 4 us instead of 28; two fifths (480 -> 80 channels at 14 x 14) 13 instead of 11. Nothing in between was.
_FEWER: Final = 0.25


def gated_layers(
    graph: Graph,
    problems: Mapping[str, Problem],
    choices: Mapping[str, Choice],
    backend: Backend,
    policy: Policy,
) -> tuple[Chain, ...]:
    """Return the multiplications and layers that become one, as chains of two nodes.

    Args:
        graph: after all passes.
        problems: of the convolutions that may be.
        choices: what each runs.
        backend: of the target.
        policy: what the choice may be of.
    """
    if not backend.chains or not policy.allows(NAME) or policy.require:
        return ()
    found = []
    for node in graph.nodes:
        if node.name not in problems or choices[node.name].algorithm != ALGORITHM:
            continue
        gate = graph[node.inputs[0]]
        problem = problems[node.name]
        if not joins(graph, gate, node, problem):
            continue
        weights = math.prod(problem.spec.weight) * problem.spec.data[0]
        data = math.prod(problem.spec.data)
        if weights > _FEWER * data:
            continue
        reason = f"'{gate.name}' scales its {weights} weights, not its {data} data"
        found.append(Chain((gate.name, node.name), {}, reason, NAME))
    return tuple(found)


def joins(graph: Graph, gate: Node, layer: Node, problem: Problem) -> bool:
    """Whether a node scales the channels of nothing but a layer's data, and the layer can scale its weights instead."""
    return _scales_channels(graph, gate, layer) and _takes_scaled(problem)


def gate_of(graph: Graph, gate: Node) -> tuple[str, str]:
    """Return the data and the scale that a multiplication's operands are.

    Example:
        >>> from convc.ir.text import parse
        >>> text = "graph @g { %s = input : f32[1,8,1,1] %x = input : f32[1,8,4,4] %g = mul(%s, %x) return %g }"
        >>> graph = parse(text)
        >>> gate_of(graph, graph["g"])
        ('x', 's')
    """
    first, second = gate.inputs
    return (first, second) if graph[first].type == gate.type else (second, first)


def _scales_channels(graph: Graph, gate: Node, reader: Node) -> bool:
    if gate.op != "mul" or gate.name in graph.output_values or graph.users[gate.name] != (reader,):
        return False
    if reader.inputs.count(gate.name) != 1 or len(gate.type.shape) != 4:
        return False
    data, scale = (graph[name] for name in gate_of(graph, gate))
    shape = (*gate.type.shape[:2], 1, 1)
    return data.type == gate.type and scale.type.shape == shape and scale.op != CONSTANT


def _takes_scaled(problem: Problem) -> bool:
    spec = problem.spec
    plain = spec.dtype == "float32" and not problem.stored and not problem.dual
    return plain and problem.constant_weight and spec.group == 1 and spec.rank == 2


def scaled_weights(packed: Shape, images: int) -> list[te.Tensor]:
    """Return packed weights [K/(v b)][C/a][R][S][a][v b], scale [N][C/a][1][1][a], and the weights of every image.

    Args:
        packed: shape of the weights, as `direct` packs them.
        images: N.
    """
    w = te.placeholder(packed, "float32", name="weight")
    s = te.placeholder((images, packed[1], 1, 1, packed[-2]), "float32", name="scale")

    def scaled(n: Any, k: Any, c: Any, r: Any, t: Any, i: Any, lane: Any) -> Any:
        return w(k, c, r, t, i, lane) * s(n, c, 0, 0, i)

    return [w, s, te.compute((images, *packed), scaled, name="scaled")]
