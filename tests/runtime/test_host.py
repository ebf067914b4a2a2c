from __future__ import annotations

import os
from pathlib import Path

import pytest

from convc.runtime import TargetInfo, host
from convc.target import ISA_FEATURES

V2_MOUNT = "31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "33 23 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:11 - cgroup cgroup rw,cpu,cpuacct\n"
HYBRID_MOUNT = "32 23 0:28 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n"
OTHER_MOUNT = "34 23 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\nnonsense\n"


def tree(root: Path, **files: str) -> Path:
    """Write files under `root`; in the keyword's name `__` is a slash and `_dot_` a dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def machine(root: Path, cgroup: str, mounts: str, quotas: dict[str, str]) -> Path:
    tree(root, proc__self__cgroup=cgroup, proc__self__mountinfo=mounts)
    for name, text in quotas.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "mounts", "quotas", "expected"),
    [
        ("0::/\n", V2_MOUNT, {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", V2_MOUNT, {"cpu.max": "max 100000\n"}, None),
        (
            "0::/a/b\n",
            V2_MOUNT,
            {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"},
            0.5,
        ),
        ("0::/a/b\n", V2_MOUNT, {"a/b/cpu.max": "10 10\n", "a/cpu.max": "30 10\n"}, 1.0),
        # a container sees its own cgroup as the mount's root, yet its path may be the host's
        ("0::/docker/4f2a\n", V2_MOUNT, {"cpu.max": "200000 100000\n"}, 2.0),
        (
            "4:cpu,cpuacct:/job\n3:memory:/x\n",
            V1_MOUNT + OTHER_MOUNT,
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "300000\n",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        (
            "4:cpu,cpuacct:/\n",
            V1_MOUNT,
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        # hybrid: version 2 is mounted beside version 1, which has the CPU controller
        (
            "4:cpu,cpuacct:/\n0::/\n",
            V1_MOUNT + HYBRID_MOUNT,
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "100000\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "unified/cpu.max": "max 100000\n",
            },
            1.0,
        ),
        ("3:cpuset:/\n", V2_MOUNT, {"cpu.max": "1 1\n"}, None),
        ("garbage\n0::/../..\n::\n", V2_MOUNT, {"cpu.max": "1 1\n"}, None),
        ("0::/\n", V2_MOUNT, {"cpu.max": "fast 0 1\n"}, None),
        ("0::/\n", V2_MOUNT, {"cpu.max": "100 0\n"}, None),
        ("", "", {}, None),
    ],
)
def test_cpu_quota(
    tmp_path: Path, cgroup: str, mounts: str, quotas: dict[str, str], expected: float | None
) -> None:
    assert host.cpu_quota(machine(tmp_path, cgroup, mounts, quotas)) == expected


def test_threads_and_where_they_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    free = machine(tmp_path / "free", "0::/\n", V2_MOUNT, {"cpu.max": "max 100000\n"})
    capped = machine(tmp_path / "capped", "0::/\n", V2_MOUNT, {"cpu.max": "250000 100000\n"})
    tiny = machine(tmp_path / "tiny", "0::/\n", V2_MOUNT, {"cpu.max": "10000 100000\n"})
    assert host.describe_threads(free) == "4 (affinity 4 of 8, no cgroup quota)"
    assert host.describe_threads(capped) == "3 (affinity 4 of 8, cgroup quota 2.5)"
    assert host.describe_threads(tiny) == "1 (affinity 4 of 8, cgroup quota 0.1)"


def test_this_machine_has_what_it_says() -> None:
    assert 1 <= host.usable_threads() <= (os.cpu_count() or 1)
    assert host.describe_threads().startswith(f"{host.usable_threads()} (affinity ")


def test_flags_get_llvm_names(tmp_path: Path) -> None:
    text = (
        "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu sse4_1 bmi1 bmi2 avx512f avx512_vnni avx512_bf16"
        " amx_tile fma unknown_flag\n\nprocessor\t: 1\nmodel name\t: B CPU\nflags\t\t: fpu\n"
    )
    found = host.read_cpu(tree(tmp_path, proc__cpuinfo=text), "AMD64")
    assert (found.name, found.machine) == ("A CPU", "x86_64")
    assert found.features == {
        *("sse4.1", "bmi", "bmi2", "avx512f", "avx512vnni", "avx512bf16", "amx-tile", "fma")
    }


def test_arm_flags(tmp_path: Path) -> None:
    text = "processor\t: 0\nFeatures\t: fp asimd asimddp asimdhp sve\nCPU part\t: 0xd40\n"
    found = host.read_cpu(tree(tmp_path, proc__cpuinfo=text), "aarch64")
    assert found.features == {"neon", "dotprod", "fullfp16", "sve"}
    assert (found.name, found.machine) == ("0xd40", "aarch64")


def test_unreadable_cpuinfo_has_no_features(tmp_path: Path) -> None:
    assert host.read_cpu(tmp_path, "x86_64") == host.Cpu("unknown CPU", "x86_64", frozenset())


def test_missing_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        host, "cpu", lambda: host.Cpu("A CPU", "x86_64", frozenset({"avx2", "fma"}))
    )
    target = TargetInfo("llvm", "x86_64-linux-gnu", "x", ("fma", "zzz", "avx512f"))
    assert host.missing_features(target) == ("avx512f", "zzz")


def test_every_feature_that_a_target_asks_for_is_known() -> None:
    """A name in the compiler's table but not in this one would refuse every machine."""
    assert set(ISA_FEATURES) <= host.LLVM_FEATURES


def test_every_feature_is_llvms() -> None:
    tvm = pytest.importorskip("tvm")
    known: set[str] = set()
    for cpu in (
        "sapphirerapids",
        "graniterapids",
        "znver5",
        "znver4",
        "bdver4",
        "knm",
        "tigerlake",
        "sierraforest",
    ):
        features = tvm.target.codegen.llvm_get_cpu_features(
            tvm.target.Target({"kind": "llvm", "mcpu": cpu, "mtriple": "x86_64-linux-gnu"})
        )
        known.update(str(name) for name in features)
    arm = {"neon", "dotprod", "fullfp16", "lse", "crc", "complxnum", "bf16", "i8mm", "sha2", "sha3"}
    arm |= {"sve", "sve2", "sme", "sme2"}
    assert host.LLVM_FEATURES - known - arm == set()
