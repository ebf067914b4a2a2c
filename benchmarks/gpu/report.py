"""One table of all results."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.model_table import models, number
from benchmarks.gpu.run import RESULT
from benchmarks.gpu.supervise import Unfinished
from convc.version import VERSION

__all__ = ["collect", "table"]

Result = Mapping[str, Any]


def collect(results: Path) -> list[dict[str, Any]]:
    """Return all results of a folder."""
    return [json.loads(p.read_bytes()) for p in sorted(results.glob(f"*{RESULT}"))]


def _us(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e6:.1f}"


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
        + _layers(found)
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
        times = " | ".join(_us(found_by[n].get("seconds")) if n in found_by else "" for n in names)
        wrong = ", ".join(n for n, c in found_by.items() if not c["ok"])
        lines.append(f"| {key} | {default} | {times} | {wrong} |")
    return [*lines, ""]


def _layers(found: Sequence[Result]) -> list[str]:
    lines = [
        "## Layers, microseconds", "",
        "cuDNN through torch, the fastest that it finds, channels first or last; both without bias. `tf32` is ours, with operands rounded to TF32.", "",
        "| layer | default | best | its setting | cuDNN | cuDNN / ours | tf32 | cuDNN TF32 |", "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    ratios: dict[str, list[float]] = {}
    for result in _of(found, "layers"):
        every = [c for c in result.get("cases", ()) if c.get("seconds") and c["ok"]]
        # Times of other arithmetic are not compared with those of the element type's own.
        timed = [c for c in every if c["algorithm"] != "tf32"]
        if not timed:
            continue
        best = min(timed, key=lambda c: c["seconds"])
        default = next((c["seconds"] for c in timed if c["default"]), None)
        half = "-f16-" in best["key"]
        peer = result.get("peer", {})
        same = [v for k, v in peer.items() if k.startswith("fp16" if half else "fp32")]
        ratio = min(same) / best["seconds"] if same else None
        if ratio:
            ratios.setdefault("float16" if half else "float32", []).append(ratio)
        knobs = " ".join(f"{k}={v}" for k, v in best["knobs"].items())
        shown = f"{ratio:.2f}" if ratio else ""
        rounded = min((c["seconds"] for c in every if c["algorithm"] == "tf32"), default=None)
        lines.append(
            f"| {result['job']['name']} | {_us(default)} | {_us(best['seconds'])} | {best['algorithm']} {knobs} "
            f"| {_us(min(same, default=None))} | {shown} | {_us(rounded)} | {_us(None if half else peer.get('tf32_nhwc'))} |"
        )
    lines += _first_runs(found)
    for name, values in ratios.items():
        mean = math.exp(sum(map(math.log, values)) / len(values))
        lines += ["", f"Geometric mean against cuDNN in {name}: {mean:.2f} x over {len(values)} jobs."]  # fmt: skip
    return [*lines, ""]


def _first_runs(found: Sequence[Result]) -> list[str]:
    """Return what modules that call a library took to load and to run for the first time; a first run is to take 50 ms at most."""
    rows = [r for r in _of(found, "layers") if "prepared_seconds" in r]
    if not rows:
        return []
    lines = ["", "| with a library | load, ms | of it plans and a run | first run behind it, ms |", "|---|---|---|---|"]  # fmt: skip
    for r in rows:
        times = (r["load_seconds"], r["prepared_seconds"], r["first_run_seconds"])
        lines.append(f"| {r['job']['name']} | {' | '.join(f'{1e3 * t:.1f}' for t in times)} |")
    return lines


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
