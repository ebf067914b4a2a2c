"""The table of layers: our kernels, the libraries that convc calls, and torch with cuDNN, each layer's jobs together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["first_runs", "layers", "microseconds"]

Result = Mapping[str, Any]
_LIBRARIES: Final = ("cutlass", "cudnn")
# How torch's times of a type are called, before the memory order.
_TYPES: Final = {"f16": "fp16", "bf16": "bf16", "f32": "fp32", "f64": "fp64"}


@dataclass(slots=True)
class _Layer:
    """One convolution: right cases that have a time, and torch's times."""

    name: str
    cases: list[Result] = field(default_factory=list)
    peer: Mapping[str, float] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        return self.cases[0]["key"].split("-")[1]

    def best(self, *algorithms: str) -> Result | None:
        """Return the fastest case of these algorithms; without any, of our own that round as the layer's type does."""

        def asked(name: str) -> bool:
            return name in algorithms if algorithms else name not in (*_LIBRARIES, "tf32")

        found = [c for c in self.cases if asked(c["algorithm"])]
        return min(found, key=lambda c: c["seconds"], default=None)

    @property
    def torch(self) -> float | None:
        """The fastest of torch's in the same arithmetic."""
        kind = _TYPES[self.dtype]
        return min((v for k, v in self.peer.items() if k.startswith(kind)), default=None)


def microseconds(seconds: float | None) -> str:
    """Return a time as it is shown, "" for none."""
    return "" if seconds is None else f"{seconds * 1e6:.1f}"


def layers(found: Sequence[Result]) -> list[str]:
    """Return the table's lines, and the geometric means of torch's time over ours, with the least of them.

    Args:
        found: results of the part `layers`.
    """
    lines = [
        "## Layers, microseconds", "",
        "`default` is what the model takes, `own` the best of our kernels, both beside the libraries as convc calls them. `torch` is the fastest that",
        "cuDNN finds through it, in the same type, channels first or last. Nobody has a bias. `TF32`: operands rounded, ours and torch's.", "",
        "| layer | default | own | its setting | CUTLASS | cuDNN | torch | torch / own | torch / best | TF32 | torch TF32 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    ratios: dict[str, list[tuple[float, float]]] = {}
    for layer in _grouped(found):
        own, default = layer.best(), next((c for c in layer.cases if c["default"]), None)
        others = [layer.best(name) for name in _LIBRARIES]
        best = min(c["seconds"] for c in (own, *others) if c is not None)
        rounded, theirs = layer.best("tf32"), layer.torch
        shown = ["", ""]
        if theirs is not None and own is not None:
            pair = (theirs / own["seconds"], theirs / best)
            shown = [f"{ratio:.2f}" for ratio in pair]
            ratios.setdefault(_TYPES[layer.dtype], []).append(pair)
        times = (_seconds(c) for c in (default, own))
        setting = _setting(own) if own else ""
        rest = [microseconds(_seconds(c)) for c in others]
        lines.append(
            f"| {layer.name} | {' | '.join(map(microseconds, times))} | {setting} | {' | '.join(rest)} | {microseconds(theirs)} "
            f"| {' | '.join(shown)} | {microseconds(_seconds(rounded))} | {microseconds(layer.peer.get('tf32_nhwc'))} |"
        )
    for name, pairs in ratios.items():
        own, every = (_mean(column) for column in zip(*pairs, strict=True))
        least = min(pair[1] for pair in pairs)
        lines += ["", f"torch's time over ours in {name}, geometric mean of {len(pairs)} layers: {own:.2f} by our kernels, {every:.2f} by the best of all, {least:.2f} where that is least."]  # fmt: skip
    return [*lines, ""]


def _grouped(found: Sequence[Result]) -> list[_Layer]:
    """Return the layers in the order of their first jobs; the shortest name is the layer's."""
    by_key: dict[str, _Layer] = {}
    for result in found:
        timed = [c for c in result.get("cases", ()) if c.get("seconds") and c["ok"]]
        if not timed:
            continue
        name = result["job"]["name"]
        layer = by_key.setdefault(timed[0]["key"], _Layer(name))
        layer.name = min(layer.name, name, key=len)
        layer.cases += timed
        layer.peer = result.get("peer") or layer.peer
    return list(by_key.values())


def _seconds(case: Result | None) -> float | None:
    return None if case is None else case["seconds"]


def _setting(case: Result) -> str:
    return " ".join((case["algorithm"], *(f"{k}={v}" for k, v in case["knobs"].items())))


def _mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def first_runs(found: Sequence[Result]) -> list[str]:
    """Return what modules that call a library took to load and to run for the first time; a first run is to take 50 ms at most."""
    rows = [r for r in found if "prepared_seconds" in r]
    if not rows:
        return []
    lines = ["| with a library | load, ms | of it plans and a run | first run behind it, ms | a later one |", "|---|---|---|---|---|"]  # fmt: skip
    for r in rows:
        times = [r.get(key) for key in ("load_seconds", "prepared_seconds", "first_run_seconds", "later_run_seconds")]  # fmt: skip
        shown = " | ".join("" if t is None else f"{1e3 * t:.1f}" for t in times)
        lines.append(f"| {r['job']['name']} | {shown} |")
    return [*lines, ""]
