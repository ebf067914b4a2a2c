"""One table of all results."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.byte_layers import HALVES
from benchmarks.gpu.layer_table import first_runs, layers, microseconds
from benchmarks.gpu.model_table import models, number
from benchmarks.gpu.run import RESULT
from benchmarks.gpu.supervise import Unfinished
from convc.version import VERSION

__all__ = ["collect", "table"]

Result = Mapping[str, Any]


def collect(results: Path) -> list[dict[str, Any]]:
    """Return all results of a folder."""
    return [json.loads(p.read_bytes()) for p in sorted(results.glob(f"*{RESULT}"))]


def table(
    found: Sequence[Result], facts: Result, left: int, cut_off: Sequence[Unfinished] = ()
) -> str:
    """Return a Markdown document of the results and of what did not finish; parts without results are said to be missing."""
    lines = [
        f"# {facts.get('name', 'device unknown')}, {time.strftime('%Y-%m-%d', time.gmtime())}",
        "",
        f"convc {VERSION}; torch {facts.get('torch', 'not used')}, cuDNN {facts.get('cudnn', 'not used')}; jobs not run yet: {left}.",
        "",
    ]
    lines += (
        _limits(facts)
        + _grid(found)
        + _refusals(found)
        + _gradients(found)
        + layers(_of(found, "layers"))
        + _bytes(found)
        + first_runs(_of(found, "layers"))
        + models(found, cut_off)
        + _calls(found)
    )
    return "\n".join(lines) + "\n"


def _limits(facts: Result) -> list[str]:
    if "copy_bytes_per_second" not in facts:
        return []
    rates = ", ".join(
        f"{k} {v / 1e12:.1f} TFLOP/s" for k, v in facts["matmul_flops_per_second"].items()
    )
    copies = ", ".join(f"in {k} {v / 1e12:.2f} TB/s" for k, v in facts["copy_bytes_per_second"].items())  # fmt: skip
    return [f"Ceilings: copies {copies}; products {rates}.", ""]


def _of(found: Iterable[Result], part: str) -> list[Result]:
    return [r for r in found if r["job"]["part"] == part]


def _grid(found: Sequence[Result]) -> list[str]:
    lines = ["## Right results", "", "| algorithm | convolutions | wrong | failed jobs | worst error, of its bound |", "|---|---|---|---|---|"]  # fmt: skip
    rows: dict[str, list[Any]] = {}
    for result in _of(found, "grid"):
        name = result["job"]["cases"][0]["algorithm"]
        row = rows.setdefault(name, [0, 0, 0, 0.0])
        if result.get("failed"):
            row[2] += 1
        for case in result.get("cases", ()):
            row[0] += 1
            row[1] += not case["ok"]
            error = case["error_of_bound"]
            # A NaN stays: no later case hides it.
            row[3] = math.nan if error is None or math.isnan(row[3]) else max(row[3], error)
    lines += [
        f"| {n} | {a} | {b} | {c} | {number(d, '.2f')} |"
        for n, (a, b, c, d) in sorted(rows.items())
    ]
    wrong = [
        f"- {c['algorithm']} {c['key']} {c['knobs']}"
        for r in found
        for c in r.get("cases", ())
        if not c["ok"]
    ]
    failed = [
        f"- {r['job']['name']}: {str(r['failed']).splitlines()[0][:300]}"
        for r in found
        if r.get("failed")
    ]
    return [*lines, "", *(["Wrong:", "", *wrong, ""] if wrong else []), *(["Failed:", "", *failed, ""] if failed else [])]  # fmt: skip


def _gradients(found: Sequence[Result]) -> list[str]:
    cases = [c for r in _of(found, "gradients") for c in r.get("cases", ())]
    if not cases:
        return []
    by_key: dict[str, dict[str, Any]] = {}
    for case in cases:
        by_key.setdefault(case["key"], {})[case["algorithm"]] = case
    names = list(dict.fromkeys(c["algorithm"] for c in cases))
    lines = ["## Weight gradients, microseconds", "", f"| convolution | default | {' | '.join(names)} | wrong |", "|---|---|---|" + "---|" * len(names)]  # fmt: skip
    for key, found_by in by_key.items():
        default = next((n for n, c in found_by.items() if c["default"]), "")
        times = " | ".join(
            microseconds(found_by[n].get("seconds")) if n in found_by else "" for n in names
        )
        wrong = ", ".join(n for n, c in found_by.items() if not c["ok"])
        lines.append(f"| {key} | {default} | {times} | {wrong} |")
    return [*lines, ""]


def _bytes(found: Sequence[Result]) -> list[str]:
    """Return layers of bytes: what the model takes and the fastest setting, beside our fastest kernel of float16 by the model."""
    lines = []
    for result in _of(found, "bytes"):
        cases = [c for c in result.get("cases", ()) if c["ok"]]
        own = [c for c in cases if c["algorithm"] != HALVES]
        default = next((c["seconds"] for c in own if c["default"]), None)
        best = min(own, key=lambda c: c["seconds"], default=None)
        halves = next((c["seconds"] for c in cases if c["algorithm"] == HALVES), None)
        setting = f"{best['algorithm']} {best['knobs']}" if best else ""
        ratio = f"{halves / best['seconds']:.2f}" if best and halves else ""
        times = (default, best["seconds"] if best else None, halves)
        lines.append(f"| {result['job']['name']} | {' | '.join(map(microseconds, times))} | {ratio} | {setting} |")  # fmt: skip
    head = ["## Layers of bytes, microseconds", "", "| layer | default | best | float16 | float16 / best | setting |", "|---|---|---|---|---|---|"]  # fmt: skip
    return [*head, *lines, ""] if lines else []


def _refusals(found: Sequence[Result]) -> list[str]:
    cases = [c for r in _of(found, "refusals") for c in r.get("cases", ())]
    if not cases:
        return []
    lines = ["## cuDNN refuses, by force", "", "| what is refused | | what was said |", "|---|---|---|"]  # fmt: skip
    for case in cases:
        words = case["said"].replace("|", "/").replace("\n", " ")[:400]
        lines.append(f"| {case['key']} | {'right' if case['ok'] else 'WRONG'} | {words} |")
    return [*lines, ""]


def _calls(found: Sequence[Result]) -> list[str]:
    lines: list[str] = []
    for result in _of(found, "calls"):
        lines += ["## Calls of cuDNN", "", "| call | | error | plan, or why none | first call, ms | by name, ms |", "|---|---|---|---|---|---|"]  # fmt: skip
        for case in result.get("cases", ()):
            first = f"{case['first_seconds'] * 1e3:.1f}" if "first_seconds" in case else ""
            named = f"{case['named_seconds'] * 1e3:.1f}" if "named_seconds" in case else ""
            answer = "right" if "exact_error" in case else "none offered"
            verdict = answer if case["ok"] else "WRONG"
            lines.append(f"| {case['key']} | {verdict} | {number(case['exact_error']) if 'exact_error' in case else ''} | {case['plan']} | {first} | {named} |")  # fmt: skip
        cost = result.get("call_microseconds")
        if cost:
            lines += ["", f"A call: {cost['ours']:.2f} us of the host's time; cuDNN's own {cost['direct']:.2f} us."]  # fmt: skip
    return [*lines, ""] if lines else []
