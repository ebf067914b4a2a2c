"""The table of whole networks: convc's own choice, with cuDNN, and torch's, by network, batch and element type."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.gpu.supervise import Unfinished

__all__ = ["models", "number"]

Result = Mapping[str, Any]

# Columns of torch's times: what they are called, by which element type and math.
_EAGER: Final = (("float32", "", "eager_fp32"), ("float32", "tf32", "eager_tf32"), ("float16", "", "eager_fp16"))  # fmt: skip

# torch's columns behind ours.
_TORCH: Final = ("eager", "compiled", "compiled_cudnn")

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
        "torch in channels last: eager in a CUDA graph, which is cuDNN's time, and `torch.compile(mode='max-autotune')`, with Triton's kernels tried for convolutions, and with cuDNN's alone.", "",
        "| network | error | convc | own kernels | with cuDNN | torch | torch.compile | convolutions by cuDNN |", "|---|---|---|---|---|---|---|---|",
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
        for dtype, rounding, name in _EAGER:
            if name in result.get("peer", {}):
                rows.setdefault((*key[:2], dtype, rounding), {})["eager"] = result["peer"][name]
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
