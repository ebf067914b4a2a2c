"""The layers as tables: one row per layer, one per class, and one per algorithm for calibrating the cost model."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from benchmarks.layer_list import CLASSES
from benchmarks.layer_runs import AlgorithmResult, LayerResult
from benchmarks.peers import Peer
from convc.cli.render import Column, table

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "Choices",
    "Compared",
    "algorithms_table",
    "choices",
    "choices_table",
    "classes_table",
    "layers_table",
]

# Differences below it are within the noise of a measurement.
_AS_GOOD = 1.03


class Compared(Protocol):
    """A layer whose algorithms were measured."""

    @property
    def layer(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def algorithms(self) -> tuple[AlgorithmResult, ...]: ...


def _number(value: float | None, format: str) -> str:
    return "" if value is None else f"{value:{format}}"


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the geometric mean of those that exist."""
    known = [v for v in values if v is not None and v > 0]
    return statistics.geometric_mean(known) if known else None


def layers_table(results: Sequence[LayerResult], peers: Sequence[Peer]) -> Table:
    """Return one row per layer."""
    right = ("us", "GFLOP/s", "% of peak", "kernel / ORT's", "call us", *(f"/ {p.name}" for p in peers), "error")  # fmt: skip
    columns = (*map(Column, ("layer", "class", "algorithm")), *(Column(c, True) for c in right))
    rows = [
        (
            r.layer,
            r.kind,
            r.algorithm or "failed",
            _number(r.us, ".1f"),
            _number(r.gflops, ".1f"),
            _number(r.percent_of_peak, ".0f"),
            _number(r.kernel_ratio, ".2f"),
            _number(r.call_us, ".1f"),
            *("failed" if p.name in r.errors else _number(r.ratio.get(p.name), ".2f") for p in peers),
            _number(r.error, ".1e"),
        )
        for r in results
    ]  # fmt: skip
    return table(None, columns, rows)


def classes_table(results: Sequence[LayerResult], peers: Sequence[Peer]) -> Table:
    """Return one row per class that occurs: geometric means over its layers."""
    right = (
        "layers",
        "% of peak",
        "kernel / ORT's",
        *(f"/ {p.name}" for p in peers),
        "worst error",
    )
    columns = (Column("class"), *(Column(c, True) for c in right))
    rows = []
    for name, _ in CLASSES:
        those = [r for r in results if r.kind == name]
        if those:
            rows.append(
                (
                    name,
                    str(len(those)),
                    _number(_mean(r.percent_of_peak for r in those), ".0f"),
                    _number(_mean(r.kernel_ratio for r in those), ".2f"),
                    *(_number(_mean(r.ratio.get(p.name) for r in those), ".2f") for p in peers),
                    _number(max((r.error for r in those if r.error is not None), default=None), ".1e"),
                )
            )  # fmt: skip
    return table("geometric means", columns, rows)


def algorithms_table(results: Sequence[Compared]) -> Table:
    """Return one row per layer and algorithm: what the cost model thought, what was measured."""
    right = ("estimate us", "measured us", "measured / estimate", "/ fastest", "error")
    columns = (*map(Column, ("layer", "", "algorithm")), *(Column(c, True) for c in right), Column("knobs"))  # fmt: skip
    rows = []
    for result in results:
        fastest = min((a.measured for a in result.algorithms), default=0.0)
        rows += [
            (
                result.layer,
                "*" if a.chosen else "",
                a.algorithm,
                f"{1e6 * a.estimate:.1f}",
                f"{1e6 * a.measured:.1f}",
                f"{a.measured / a.estimate:.2f}" if a.estimate else "",
                f"{a.measured / fastest:.2f}",
                f"{a.error:.1e}",
                " ".join(f"{name}={value}" for name, value in a.knobs.items()),
            )
            for a in sorted(result.algorithms, key=lambda a: a.measured)
        ]
    return table("* chosen", columns, rows)


@dataclass(frozen=True, slots=True)
class Choices:
    """How good the cost model's choices are.

    Attributes:
        layers: with more than one algorithm measured.
        good: where the chosen one is the fastest, or within 3 %.
        loss: geometric mean of chosen time / fastest time.
        worst: the layers that lose more, the worst first: (layer, chosen, fastest, loss).
    """

    layers: int
    good: int
    loss: float
    worst: tuple[tuple[str, str, str, float], ...]

    def __str__(self) -> str:
        first = (
            f"chosen is the fastest or within {100 * (_AS_GOOD - 1):.0f} % for {self.good} of {self.layers} layers, "
            f"geomean loss {100 * (self.loss - 1):.1f} %"
        )
        rows = (
            f"  {name}: {chosen} chosen, {fastest} is {loss:.2f} x faster"
            for name, chosen, fastest, loss in self.worst
        )
        return "\n".join((first, *rows))


def choices(results: Sequence[Compared]) -> Choices:
    """Return the summary of all layers that had a choice."""
    losses = []
    for result in results:
        chosen = next((a for a in result.algorithms if a.chosen), None)
        if chosen is None or len(result.algorithms) < 2:
            continue
        fastest = min(result.algorithms, key=lambda a: a.measured)
        loss = chosen.measured / fastest.measured
        losses.append((result.layer, chosen.algorithm, fastest.algorithm, loss))
    bad = sorted((row for row in losses if row[3] > _AS_GOOD), key=lambda row: -row[3])
    loss = _mean(row[3] for row in losses) or 1.0
    return Choices(len(losses), len(losses) - len(bad), loss, tuple(bad))


def choices_table(results: Sequence[Compared]) -> Table:
    """Return one row per class that occurs: for how many layers the choice is good, and what it loses on average."""
    right = ("layers", "fastest or within 3 %", "geomean loss %")
    rows = []
    for name, _ in CLASSES:
        summary = choices([r for r in results if r.kind == name])
        if summary.layers:
            loss = f"{100 * (summary.loss - 1):.1f}"
            rows.append((name, str(summary.layers), str(summary.good), loss))
    return table("with a choice", (Column("class"), *(Column(c, True) for c in right)), rows)
