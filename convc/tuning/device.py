"""Which device a time was measured on, as a name that is the same on every machine of its kind."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

from convc.runtime.host import cpu
from convc.target import Target
from convc.target.cuda import present_gpu

__all__ = ["another_device", "cpu_id", "device_name", "log_path", "target_name"]


def _slug(text: str) -> str:
    words = re.sub(r"\((r|tm|c)\)|\bcpu\b|\bprocessor\b|@.*", " ", text.lower())
    return re.sub(r"[^a-z0-9.]+", "-", words).strip("-") or "unknown"


def read_cpu_id(text: str) -> str:
    r"""Return family and model of the first CPU in the text of /proc/cpuinfo: virtual machines often hide the name.

    Example:
        >>> read_cpu_id("cpu family\t: 6\nmodel\t\t: 207\nmodel name\t: Intel(R) Xeon(R) Processor\n")
        '6-207'
    """
    fields = dict(re.findall(r"^(cpu family|model)\s*: (\d+)$", text, re.M)[::-1])
    return "-".join(fields[k] for k in ("cpu family", "model") if k in fields)


@cache
def cpu_id() -> str:
    """Return this machine's CPU as a file name: its brand, family and model."""
    try:
        numbers = read_cpu_id(Path("/proc/cpuinfo").read_text(errors="replace"))
    except OSError:
        numbers = ""
    return "-".join(filter(None, (_slug(cpu().name), numbers)))


def device_name(target: Target) -> str:
    """Return the name of the device that this target's code is timed on.

    Example:
        >>> from convc.target import parse_target
        >>> device_name(parse_target("cuda -arch=sm_90"))
        'nvidia-h200'
    """
    if target.device is None:
        return cpu_id()
    # The driver says "NVIDIA H200", a data sheet "H200".
    return "nvidia-" + _slug(target.gpu.name).removeprefix("nvidia-")


def another_device(target: Target) -> list[str]:
    """Return a sentence for the user if this machine's device is not the one that records of the target name."""
    here = present_gpu() if target.device is not None else None
    if here is None:
        return []
    found, named = device_name(replace(target, device=here)), device_name(target)
    if found == named:
        return []
    return [
        f"device must be {named} for target {target}; got {found}, whose times will be recorded as {named}'s. Use --target cuda."
    ]


def target_name(target: Target) -> str:
    """Return what a record's time depends on in the target: records of another instruction set never match.

    Example:
        >>> target_name(Target("llvm", "x86_64-linux-gnu", "znver4", (), 16, 32))
        'llvm x86_64-linux-gnu znver4 16x32'
    """
    if target.device is not None:
        return f"{target.kind} sm_{target.gpu.sm}"
    return f"{target.kind} {target.triple} {target.mcpu} {target.lanes}x{target.registers}"


def log_path(folder: Path, target: Target) -> Path:
    """Return where a device's records are kept under a folder of tuning logs."""
    return folder / target.kind / f"{device_name(target)}.jsonl"
