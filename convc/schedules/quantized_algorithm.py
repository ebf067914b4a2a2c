"""What an algorithm for layers of bytes is, and which one of a target's computes a layer."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops.quantized import QuantizedConvAttributes, quantized_spec
from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Operands
from convc.schedules.backend import backend_of
from convc.schedules.layout import View
from convc.schedules.plan import Candidate, Knobs, Plan, Unsupported
from convc.target import Target

if TYPE_CHECKING:
    from tvm import te

__all__ = ["LOOPS", "QuantizedAlgorithm", "Taken", "quantized_layer"]

# What computes a layer that no algorithm takes: its definition as it reads.
LOOPS: Final = "plain loops"


class QuantizedAlgorithm(Protocol):
    """A way to compute a layer of bytes, `conv_quantized`; a module may be one, and a class inherits what most of them answer.

    Specs are those of `quantized_spec`, behind `posed`. THE SCHEDULE is the backend's under the same name.
    """

    name: str

    def posed(self, spec: ConvSpec) -> ConvSpec:
        """Return the geometry that the algorithm computes in a layer's place: the same products, seen otherwise."""
        return spec

    def supports(self, spec: ConvSpec, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        ...

    def knobs(self, spec: ConvSpec, target: Target) -> Knobs:
        """Return the knobs that the analytic model thinks best."""
        ...

    def space(self, spec: ConvSpec, target: Target) -> Iterable[Knobs]:
        """Return the settings that may be faster than the model thinks."""
        ...

    def cycles(self, spec: ConvSpec, target: Target, knobs: Knobs) -> float:
        """Return the estimated cycles."""
        ...

    def operands(self, spec: ConvSpec, target: Target, knobs: Knobs) -> Operands:
        """Return the layouts; what the data's border holds is the layer's `pad`."""
        ...

    def pack(self, weight: np.ndarray, spec: ConvSpec, knobs: Knobs) -> np.ndarray:
        """Return int8 weights as the kernel reads them."""
        ...

    def compute(
        self, spec: ConvSpec, attributes: QuantizedConvAttributes, target: Target, knobs: Knobs
    ) -> Sequence[te.Tensor]:
        """Return the tensor expressions: data, weight, bias, factor, what is added, result."""
        ...

    def of_layer(
        self, spec: ConvSpec, attributes: QuantizedConvAttributes, knobs: Knobs, factor: np.ndarray | None, target: Target
    ) -> Knobs:  # fmt: skip
        """Return further knobs, which the layer's form and its scales decide; None where these are known at run time only."""
        return {}

    def as_read(self, view: View, knobs: Knobs) -> View:
        """Return the data as the kernel reads them."""
        return view

    def reason(self, knobs: Knobs) -> str:
        """Return how the kernel multiplies."""
        ...

    def remark(self, knobs: Knobs, target: Target) -> str:
        """Return what a user is told of a slow kernel behind the names of its layers, "" if it is none."""
        return ""


@dataclass(frozen=True, slots=True)
class Taken:
    """A layer of bytes with what computes it.

    Attributes:
        spec: its geometry.
        algorithm: None for plain loops.
        knobs: of the algorithm.
        candidates: all algorithms of the target with the time that they would take, or why they do not.
    """

    spec: ConvSpec
    algorithm: QuantizedAlgorithm | None
    knobs: Knobs
    candidates: tuple[Candidate, ...]

    @property
    def posed(self) -> ConvSpec:
        """The geometry that the algorithm computes."""
        return self.spec if self.algorithm is None else self.algorithm.posed(self.spec)


def quantized_layer(
    graph: Graph, node: Node, target: Target, plan: Plan | None = None
) -> Taken | None:
    """Return what computes a node; None for all nodes but layers of bytes.

    The algorithm and setting that a plan has for it, as a check of a device asks for; else what the model finds fastest.
    """
    attributes = node.attributes
    if not isinstance(attributes, QuantizedConvAttributes):
        return None
    data, *constants = graph.operands(node)[: 3 if attributes.dynamic else 4]
    spec = quantized_spec(data.type, constants[0].type, attributes)
    if any(n.op != CONSTANT for n in constants):
        why = "weights, bias and factor must be constants"
        rows = (Candidate(row.name, why, {}, None) for row in backend_of(target).quantized)
        return Taken(spec, None, {}, tuple(rows))
    taken = _taken(spec, target)
    choice = plan.choices.get(node.name) if plan else None
    if choice is None:
        return taken
    row = next(row for row in backend_of(target).quantized if row.name == choice.algorithm)
    return replace(taken, algorithm=row, knobs=choice.knobs)


# A device's model is asked for a thousand settings of a layer, and memory orders, kernels and reports ask for each layer.
@functools.lru_cache(maxsize=512)
def _taken(spec: ConvSpec, target: Target) -> Taken:
    best: tuple[float, QuantizedAlgorithm, Knobs] | None = None
    candidates = []
    backend = backend_of(target)
    for row in backend.quantized:
        posed = row.posed(spec)
        if (refused := row.supports(posed, target)) is not None:
            candidates.append(Candidate(row.name, refused.reason, {}, None))
            continue
        knobs = row.knobs(posed, target)
        seconds = backend.estimate(lambda t, row=row, s=posed, k=knobs: row.cycles(s, t, k), target)
        candidates.append(Candidate(row.name, row.reason(knobs), knobs, seconds))
        if best is None or seconds < best[0]:
            best = seconds, row, knobs
    algorithm, knobs = best[1:] if best else (None, {})
    return Taken(spec, algorithm, knobs, tuple(candidates))
