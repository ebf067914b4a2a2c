"""`convc tune`'s second half: what was found for the layers is timed in the network, and what a person sees of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from convc.cli.progress import StageProgress
from convc.cli.render import Column, Output, console, seconds, table

if TYPE_CHECKING:
    from convc.ir.graph import Graph
    from convc.tuning.network_outcome import Outcome
    from convc.tuning.session import Session

__all__ = ["FOR_NETWORK", "TimedNetwork", "network_document", "show_network", "time_networks"]

# Of the time for the whole model.
FOR_NETWORK: Final = 1 / 3
# With less than this left nothing is begun: a network of 40 kernels builds in 13 s with three rivals of each.
_LEAST_SECONDS: Final = 15.0


@dataclass(frozen=True)
class TimedNetwork:
    """A network's name and what became of it; None: there was no time. `before`: the log says it from an earlier run."""

    name: str
    outcome: Outcome | None
    before: bool = False
    layers: dict[str, str] | None = None


def time_networks(output: Output, session: Session, graphs: Sequence[Graph]) -> list[TimedNetwork]:
    """Time what a session has found in the networks that it is from, and record what gains there.

    Raises:
        KeyboardInterrupt: passed on; nothing is recorded of the network that was timed.
    """
    from convc.tuning.network_bench import LocalNetworkBench
    from convc.tuning.network_stage import NetworkStage
    from convc.tuning.tasks import chain_tasks_of, tasks_of

    options, target = session.options, session.target
    searches = {layer.task.subject.key: layer.search for layer in session.layers}
    names = {layer.task.subject.key: layer.task.name for layer in session.layers}

    def left() -> float | None:
        return None if options.seconds is None else options.seconds - session.spent

    timed = []
    for graph in graphs:
        tasks = (*tasks_of(graph), *chain_tasks_of(graph, target, options.policy))
        stage = NetworkStage(graph, tasks, target, session.log, searches, options.policy.max_error, left=left)  # fmt: skip
        known = None if options.fresh else stage.recorded()
        rest = left()
        if known is not None:
            timed.append(TimedNetwork(graph.name, known, before=True))
        elif rest is not None and rest < _LEAST_SECONDS:
            timed.append(TimedNetwork(graph.name, None))
        else:
            with LocalNetworkBench(graph, target, options.seed) as bench, StageProgress(output, animate=False) as progress:  # fmt: skip
                output.note(f"{graph.name}: timing the best settings in their places")
                timed.append(TimedNetwork(graph.name, stage.run(bench, progress), layers=names))
    return timed


def _ratio(outcome: Outcome) -> str:
    if outcome.whole is None:
        return "nothing was faster in its places"
    w = outcome.whole
    return f"tuned / untuned = {w.median:.3f} ({w.low:.3f}-{w.high:.3f})"


def _sentence(row: TimedNetwork) -> str:
    outcome = row.outcome
    if outcome is None:
        return f"{row.name}: not timed as a whole yet, the time was up; until it is, records of layers alone are used"
    counts = "timed before" if row.before else f"{outcome.tried} settings tried in their places, {len(outcome.won)} faster there"  # fmt: skip
    verdict = "used from now on" if outcome.gained else "no gain: `convc compile` keeps the model's choices"  # fmt: skip
    return f"{row.name}: {counts}; {_ratio(outcome)}; {verdict}"


def show_network(row: TimedNetwork) -> None:
    """Print what became of a network."""
    screen, outcome = console(), row.outcome
    if outcome is not None and outcome.won:
        columns = (Column("in its places"), Column("setting"), *(Column(c, True) for c in ("places", "model's choice", "tuned")))  # fmt: skip
        cells = [
            (
                (row.layers or {}).get(w.contest.key, w.contest.key),
                " ".join([w.setting[0], *(f"{k}={v}" for k, v in w.setting[1])]),
                str(len(w.contest.places)),
                seconds(w.untuned_seconds / len(w.contest.places)),
                seconds(w.seconds / len(w.contest.places)),
            )
            for w in outcome.won
        ]
        screen.print(table(None, columns, cells))
    screen.print(_sentence(row), markup=False)


def network_document(row: TimedNetwork) -> dict[str, Any]:
    """Return what became of a network as `--json` shows it."""
    outcome = row.outcome
    if outcome is None:
        return {"name": row.name, "timed": False}
    whole = outcome.whole
    return {
        "name": row.name,
        "timed": True,
        "before": row.before,
        "tried": outcome.tried,
        "won": [
            {
                "workload": w.contest.key,
                "algorithm": w.setting[0],
                "knobs": dict(w.setting[1]),
                "seconds": w.seconds / len(w.contest.places),
                "untuned_seconds": w.untuned_seconds / len(w.contest.places),
            }
            for w in outcome.won
        ],
        "tuned_over_untuned": None if whole is None else [whole.median, whole.low, whole.high],
        "gained": outcome.gained,
    }
