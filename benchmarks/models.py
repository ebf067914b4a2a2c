"""Compare convc with its peers on whole models: python -m benchmarks.models --help.

python -m benchmarks.models --vs onnxruntime,openvino,mnn,ncnn --threads 1,2 [--model PATH.onnx ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.model_report import Document, load_warnings, models_table, notes
from benchmarks.model_runs import ModelResult, compare
from benchmarks.onnx_file import OnnxFile, open_model
from benchmarks.ours import CONVC
from benchmarks.peers import PEERS, peers_named
from benchmarks.zoo import NAMES, exported, zoo_folder
from convc.cli.exits import REPORTED, exit_code, report_error
from convc.cli.parameters import parse_shapes
from convc.cli.render import console
from convc.errors import InputError, LoweringError
from convc.machine import remeasure_peak
from convc.runtime.threads import check_threads

__all__ = ["main"]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _threads(text: str) -> list[int]:
    names = _names(text)
    if not names or not all(name.isdecimal() for name in names):
        raise InputError(f"--threads must be numbers joined by commas, as in 1,2; got '{text}'.")
    return [check_threads(int(name)) for name in dict.fromkeys(names)]


def _parser() -> argparse.ArgumentParser:
    known = ",".join(peer.name for peer in PEERS)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.models",
        description="Time convc and its peers on the same models, interleaved in one run.",
    )
    add = parser.add_argument
    add("--vs", default=known, metavar="PEERS", help=f"which peers; default {known}")
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
    add("--json", type=Path, metavar="FILE", help="write one JSON document, after every model")
    return parser  # fmt: skip


def _open(given: argparse.Namespace) -> list[OnnxFile]:
    paths = given.model or [exported(name, given.zoo) for name in NAMES]
    opened = []
    for path in paths:
        # The names are wanted only if a shape has none; opening the model with open shapes would fail.
        shapes = parse_shapes(given.shape, lambda path=path: _input_names(path))
        opened.append(open_model(path, shapes))
    return opened


def _input_names(path: Path) -> list[str]:
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    constants = {t.name for t in graph.initializer}
    return [value.name for value in graph.input if value.name not in constants]


def _say(text: str) -> None:
    """Show what is going on, on one line of a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _write(path: Path | None, document: Document) -> None:
    if path is not None:
        scratch = path.with_name(path.name + ".part")
        scratch.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
        scratch.replace(path)


def _run(given: argparse.Namespace) -> int:
    if given.rounds < 1:
        raise InputError(f"--rounds must be at least 1; got {given.rounds}.")
    peers, threads = peers_named(_names(given.vs)), _threads(given.threads)
    models = _open(given)
    warnings = load_warnings()
    date = datetime.datetime.now(datetime.UTC)
    before = remeasure_peak()
    results: list[ModelResult] = []
    for model in models:
        for count in threads:
            where = f"{model.name}, {count} thread{'s' if count > 1 else ''}"
            result = compare(
                model,
                peers,
                count,
                rounds=given.rounds,
                seed=given.seed,
                say=lambda text, where=where: _say(f"{where}: {text}"),
            )
            results.append(result)
            partial = Document.of(results, peers, before, None, date=date, rounds=given.rounds, warnings=warnings)  # fmt: skip
            _write(given.json, partial)
    after = remeasure_peak()
    document = Document.of(results, peers, before, after, date=date, rounds=given.rounds, warnings=warnings)  # fmt: skip
    _write(given.json, document)
    _say("")
    screen = console()
    screen.print(models_table(results, peers))
    for line in notes(document):
        screen.print(line, markup=False)
    # A peer may fail; convc may not.
    failed = any(CONVC.name in result.errors for result in results)
    return exit_code(LoweringError()) if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print and write; return the exit code: 0 only if convc ran every model."""
    given = _parser().parse_args(arguments)
    try:
        return _run(given)
    except REPORTED as error:
        return report_error(error, as_json=False)


if __name__ == "__main__":
    sys.exit(main())
