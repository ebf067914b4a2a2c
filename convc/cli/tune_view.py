"""What a person sees while a model is tuned: a live table on a terminal, one line a layer elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from convc.cli.render import Output, console, seconds

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from convc.tuning.layer import Layer
    from convc.tuning.session import Session

__all__ = ["TuneView", "layer_documents", "layer_rows"]


def _times(value: float | None) -> str:
    return seconds(value) if value else ""


def layer_rows(session: Session) -> list[tuple[str, ...]]:
    """Return the cells of the final table, a row a layer."""
    rows = []
    for layer in session.layers:
        best, baseline = layer.search.best, layer.baseline
        if best is None:
            failed = ", ".join(f"{n} {k}" for k, n in layer.counts.items()) or "not measured"
            rows.append((layer.task.name, failed, _times(baseline), "", "", "", str(layer.search.measured)))  # fmt: skip
            continue
        setting, time = best
        gain = f"{baseline / time:.2f} x" if baseline else ""
        share = f"{100 * layer.search.roofline / time:.0f} %" if layer.search.roofline else ""
        rows.append((layer.task.name, setting.algorithm, _times(baseline), _times(time), gain, share, str(layer.search.measured)))  # fmt: skip
    return rows


def layer_documents(session: Session) -> list[dict[str, Any]]:
    """Return the layers as `--json` shows them."""
    rows = []
    for layer in session.layers:
        best = layer.search.best
        rows.append(
            {
                "layers": list(layer.task.layers),
                "workload": layer.task.subject.key,
                "done": layer.done,
                "trials": layer.search.measured,
                "counts": layer.counts,
                "estimate_seconds": layer.estimate,
                "model_choice_seconds": layer.baseline,
                "roofline_seconds": layer.search.roofline,
                "best_seconds": best[1] if best else None,
                "algorithm": best[0].algorithm if best else None,
                "knobs": dict(best[0].knobs) if best else None,
            }
        )
    return rows


class TuneView:
    """Draws when told that something has changed, and never by itself: a thread would disturb the measurements."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._session: Session | None = None
        self._live: Live | None = None
        self._said: set[int] = set()
        self._slow: set[str] = set()

    def note(self, text: str) -> None:
        """Say what takes long before tuning begins."""
        self._output.note(text)

    @contextmanager
    def watching(self, session: Session) -> Iterator[None]:
        """Show a session while it runs."""
        self._session = session
        self._said = {i for i, layer in enumerate(session.layers) if layer.done}
        if not self._output.shows_progress:
            yield
            return
        from rich.live import Live

        with Live(self._table(session), console=console(sys.stderr), auto_refresh=False, transient=True) as self._live:  # fmt: skip
            yield
        self._live = None

    def changed(self) -> None:
        """Show what is known now."""
        session = self._session
        if session is None:
            return
        if self._live is not None:
            self._live.update(self._table(session), refresh=True)
            return
        if session.current is not None and _slow(session) and session.current.task.name not in self._slow:  # fmt: skip
            self._slow.add(session.current.task.name)
            self._output.note(f"{_clock(session)} {session.current.task.name}: building {_building(session)}")  # fmt: skip
        for index, layer in enumerate(session.layers):
            if layer.done and index not in self._said:
                self._said.add(index)
                self._output.note(f"{_clock(session)} {len(self._said)}/{len(session.layers)} {_line(layer)}")  # fmt: skip

    def _table(self, session: Session) -> Table:
        from rich.table import Table

        done = sum(layer.done for layer in session.layers)
        bad = {k: n for k, n in session.counts.items() if k != "ok"}
        failures = ", ".join(f"{n} {k.replace('_', ' ')}" for k, n in bad.items()) or "none failed"
        gained = sum(layer.gained for layer in session.layers)
        rows = [
            ("layers", f"{done} of {len(session.layers)} done"),
            ("trials", f"{session.counts.get('ok', 0)} ok, {failures}"),
            ("time", f"{_clock(session)}{_left(session)}"),
            ("gain alone", f"{seconds(gained)} of all tasks so far" if gained else "none yet"),
        ]
        if session.current is not None:
            rows.append(("now", _line(session.current)))
        if session.building:
            rows.append(("building", _building(session)))
        made = Table.grid(padding=(0, 2))
        for name, text in rows:
            made.add_row(name, text)
        return made


def _line(layer: Layer) -> str:
    best = layer.search.best
    if best is None:
        return f"{layer.task.name}: estimate {seconds(layer.estimate)}, nothing measured yet"
    setting, time = best
    roofline = f", roofline {seconds(layer.search.roofline)}" if layer.search.roofline else ""
    return f"{layer.task.name}: {setting.algorithm} {seconds(time)} (estimate {seconds(layer.estimate)}{roofline}), {layer.search.measured} trials"


def _slow(session: Session) -> list[str]:
    # What a session has imported; not before, as `convc --help` would.
    from convc.tuning.buildable import slow_builds

    return slow_builds(session.building, session.target)


def _building(session: Session) -> str:
    """Return what is being built, and of which it takes minutes."""
    counts = ", ".join(f"{n} x {name}" for name, n in session.building.items())
    slow = ", ".join(_slow(session))
    return f"{counts}; of {slow} each kernel takes up to a minute, once on a machine" if slow else counts  # fmt: skip


def _clock(session: Session) -> str:
    minutes, rest = divmod(int(session.spent), 60)
    return f"{minutes}:{rest:02d}"


def _left(session: Session) -> str:
    """Return an estimate of the time left: the layers that are not done at the pace of those that are, or the budget's rest."""
    limit = session.options.search_seconds
    done = sum(layer.done and bool(layer.rounds) for layer in session.layers)
    open_layers = sum(not layer.done for layer in session.layers)
    pace = session.spent / done * open_layers if done else None
    rest = None if limit is None else max(0.0, limit - session.spent)
    left = min((x for x in (pace, rest) if x is not None), default=None)
    return "" if left is None else f", about {int(left) // 60}:{int(left) % 60:02d} left"
