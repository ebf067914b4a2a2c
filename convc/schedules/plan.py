"""Plan: per layer the algorithm, its knobs, and why. Pure data: what tuning makes, logs store and reports show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = ["Candidate", "Chain", "Choice", "Knobs", "Plan", "Source", "Unsupported"]

Knobs: TypeAlias = Mapping[str, int]
Source: TypeAlias = Literal["record", "neighbour", "estimate", "lock"]


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Why an algorithm does not take a convolution."""

    reason: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """One algorithm's answer for one layer: an estimate with knobs, or the reason it cannot."""

    algorithm: str
    reason: str
    knobs: Knobs
    seconds: float | None

    @property
    def applies(self) -> bool:
        return self.seconds is not None


@dataclass(frozen=True, slots=True)
class Choice:
    """What one layer will run, and every candidate that was considered.

    `source` is what the choice rests on: a record of this layer, one of a like layer, or the cost model; `because` says why not more.
    `otherwise` is convc's own, that stands beside a library's call for devices that refuse it; None: that is an error there.
    """

    algorithm: str
    knobs: Knobs
    reason: str
    candidates: tuple[Candidate, ...] = ()
    source: Source = "estimate"
    because: str = ""
    otherwise: Choice | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """Nodes that run as one step: their names, first to last, its knobs, why, and of which kind, see `chain_kinds`."""

    layers: tuple[str, ...]
    knobs: Knobs
    reason: str
    kind: str = "bottleneck"


@dataclass(frozen=True, slots=True)
class Plan:
    """Choices by node name; the layers of `chains` run as those say, and as their choices do only if a chain is taken out.

    `gradients` are those of weight gradients, `operations` those of other ops that there is another way to compute than their own, of
    which there are no records.
    """

    choices: Mapping[str, Choice]
    chains: tuple[Chain, ...] = field(default=())
    gradients: Mapping[str, Choice] = field(default_factory=dict)
    operations: Mapping[str, Choice] = field(default_factory=dict)

    def __getitem__(self, node: str) -> Choice:
        for choices in (self.choices, self.gradients):
            if node in choices:
                return choices[node]
        return self.operations[node]

    @property
    def layers(self) -> Mapping[str, Choice]:
        """Those that there may be records of: convolutions and weight gradients."""
        return {**self.choices, **self.gradients}

    @property
    def untuned(self) -> tuple[tuple[str, Choice], ...]:
        """The layers whose choice rests on no record of their own."""
        return tuple((n, c) for n, c in self.layers.items() if c.source not in ("record", "lock"))
