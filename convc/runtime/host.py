"""What this machine is: its CPU's name and instruction sets, and how many threads may run at once."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Final

from convc.runtime.manifest import TargetInfo

__all__ = [
    "LLVM_FEATURES",
    "Cpu",
    "cpu",
    "describe_threads",
    "missing_features",
    "usable_threads",
]

# /proc/cpuinfo's flag -> LLVM's feature, where the two differ. Source: Linux arch/x86/include/asm/cpufeatures.h and
# LLVM X86.td; Linux arch/arm64/kernel/cpuinfo.c and LLVM AArch64Features.td.
_RENAMED: Final[dict[str, str]] = {
    "abm": "lzcnt",
    "pni": "sse3",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "lahf_lm": "sahf",
    "rdrand": "rdrnd",
    "sha_ni": "sha",
    "pclmulqdq": "pclmul",
    "3dnowprefetch": "prfchw",
    "avx_vnni": "avxvnni",
    "avx512_bf16": "avx512bf16",
    "avx512_bitalg": "avx512bitalg",
    "avx512_fp16": "avx512fp16",
    "avx512_vbmi2": "avx512vbmi2",
    "avx512_vnni": "avx512vnni",
    "avx512_vp2intersect": "avx512vp2intersect",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "amx_bf16": "amx-bf16",
    "amx_fp16": "amx-fp16",
    "amx_int8": "amx-int8",
    "amx_tile": "amx-tile",
    "asimd": "neon",
    "asimddp": "dotprod",
    "asimdhp": "fullfp16",
    "atomics": "lse",
    "crc32": "crc",
    "fcma": "complxnum",
}
_SAME: Final = (
    "adx",
    "aes",
    "avx",
    "avx2",
    "avx512bw",
    "avx512cd",
    "avx512dq",
    "avx512f",
    "avx512ifma",
    "avx512vbmi",
    "avx512vl",
    "avxifma",
    "avxvnniint8",
    "bmi1",
    "bmi2",
    "clflushopt",
    "clwb",
    "clzero",
    "cx16",
    "f16c",
    "fma",
    "fma4",
    "fsgsbase",
    "gfni",
    "mmx",
    "movbe",
    "popcnt",
    "rdpid",
    "rdseed",
    "sse",
    "sse2",
    "sse4a",
    "ssse3",
    "tbm",
    "vaes",
    "vpclmulqdq",
    "xop",
    "xsave",
    "xsavec",
    "xsaveopt",
    "xsaves",
    "bf16",
    "i8mm",
    "sve",
    "sve2",
    "sme",
    "sme2",
    "sha2",
    "sha3",
)
_TO_LLVM: Final[dict[str, str]] = {name: name for name in _SAME} | _RENAMED | {"bmi1": "bmi"}
# Every feature that the kernel tells us about, under LLVM's name.
LLVM_FEATURES: Final = frozenset(_TO_LLVM.values())
_MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class Cpu:
    """Name, architecture (LLVM's word) and instruction-set features (LLVM's names) of a processor."""

    name: str
    machine: str
    features: frozenset[str]


@lru_cache(maxsize=1)
def cpu() -> Cpu:
    """Return this machine's processor, read from /proc/cpuinfo once."""
    return read_cpu(Path("/"), platform.machine())


def read_cpu(root: Path, machine: str) -> Cpu:
    """Return the processor that `root`/proc/cpuinfo describes; a missing or foreign file means no features."""
    fields: dict[str, str] = {}
    for line in _lines(root / "proc/cpuinfo"):
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    flags = (fields.get("flags") or fields.get("features") or "").split()
    name = fields.get("model name") or fields.get("cpu part") or "unknown CPU"
    machine = _MACHINES.get(machine.lower(), machine)
    return Cpu(name, machine, frozenset(_TO_LLVM[flag] for flag in flags if flag in _TO_LLVM))


def missing_features(target: TargetInfo) -> tuple[str, ...]:
    """Return the features that code for `target` needs and this CPU lacks, sorted; unknown names count as lacking."""
    return tuple(sorted(set(target.features) - cpu().features))


def usable_threads(root: Path = Path("/")) -> int:
    """Return how many threads can run at once: the cores this process may use, capped by its cgroups' CPU quota."""
    affinity, quota = _affinity()[0], cpu_quota(root)
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def describe_threads(root: Path = Path("/")) -> str:
    """Return the number of usable threads and where it comes from, e.g. `2 (affinity 2 of 2, no cgroup quota)`."""
    allowed, cores = _affinity()
    quota = cpu_quota(root)
    limit = "no cgroup quota" if quota is None else f"cgroup quota {quota:g}"
    return f"{usable_threads(root)} (affinity {allowed} of {cores}, {limit})"


def _affinity() -> tuple[int, int]:
    cores = os.cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores, cores


def cpu_quota(root: Path) -> float | None:
    """Return the smallest CPU quota, in cores, of this process's cgroups and all their ancestors; None without any.

    Both versions count: a hybrid machine mounts version 2 for bookkeeping and version 1 for the CPU controller. A path of
    /proc/self/cgroup that a container does not see is skipped, and the container's own root is still read.

    Source:
        Linux Documentation: cgroup-v1/cgroups.rst, scheduler/sched-bwc.rst (cpu.cfs_*), cgroup-v2.rst (cpu.max).
    """
    quotas: list[float] = []
    for controllers, path in _memberships(root):
        for mount in _mounts(root, controllers):
            for folder in (PurePosixPath(path), *PurePosixPath(path).parents):
                place = mount / str(folder).lstrip("/")
                quota = _quota_v1(place) if controllers else _quota_v2(place)
                if quota is not None:
                    quotas.append(quota)
    return min(quotas, default=None)


def _memberships(root: Path) -> Iterator[tuple[str, str]]:
    """Yield (controllers, path) of this process for the CPU controller; version 2 has no controllers' names."""
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if path and ".." not in path and (not controllers or "cpu" in controllers.split(",")):
            yield controllers, path


def _mounts(root: Path, controllers: str) -> Iterator[Path]:
    """Yield where the version-1 CPU controller, or with no controllers version 2, is mounted."""
    for line in _lines(root / "proc/self/mountinfo"):
        front, _, back = line.partition(" - ")
        fields, kinds = front.split(), back.split()
        if len(fields) < 5 or len(kinds) < 3:
            continue
        is_v1 = kinds[0] == "cgroup" and "cpu" in kinds[2].split(",")
        if (is_v1 and controllers) or (kinds[0] == "cgroup2" and not controllers):
            yield root / fields[4].lstrip("/")


def _quota_v2(folder: Path) -> float | None:
    words = " ".join(_lines(folder / "cpu.max")).split()
    return _ratio(words) if len(words) == 2 else None


def _quota_v1(folder: Path) -> float | None:
    return _ratio([*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")])


def _ratio(words: Iterable[str]) -> float | None:
    """Return quota / period; None where the quota is `max` or -1, or the kernel wrote something else."""
    try:
        quota, period = (int(word) for word in words)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
