"""The table of whole networks: convc's own choice, with cuDNN, and torch's, by network, batch and element type."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Final

from benchmarks.gpu.supervise import Unfinished

__all__ = ["models", "number"]

Result = Mapping[str, Any]

# torch's times without a compiler: their label, by which element type and math.
_EAGER: Final = (("float32", "", "fp32"), ("float32", "tf32", "tf32"), ("float16", "", "fp16"))

# torch's columns behind ours.
_TORCH: Final = ("eager", "folded", "compiled", "compiled_cudnn")

# Who computed a network's convolutions.
_COLUMNS: Final = {"": "convc", "own": "own kernels", "cudnn": "with cuDNN"}


def number(value: float | None, form: str = "") -> str:
    """Return a figure as it is shown; what is no number, which JSON keeps as null, is "NaN"."""
    return "NaN" if value is None or not math.isfinite(value) else format(value, form)


def models(found: Sequence[Result], cut_off: Sequence[Unfinished]) -> list[str]:
    """Return the table's lines, and what of torch.compile did not finish.

    Args:
        found: all results.
        cut_off: jobs that their limit ended.
    """
    lines = [
        "## Networks, milliseconds", "",
        "`convc` is its own choice among all, `own kernels` without cuDNN, `with cuDNN` by cuDNN wherever it applies. Rows `tf32` are torch's alone: convc's float32 is float32.", "",
        "torch in channels last: eager in a CUDA graph, which is cuDNN's time, as the network is and with its batch normalisations folded into convolutions; that one by",
        "`torch.compile(mode='max-autotune')`, and by the same without a search: convolutions are cuDNN's, products cuBLAS's.", "",
        "| network | error | convc | own kernels | with cuDNN | torch | folded | torch.compile | without a search |", "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    rows: dict[tuple[str, int, str, str], dict[str, Any]] = {}
    for result in found:
        job = result["job"]
        key = (job["model"], job["batch"], job["dtype"])
        if job["part"] == "compiled" and "compiled" in result:
            alone = job["library"] == "cudnn"
            row = rows.setdefault((*key, "" if alone else job["library"]), {})
            row["compiled_cudnn" if alone else "compiled"] = result["compiled"]
        if job["part"] != "models" or "seconds" not in result:
            continue
        row = rows.setdefault((*key, ""), {})
        row[_COLUMNS[job["library"]]] = result
        for (dtype, rounding, label), way in product(_EAGER, _TORCH[:2]):
            if (name := f"{way}_{label}") in result.get("peer", {}):
                rows.setdefault((*key[:2], dtype, rounding), {})[way] = result["peer"][name]
    lines += [_row(key, rows[key]) for key in sorted(rows)]
    if cut_off:
        lines += ["", "Not finished:", ""]
        lines += [f"- {u.job.name}: {u.seconds:.0f} s in {u.tries} {'tries' if u.tries > 1 else 'try'}" for u in cut_off]  # fmt: skip
    return [*lines, ""]


def _row(key: tuple[str, int, str, str], row: Mapping[str, Any]) -> str:
    name, batch, dtype, math = key
    errors = [
        f"{number(row[who]['error'], '.1e')}{'' if row[who]['ok'] else ' WRONG'}"
        for who in _COLUMNS.values()
        if who in row
    ]
    ours = [_ms(row[who]["seconds"]) if who in row else "" for who in _COLUMNS.values()]
    theirs = [_ms(row[who]) if who in row else "" for who in _TORCH]
    return f"| {name}, {batch}, {math or dtype} | {', '.join(errors)} | {' | '.join([*ours, *theirs])} |"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}"
