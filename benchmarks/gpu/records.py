"""Times of layers and their gradients as tuning records: a setting that the check measured need not be measured by `convc tune` again.

Only our own kernels': whoever compiles a model without asking for a library gets none, whatever is fastest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.gpu.gradients import GRID
from convc.errors import InputError
from convc.ir import ConvSpec
from convc.schedules.algorithm import Problem
from convc.schedules.table import TEMPLATE
from convc.schedules.weight_gradient_problem import WeightGradientProblem
from convc.target import Target, parse_target
from convc.toolchain import installed_version
from convc.tuning.care import append_new
from convc.tuning.device import device_name, log_path, target_name
from convc.tuning.record import Record
from convc.version import VERSION

__all__ = ["records_of", "write_records"]

_LIBRARIES: Final = ("cudnn", "cutlass")

# What a part's cases pose.
_PROBLEMS: Final = {"layers": Problem, "gradients": WeightGradientProblem}


def write_records(report: Path, logs: Path) -> tuple[Path, int]:
    """Append what a report's layers and gradients say to their device's log; return the log and how many records are new.

    Args:
        report: `report.json`.
        logs: the folder of tuning logs.

    Raises:
        InputError: if the report names no device.
    """
    document = msgspec.json.decode(report.read_bytes())
    facts = document.get("device") or {}
    if "name" not in facts:
        raise InputError(f"a report must name its device to become records; got none in '{report}'.")  # fmt: skip
    target = parse_target(f"cuda -arch={facts['sm']}")
    # The log is of the device that was measured, which need not be the one that its capability is planned for.
    named = replace(target, device=replace(target.gpu, name=facts["name"]))
    path = log_path(logs, named)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path, append_new(path, records_of(document["results"], named))


def records_of(found: Sequence[Mapping[str, Any]], target: Target) -> Iterator[Record]:
    """Yield a record for each right case of a layer or a weight gradient that has a time."""
    versions = {"convc": VERSION, "tvm": installed_version("apache-tvm") or ""}
    for result in found:
        part = result["job"]["part"]
        if part not in _PROBLEMS or result["job"]["name"].startswith(GRID):
            continue
        for case in result.get("cases", ()):
            if not case["ok"] or not case.get("seconds") or case["algorithm"] in _LIBRARIES:
                continue
            yield Record(
                workload=_PROBLEMS[part](ConvSpec.parse(case["key"])).key,
                threads=target.cores,
                target=target_name(target),
                device=device_name(target),
                template=TEMPLATE,
                algorithm=case["algorithm"],
                knobs=case["knobs"],
                status="ok",
                seconds=case["seconds"],
                samples=tuple(float(f"{s:.4g}") for s in case["samples"]),
                error=case.get("error", -1.0),
                mode="warm",
                at=result.get("at", 0.0),
                versions=versions,
            )
