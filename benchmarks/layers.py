"""Measure convolutions one by one, against the machine's limit and a peer.

python -m benchmarks.layers [--vs onnxruntime] [--classes 3x3s1,dw3] [--algorithms all] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.arguments import check_rounds, exit_code, names, peers_of, say
from benchmarks.layer_list import CLASSES, layers
from benchmarks.layer_report import algorithms_table, choices, classes_table, layers_table
from benchmarks.layer_runs import LayerResult, measure_layer
from benchmarks.run_facts import RunFacts, write_document
from convc.cli.exits import BUG
from convc.cli.render import console
from convc.runtime.threads import check_threads

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    known = ",".join(name for name, _ in CLASSES)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.layers",
        description="Time single convolutions: convc's kernel against the machine's peak, and a peer.",
    )
    add = parser.add_argument
    add(
        "--vs",
        default="onnxruntime",
        metavar="PEERS",
        help="which peers, or none; default onnxruntime",
    )
    add(
        "--classes",
        default="",
        metavar="CLASS,...",
        help=f"only layers of these classes, of {known}",
    )
    add("--layers", default="*", metavar="GLOB", help="only layers whose id matches, as in 'r50_*'")
    add(
        "--algorithms",
        choices=("chosen", "all"),
        default="chosen",
        help="measure the chosen algorithm, or all that apply",
    )
    add("--threads", type=int, default=1, metavar="N", help="default 1")
    add(
        "--rounds",
        type=int,
        default=5,
        metavar="N",
        help="rounds of a few calls per engine; default 5",
    )
    add("--seed", type=int, default=0, metavar="N", help="of data, weights and order; default 0")
    add(
        "--json",
        type=Path,
        metavar="FILE",
        help="write one JSON document; it grows with every layer",
    )
    return parser  # fmt: skip


def _run(given: argparse.Namespace) -> int:
    rounds, peers, threads = check_rounds(given.rounds), peers_of(given.vs), check_threads(given.threads)  # fmt: skip
    chosen = layers(names(given.classes), given.layers)
    facts = RunFacts.begin(peers, rounds, threads)
    results: list[LayerResult] = []

    def write() -> None:
        if given.json is not None:
            write_document(given.json, {"layers": results}, facts)

    write()  # a path that cannot be written to shows now, not after the measurement
    for number, layer in enumerate(chosen, 1):
        say(f"{layer.name}, {number} of {len(chosen)}")
        results.append(
            measure_layer(
                layer,
                peers,
                threads,
                facts.peak_before * threads,
                all_algorithms=given.algorithms == "all",
                rounds=rounds,
                seed=given.seed,
            )
        )
        write()
    facts = facts.ended()
    # The first peak may have been measured while others took the core.
    results = [r.beside(facts.peak_gflops_per_core * threads) for r in results]
    write()
    say("")
    screen = console()
    screen.print(layers_table(results, peers))
    screen.print(classes_table(results, peers))
    if given.algorithms == "all":
        screen.print(algorithms_table(results))
        screen.print(str(choices(results)), markup=False)
    failures = [f"error: {r.layer}: {name}: {text}" for r in results for name, text in r.errors.items()]  # fmt: skip
    for line in (*failures, *facts.lines()):
        screen.print(line, markup=False)
    # A peer may fail; convc may not.
    return BUG if any(r.us is None or r.algorithm in r.errors for r in results) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; return the exit code: 0 only if convc ran every layer and was right."""
    given = _parser().parse_args(arguments)
    return exit_code(lambda: _run(given))


if __name__ == "__main__":
    sys.exit(main())
