"""Compare convc with its peers on whole models.

python -m benchmarks.models --vs onnxruntime,openvino,mnn,ncnn --threads 1,2 [--model PATH.onnx ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.arguments import check_rounds, exit_code, peers_of, say, threads_of
from benchmarks.model_report import models_table, notes
from benchmarks.model_runs import ModelResult, compare
from benchmarks.onnx_file import OnnxFile, input_names, open_model
from benchmarks.ours import CONVC
from benchmarks.peers import PEERS
from benchmarks.run_facts import RunFacts, write_document
from benchmarks.zoo import NAMES, exported, zoo_folder
from convc.cli.exits import BUG
from convc.cli.parameters import parse_shapes
from convc.cli.render import console
from convc.errors import InputError
from convc.ir.types import Shape

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    known = ",".join(peer.name for peer in PEERS)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.models",
        description="Time convc and its peers on the same models, interleaved in one run.",
    )
    add = parser.add_argument
    add("--vs", default=known, metavar="PEERS", help=f"which peers, or none; default {known}")
    add(
        "--threads",
        default="1,2",
        metavar="N,...",
        help="numbers of threads, each measured by itself; default 1,2",
    )
    add(
        "--model",
        type=Path,
        action="append",
        metavar="PATH.onnx",
        help="a model in place of the zoo; repeatable",
    )
    add(
        "--shape",
        action="append",
        metavar="[NAME:]1x3x224x224",
        help="an input's shape, for models that leave it open; repeatable",
    )
    add(
        "--zoo",
        type=Path,
        metavar="DIR",
        help=f"where the zoo ({', '.join(NAMES)}) is, or is exported to; default {zoo_folder()}",
    )
    add(
        "--rounds",
        type=int,
        default=10,
        metavar="N",
        help="rounds of a few calls per engine; default 10",
    )
    add("--seed", type=int, default=0, metavar="N", help="of the inputs and the order; default 0")
    add(
        "--json",
        type=Path,
        metavar="FILE",
        help="write one JSON document; it grows with every model",
    )
    return parser  # fmt: skip


def _open(given: argparse.Namespace) -> list[OnnxFile]:
    opened = []
    for path in given.model or [exported(name, given.zoo) for name in NAMES]:
        shapes = parse_shapes(given.shape, lambda path=path: input_names(path))
        opened.append(open_model(path, _static(shapes or {})))
    return opened


def _static(shapes: Mapping[str, Sequence[int | str]]) -> dict[str, Shape]:
    """Return shapes without names in them: all engines get the same numbers.

    Raises:
        InputError: if an extent is a name.
    """
    for name, extents in shapes.items():
        for extent in extents:
            if isinstance(extent, str):
                raise InputError(f"extents to compare engines with must be numbers; got '{extent}' for input '{name}'.")  # fmt: skip
    return {n: tuple(e for e in extents if isinstance(e, int)) for n, extents in shapes.items()}


def _run(given: argparse.Namespace) -> int:
    rounds, peers, threads = check_rounds(given.rounds), peers_of(given.vs), threads_of(given.threads)  # fmt: skip
    models = _open(given)
    facts = RunFacts.begin(peers, rounds)
    results: list[ModelResult] = []

    def write() -> None:
        if given.json is not None:
            write_document(given.json, {"models": results}, facts)

    write()  # a path that cannot be written to shows now, not after the measurement
    for model in models:
        for count in threads:
            where = f"{model.name}, {count} thread{'s' if count > 1 else ''}"
            results.append(
                compare(
                    model,
                    peers,
                    count,
                    rounds=rounds,
                    seed=given.seed,
                    say=lambda text, where=where: say(f"{where}: {text}"),
                )
            )
            write()
    facts = facts.ended()
    write()
    say("")
    screen = console()
    screen.print(models_table(results, peers))
    for line in (*notes(results), *facts.lines()):
        screen.print(line, markup=False)
    # A peer may fail; convc may not.
    return BUG if any(CONVC.name in result.errors for result in results) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print and write; return the exit code: 0 only if convc ran every model and was right."""
    given = _parser().parse_args(arguments)
    return exit_code(lambda: _run(given))


if __name__ == "__main__":
    sys.exit(main())
