"""Chains: which expand, depthwise and project layers of a graph run as one kernel, see `bottleneck`.

Rewrite:
    %e = conv(%x, %w1);  %d = conv(%e, %w2) {group = 96};  %y = conv(%d, %w3)      (three kernels, e and d in memory)
    -->
    [%e %d %y]                                                                   (one)
Unless:
    e or d has another reader or is a graph output; a layer is pinned, or was measured by itself, which an estimate cannot be
    compared with; the model does not find one kernel faster than its layers
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from convc.ir.graph import CONSTANT, Graph, Node
from convc.schedules import bottleneck_model as model
from convc.schedules.algorithm import Problem
from convc.schedules.backend import Backend
from convc.schedules.bottleneck import Bottleneck
from convc.schedules.plan import Chain, Unsupported
from convc.schedules.policy import Policy
from convc.target import Target

__all__ = ["NAME", "chain_problem", "chains_of"]

NAME: Final = "bottleneck"

# What a kernel costs beside its work, in seconds: the launch on several threads; zeros around the data of a padded layer, a kernel
# of their own, on one thread and on several. Measured on an Intel Xeon: 3 us, and 85 and 169 us for the 18 of a MobileNetV2.
_LAUNCH: Final = 3e-6
_BORDER: Final = (5e-6, 9e-6)

# The model is not better than this.
_GAIN: Final = 0.97


def chains_of(
    graph: Graph,
    problems: Mapping[str, Problem],
    backend: Backend,
    target: Target,
    policy: Policy,
) -> tuple[Chain, ...]:
    """Return the chains that are estimated faster than their layers.

    Args:
        graph: after all passes.
        problems: of the layers that may be part of one.
        backend: of the target.
        target: the machine.
        policy: what the choice may be of.
    """
    if not backend.chains or not policy.allows(NAME) or policy.require:
        return ()
    options = []
    for node in graph.nodes:
        middle = problems.get(node.name)
        if middle is None or not 1 < middle.spec.group == middle.spec.in_channels:
            continue
        for layers in _candidates(graph, node, problems):
            option = _chain(layers, problems, backend, target, policy)
            options += [option] if option is not None else []
    # A pointwise layer between two depthwise ones (MobileNetV1) could end one chain or begin the other: the greater gain first.
    taken: set[str] = set()
    found = []
    for _, chain in sorted(options, key=lambda option: -option[0]):
        if taken.isdisjoint(chain.layers):
            taken.update(chain.layers)
            found.append(chain)
    order = {node.name: i for i, node in enumerate(graph.nodes)}
    return tuple(sorted(found, key=lambda chain: order[chain.layers[0]]))


def _candidates(graph: Graph, middle: Node, problems: Mapping[str, Problem]) -> list[list[str]]:
    """Return the names of layers that could be one chain around a depthwise one: with its expansion, its projection, both."""
    before = graph[middle.inputs[0]]
    expands = before.name in problems and _only_reader(graph, before, middle)
    readers = graph.users[middle.name]
    after = readers[0] if readers else None
    projects = (
        after is not None
        and after.name in problems
        and after.inputs[0] == middle.name
        and _only_reader(graph, middle, after)
    )
    firsts = ([before.name], []) if expands else ([],)
    lasts = ([after.name], []) if projects and after is not None else ([],)
    return [[*first, middle.name, *last] for first in firsts for last in lasts if first or last]


def _only_reader(graph: Graph, value: Node, reader: Node) -> bool:
    """Whether nothing but one operand of `reader` needs the value."""
    once = graph.users[value.name] == (reader,) and reader.inputs.count(value.name) == 1
    return once and value.op != CONSTANT and value.name not in graph.output_values


def _chain(
    layers: Sequence[str],
    problems: Mapping[str, Problem],
    backend: Backend,
    target: Target,
    policy: Policy,
) -> tuple[float, Chain] | None:
    """Return the seconds that a chain saves and itself, if it is possible, allowed and saves any."""
    posed = chain_problem([problems[name] for name in layers])
    if isinstance(model.supports(posed, target), Unsupported):
        return None
    knobs = model.knobs(posed, target)
    limit = policy.workspace_limit
    if limit is not None and model.workspace(posed, knobs) > limit:
        return None
    several = target.cores > 1
    apart = backend.seconds(model.cycles_apart(posed, target, knobs), target)
    apart += _LAUNCH * several * (len(layers) - 1)
    if posed.expand is not None and any(posed.depthwise.spec.pads):
        apart += _BORDER[several]
    together = backend.seconds(model.cycles(posed, target, knobs), target)
    if together > _GAIN * apart:
        return None
    others = " and ".join(f"'{name}'" for name in layers[:-1])
    reason = (
        f"one kernel with {others}, estimated {apart / together:.2f} x faster than {len(layers)}"
    )
    return apart - together, Chain(tuple(layers), knobs, reason)


def chain_problem(layers: Sequence[Problem]) -> Bottleneck:
    """Return the problem of two or three layers, of which one is depthwise."""
    layers = [layer.widened for layer in layers]
    at = next(i for i, p in enumerate(layers) if p.spec.group > 1)
    before, after = layers[:at], layers[at + 1 :]
    return Bottleneck(before[0] if before else None, layers[at], after[0] if after else None)
