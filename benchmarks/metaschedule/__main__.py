"""Both tuners on the same layers, one after the other: the best time of each, and the time spent.

python -m benchmarks.metaschedule [--time 300] [--share 0.05] [--layers r50_3_3x3,...] [--json FILE]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.arguments import exit_code, names, say
from benchmarks.layer_list import layers
from benchmarks.metaschedule.contest import Contest, contest
from benchmarks.run_facts import RunFacts, write_document
from convc.cli.exits import BUG
from convc.cli.render import Column, console, seconds, table
from convc.errors import InputError
from convc.runtime.threads import check_threads
from convc.target import parse_target
from convc.tuning.calibration import calibration

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["main", "summary"]

# 1x1 early and late, 3x3 with wide and with narrow maps, strides of 2, depthwise of 3 and 5, 5x5, a first layer.
SAMPLE: Final = "r50_2_1x1a,r50_5_1x1c,r50_2_3x3,r50_4_3x3,r50_3_3x3s2,r50_3_ds,mb2_dw96s2,ef_dw5_240,gg_5x5a,mb2_stem"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metaschedule", description="Tune single layers with convc and with TVM's MetaSchedule.")  # fmt: skip
    add = parser.add_argument
    add("--layers", default=SAMPLE, metavar="ID,...", help=f"of benchmarks/layers.csv; default {SAMPLE}")  # fmt: skip
    add("--time", type=float, default=300.0, metavar="SECONDS", help="MetaSchedule's time for one layer; default 300")  # fmt: skip
    add("--share", type=float, default=0.05, metavar="PART", help="convc's time as a part of that; default 0.05")  # fmt: skip
    add("--batch", type=int, default=64, metavar="N", help="candidates of one round of MetaSchedule's search; default 64, as TVM's")  # fmt: skip
    add("--threads", type=int, default=1, metavar="N", help="default 1")
    add("--seed", type=int, default=1, metavar="N", help="of both searches; default 1")
    add("--json", type=Path, metavar="FILE", help="write one JSON document; it grows with every layer")  # fmt: skip
    return parser


def _table(results: Sequence[Contest]) -> Table:
    right = ("convc", "in", "MetaSchedule", "in", "trials", "faster", "of its time")
    columns = (Column("layer"), Column("class"), Column("algorithm"), *(Column(c, True) for c in right))  # fmt: skip
    rows = [
        (
            r.layer,
            r.kind,
            r.convc.algorithm,
            seconds(r.convc.seconds) if r.convc.seconds else "",
            f"{r.convc.tuning_seconds:.1f} s",
            seconds(r.metaschedule.seconds) if r.metaschedule.seconds else "",
            f"{r.metaschedule.tuning_seconds:.0f} s",
            f"{r.convc.trials} / {r.metaschedule.trials}",
            f"{r.speedup:.2f} x" if r.speedup else "",
            f"1/{1 / r.share:.0f}",
        )
        for r in results
    ]
    return table(None, columns, rows)


def summary(results: Sequence[Contest], share: float) -> str:
    """Return how often convc's result is better in at most its share of the time, and by how much on average."""
    ratios = [r.speedup for r in results if r.speedup]
    better = sum(r.speedup is not None and r.speedup > 1 for r in results)
    most = max((r.share for r in results), default=0.0)
    text = f"convc is faster on {better} of {len(results)} layers"
    if ratios:
        text += (
            f", {statistics.geometric_mean(ratios):.2f} x in the geometric mean of {len(ratios)}"
        )
    return f"{text}; its tuning took at most 1/{1 / most:.0f} of MetaSchedule's time (asked: 1/{1 / share:.0f})" if most else text  # fmt: skip


def _run(given: argparse.Namespace) -> int:
    if not (given.time > 0 and 0 < given.share <= 1 and given.batch > 0):
        raise InputError(
            f"--time and --batch must be positive and --share from 0 to 1; got {given.time:g}, {given.batch} and {given.share:g}."
        )
    threads = check_threads(given.threads)
    chosen = [layer for name in names(given.layers) for layer in layers(pattern=name)]
    limits = calibration(parse_target(cores=threads), say)
    facts = RunFacts.begin((), 1, threads)
    results: list[Contest] = []

    def write() -> None:
        if given.json is not None:
            write_document(given.json, {"layers": results}, facts)

    write()  # a path that cannot be written to shows now, not after the measurement
    for number, layer in enumerate(chosen, 1):
        results.append(
            contest(
                layer,
                limits,
                threads=threads,
                seconds=given.time,
                share=given.share,
                batch=given.batch,
                seed=given.seed,
                progress=lambda text, number=number: say(f"{number} of {len(chosen)}: {text}"),
            )
        )
        write()
    facts = facts.ended()
    write()
    say("")
    screen = console()
    screen.print(_table(results))
    screen.print(summary(results, given.share), markup=False)
    missing = [(r.layer, who, s.message) for r in results for who, s in (("convc", r.convc), ("MetaSchedule", r.metaschedule)) if s.message]  # fmt: skip
    for layer, who, why in missing:
        screen.print(f"{layer}: {who}: {why}", markup=False)
    for line in facts.lines():
        screen.print(line, markup=False)
    return BUG if any(r.convc.seconds is None for r in results) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Tune, print and write; return the exit code: 0 only if convc found a kernel for every layer."""
    given = _parser().parse_args(arguments)
    return exit_code(lambda: _run(given))


if __name__ == "__main__":
    sys.exit(main())
