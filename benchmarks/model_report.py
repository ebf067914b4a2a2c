"""The comparison of whole models as a table, and the sentences that go with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.model_runs import ModelResult
from benchmarks.ours import CONVC
from benchmarks.peers import Peer
from convc.cli.render import Column, table

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["models_table", "notes"]


def _cell(result: ModelResult, engine: str) -> str:
    """Return an engine's time, and convc's time over it."""
    if engine not in result.ms:
        return "failed"
    ratio = f" ({result.ratio[engine]:.2f})" if engine in result.ratio else ""
    return f"{result.ms[engine]:.2f}{ratio if engine not in result.errors else ' wrong'}"


def models_table(results: Sequence[ModelResult], peers: Sequence[Peer]) -> Table:
    """Return one row per model and number of threads; a peer's cell has its time and convc's time over it."""
    right = ("threads", CONVC.name, *(p.name for p in peers), "/ best", "error")
    columns = (Column("model"), *(Column(title, True) for title in right))
    rows = [
        (
            r.model,
            str(r.threads),
            _cell(r, CONVC.name),
            *(_cell(r, peer.name) for peer in peers),
            "" if r.ratio_to_best is None else f"{r.ratio_to_best:.2f} {r.best_peer}",
            "" if r.max_error is None else f"{r.max_error:.1e}",
        )
        for r in results
    ]
    title = "ms a call, median; in brackets and under '/ best': convc's time / the peer's (below 1, convc is faster)"
    return table(title, columns, rows)


def notes(results: Sequence[ModelResult]) -> list[str]:
    """Return what the table's words mean, then every failure and every warning."""
    lines = ["under 'error': convc's largest difference from onnxruntime / the largest output"]
    for result in results:
        where = f"{result.model}, {result.threads} thread{'s' if result.threads > 1 else ''}"
        lines += [f"error: {where}: {text}" for text in result.errors.values()]
        lines += [f"warning: {where}: {text}" for text in result.warnings]
    return lines
