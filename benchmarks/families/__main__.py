"""The command line of the families; see `benchmarks.families`."""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import onnx

from benchmarks.families.names import NAMES
from benchmarks.families.opsets import opset_of
from benchmarks.families.report import DOCUMENT, document
from benchmarks.families.row import ROWS, Row, append, read
from convc.cli.exits import REPORTED, report_error
from convc.errors import ToolchainError, unknown_name
from convc.runtime import host

_PACKAGES: Final = ("convc", "torch", "onnx", "onnxruntime")
# A process that compiles a large network for minutes is at work; one that takes an hour is not.
_LIMIT_SECONDS: Final = 3600


def _versions(source: str = "") -> dict[str, str]:
    found = {}
    used = ("torchvision",) if source == "timm" else ()
    for package in (*_PACKAGES[:2], *used, *filter(None, [source]), *_PACKAGES[2:]):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _child(module: str, *arguments: str) -> dict[str, Any]:
    """Run a module; return the document that it prints, or the failure that its last line names."""
    command = [sys.executable, "-m", f"benchmarks.families.{module}", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        return {"failure": f"{module}: took more than {_LIMIT_SECONDS} s"}
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line and not line.startswith(" ")]
        words = " / ".join(lines[-1:]) or f"died with {done.returncode}"
        return {"failure": f"{module}: {words[:300]}"}
    return json.loads(done.stdout.splitlines()[-1])


def _checked(name: str, opset: int, folder: Path) -> Row:
    """Export, compile and compare one network."""
    path = folder / f"{name.replace('/', '_')}.onnx"
    facts: dict[str, Any] = {
        "name": name,
        "opset": opset,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": host.cpu().name,
        "versions": _versions(name.partition("/")[0]),
    }
    began = time.perf_counter()
    facts |= _child("exporting", name, str(opset), str(path))
    if "failure" not in facts:
        facts["export_seconds"] = round(time.perf_counter() - began, 1)
        proto = onnx.load_model(path, load_external_data=False)
        facts["operators"] = sum(n.op_type != "Constant" for n in proto.graph.node)
        written = next(o.version for o in proto.opset_import if not o.domain)
        facts |= {"written": written} if written != opset else {}
        facts |= _child("checking", str(path))
    return Row(**facts)


def _chosen(patterns: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield (name, opset) of what the patterns name, in the lists' order.

    Raises:
        UnknownNameError: if a pattern names nothing.
    """
    for pattern in patterns:
        if not any(fnmatch.fnmatch(n, pattern) for names in NAMES.values() for n in names):
            raise unknown_name("network", pattern, [n for names in NAMES.values() for n in names])
    for names in NAMES.values():
        for place, name in enumerate(names):
            if not patterns or any(fnmatch.fnmatch(name, p) for p in patterns):
                yield name, opset_of(name, place)


def _check(given: argparse.Namespace) -> int:
    jobs = [(name, given.opset or opset) for name, opset in _chosen(given.names)]
    if "torch" not in _versions():
        raise ToolchainError("exporting must have the package 'torch'; got no such package. Run: pip install 'convc[zoo]'")  # fmt: skip
    missing = sorted(
        {package for name, _ in jobs if not find_spec(package := name.partition("/")[0])}
    )
    if missing and given.names:
        raise ToolchainError(f"exporting must have the package '{missing[0]}'; got no such package. Run: pip install {' '.join(missing)}")  # fmt: skip
    if missing:
        print(f"left out, since they are not installed: {', '.join(missing)}", flush=True)
        jobs = [job for job in jobs if job[0].partition("/")[0] not in missing]
    known = read(given.rows)
    done = {job for job, row in known.items() if row.ok}
    left = [job for job in jobs if given.again or job not in done]
    print(f"{len(jobs)} networks, {len(jobs) - len(left)} have a good row", flush=True)
    failed = 0
    for number, (name, opset) in enumerate(left, 1):
        with tempfile.TemporaryDirectory(prefix="convc-zoo-", dir=given.scratch) as folder:
            row = _checked(name, opset, Path(folder))
        append([row], given.rows)
        failed += not row.ok
        said = row.failure or f"compiled in {row.compile_seconds:.0f} s, error {row.error:.1e}"
        print(f"[{number}/{len(left)}] {name} opset {row.opset}: {said}", flush=True)
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked; return the exit code: 1 if a network failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families", description="Networks of torchvision, timm and packages for one application: exported, compiled, compared.")  # fmt: skip
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="print the names")
    add = verbs.add_parser(
        "check", help="export, compile and compare what has no good row"
    ).add_argument
    add("names", nargs="*", metavar="NAME", help="names or patterns such as 'timm/*'; default all")
    add(
        "--opset", type=int, help="export all at this opset; default another one for each, 11 to 23"
    )
    add("--again", action="store_true", help="also what has a good row")
    add("--rows", type=Path, default=ROWS, metavar="FILE", help="where the rows are kept")
    add("--scratch", type=Path, metavar="DIR", help="where files are exported to, one at a time")
    verbs.add_parser("table", help=f"write {DOCUMENT.name} from the rows")
    given = parser.parse_args(arguments)
    try:
        if given.verb == "list":
            print("\n".join(f"{name}  opset {opset}" for name, opset in _chosen(())))
            return 0
        if given.verb == "table":
            DOCUMENT.write_text(document(read()), encoding="utf-8")
            return 0
        return _check(given)
    except REPORTED as error:
        return report_error(error, as_json=False)


if __name__ == "__main__":
    sys.exit(main())
