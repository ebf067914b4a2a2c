"""The table that shows where a module's time goes: one row per step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convc.cli.render import Column, table

if TYPE_CHECKING:
    from rich.table import Table

    from convc.machine import Peak
    from convc.runtime import StepTimes

__all__ = ["LayerTime", "layer_rows", "layer_table"]


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One step's median time; `share` is its percentage of the sum; rates are None for steps without FLOPs."""

    node: str
    op: str
    algorithm: str
    seconds: float
    share: float
    flops: int
    gflops_per_second: float | None
    percent_of_peak: float | None


def layer_rows(times: Sequence[StepTimes], peak: Peak | None) -> tuple[LayerTime, ...]:
    """Return one row per step, in the order of execution."""
    total = sum(t.median for t in times) or 1.0
    rows = []
    for timed in times:
        step, median = timed.step, timed.median
        rate = step.flops / median / 1e9 if step.flops else None
        percent = 100 * rate / peak.gflops_per_second if rate is not None and peak else None
        rows.append(
            LayerTime(
                step.node,
                step.op,
                step.algorithm,
                median,
                100 * median / total,
                step.flops,
                rate,
                percent,
            )
        )
    return tuple(rows)


def layer_table(layers: Sequence[LayerTime], peak: Peak | None) -> Table:
    """Return the table; its last row sums up, with the rate of all layers together."""
    columns = (Column("layer"), Column("op"), Column("algorithm"), *(Column(c, True) for c in ("time (us)", "share", "GFLOP/s", "% of peak")))  # fmt: skip
    rows = [
        (
            row.node,
            row.op,
            row.algorithm,
            f"{row.seconds * 1e6:.1f}",
            f"{row.share:.1f} %",
            "" if row.gflops_per_second is None else f"{row.gflops_per_second:.1f}",
            "" if row.percent_of_peak is None else f"{row.percent_of_peak:.0f}",
        )
        for row in layers
    ]
    total, flops = sum(row.seconds for row in layers), sum(row.flops for row in layers)
    rate = f"{flops / total / 1e9:.1f}" if flops else ""
    percent = f"{flops / total / peak.gflops_per_second / 1e7:.0f}" if flops and peak else ""
    rows.append(("sum", f"{len(layers)} steps", "", f"{total * 1e6:.1f}", "100.0 %", rate, percent))
    return table(None, columns, rows)
