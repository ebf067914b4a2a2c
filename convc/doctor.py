"""Look at this machine and say what convc can do on it, one row per fact, with the command that repairs what is wrong."""

from __future__ import annotations

import functools
import importlib
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from convc.toolchain import PINS, installed_version

__all__ = ["CHECKS", "Check", "diagnose"]

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One fact about this machine.

    Attributes:
        name: what was looked at.
        status: "fail" stops convc, "warn" costs a feature or speed.
        detail: what was found.
        fix: what to do about it; empty if nothing must be done.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""


def _python() -> Check:
    version = platform.python_version()
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Check("python", "ok", f"{version}, {sys.executable}")
    return Check("python", "fail", version, "use Python 3.11, 3.12 or 3.13")


def _pinned(index: int) -> Callable[[], Check]:
    pin = PINS[index]

    def check() -> Check:
        found = installed_version(pin.package)
        if found == pin.version:
            return Check(pin.package, "ok", pin.version)
        detail = f"{found or 'not installed'}; must be {pin.version}: {pin.reason}"
        return Check(pin.package, "fail", detail, f"pip install '{pin.package}=={pin.version}'")

    return check


def _package(
    name: str, *, needed_for: str, required: bool = True, extra: str = ""
) -> Callable[[], Check]:
    def check() -> Check:
        found = installed_version(name)
        if found:
            return Check(name, "ok", found)
        fix = f"pip install '{extra or name}'"
        return Check(name, "fail" if required else "warn", f"not installed; {needed_for}", fix)

    return check


@functools.cache
def _tvm_problem() -> str | None:
    """Return why TVM cannot be asked, or None."""
    if any(installed_version(pin.package) != pin.version for pin in PINS):
        # Importing it could crash the process.
        return "not looked at: apache-tvm is missing or at a wrong version"
    try:
        importlib.import_module("tvm")
    except (ImportError, OSError, RuntimeError) as error:
        return f"TVM does not import: {error}"
    return None


def _llvm() -> Check:
    problem = _tvm_problem()
    if problem is not None:
        return Check("llvm", "fail", problem, "see the rows above")
    from tvm.support import libinfo
    from tvm.target import codegen

    if str(libinfo().get("USE_LLVM", "OFF")).upper() in ("OFF", "NOT-FOUND"):
        fix = "pip install --force-reinstall apache-tvm"
        return Check("llvm", "fail", "this TVM is built without LLVM", fix)
    return Check("llvm", "ok", f"version {codegen.llvm_version_major()}, in apache-tvm")


def _cpu() -> Check:
    if _tvm_problem() is not None:
        return Check("cpu", "warn", f"{platform.machine()}; features not looked at without TVM")
    from convc.target import parse_target

    host = parse_target("llvm", "host")
    shown = [f for f in host.features if f in _FEATURES]
    detail = f"{host.mcpu}, {host.lanes} float32 lanes; {', '.join(shown) or 'no vector features'}"
    if host.triple.startswith("x86_64") and "avx2" not in host.features:
        return Check("cpu", "warn", detail, "kernels are slow below AVX2 and FMA")
    return Check("cpu", "ok", detail)


# Those of a target's features that make kernels fast.
_FEATURES: Final = ("avx2", "fma", "avx512f", "avx512vnni", "avx512bf16")


def _cxx() -> Check:
    path = shutil.which("g++")
    if path is None:
        detail = "not found; `convc compile` links modules with it (running them needs none)"
        return Check(
            "g++", "fail", detail, "install it: apt-get install g++, or dnf install gcc-c++"
        )
    shown = subprocess.run(
        [path, "-dumpfullversion", "-dumpversion"],
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    return Check("g++", "ok", f"{shown.stdout.strip() or 'unknown version'}, {path}")


def _cores() -> Check:
    # The runtime is importable wherever tvm-ffi is; `host` itself needs neither.
    from convc.runtime.host import cpu_quota, describe_threads

    quota = cpu_quota(Path("/"))
    detail = f"usable threads: {describe_threads()}"
    if quota is not None and quota < 1:
        return Check(
            "cores", "warn", detail, "less than one core is granted: timings will be throttled"
        )
    return Check("cores", "ok", detail)


def _memory() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    detail = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB available"
    if memory.available < 2 * 2**30:
        return Check("memory", "warn", detail, "large models take about 2 GiB to compile")
    return Check("memory", "ok", detail)


def _governor() -> Check:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if not path.exists():
        return Check("cpu governor", "ok", "not visible (a virtual machine, or not Linux)")
    governor = path.read_text().strip()
    if governor == "performance":
        return Check("cpu governor", "ok", governor)
    return Check(
        "cpu governor", "warn", f"{governor}; timings vary", "cpupower frequency-set -g performance"
    )


def _nvcc() -> Check:
    # A machine that builds for its CPU lacks nothing without it.
    if _tvm_problem() is not None:
        return Check("nvcc", "ok", "not looked at without TVM")
    from convc.schedules.cuda.nvcc import find_nvcc

    path = find_nvcc()
    if path is None:
        fix = "for --target cuda: apt-get install cuda-nvcc-13-0"
        return Check("nvcc", "ok", "absent; building for cuda needs it", fix)
    shown = subprocess.run(
        [str(path), "--version"], capture_output=True, text=True, check=False, timeout=10
    )
    release = re.search(r"release ([\d.]+)", shown.stdout)
    return Check("nvcc", "ok", f"{release[1] if release else 'unknown version'}, {path}")


def _cutlass() -> Check:
    if _tvm_problem() is not None:
        return Check("cutlass", "ok", "not looked at without TVM")
    from convc.errors import ToolchainError
    from convc.runtime.libraries.cutlass.find import find_cutlass

    try:
        found = find_cutlass()
    except ToolchainError as error:
        return Check("cutlass", "warn", str(error), "unset the variable, or name the folder")
    if found is None:
        fix = "for --algo cutlass: pip install 'convc[cutlass]'"
        return Check("cutlass", "ok", "absent; building modules with CUTLASS in them needs it", fix)
    if found.problem:
        fix = "pip install --upgrade 'convc[cutlass]'"
        return Check("cutlass", "warn", found.problem, fix)
    return Check("cutlass", "ok", str(found))


def _cuda_device() -> Check:
    from convc.runtime.driver import look

    state = look()
    if not state.devices:
        fix = "for modules of target cuda: a GPU with NVIDIA's driver 580 or newer"
        return Check("cuda device", "ok", f"absent; {state.problem}", fix)
    shown = ", ".join(f"{d.name} (sm_{d.sm})" for d in state.devices)
    if state.version < 13000:
        version = f"{state.version // 1000}.{state.version % 1000 // 10}"
        detail = f"{shown}; its driver knows CUDA {version} only"
        return Check(
            "cuda device",
            "warn",
            detail,
            "modules of target cuda need a driver of CUDA 13: 580 or newer",
        )
    return Check("cuda device", "ok", shown)


def _cudart() -> Check:
    if installed_version("apache-tvm-ffi") is None:
        return Check("libcudart.so.13", "ok", "not looked at without tvm-ffi")
    from convc.runtime.cuda import find_cudart

    found = find_cudart()
    if found is None:
        fix = "for modules of target cuda: pip install nvidia-cuda-runtime"
        return Check(
            "libcudart.so.13", "ok", "absent; running modules of target cuda needs it", fix
        )
    return Check("libcudart.so.13", "ok", found)


CHECKS: Final[tuple[Callable[[], Check], ...]] = (
    _python,
    _pinned(0),
    _pinned(1),
    _llvm,
    _cpu,
    _cxx,
    _cores,
    _memory,
    _governor,
    _package("numpy", needed_for="everything needs it"),
    _package("onnx", needed_for=".onnx models cannot be read"),
    _package("networkx", needed_for="graph passes need it"),
    _package("msgspec", needed_for="modules' manifests are read with it"),
    _package("typer", needed_for="the command line needs it"),
    _package("rich", needed_for="the command line needs it"),
    _package(
        "onnxruntime",
        needed_for="`verify --reference onnxruntime` and `bench --vs onnxruntime` need it",
        required=False,
        extra="convc[verify]",
    ),
    _nvcc,
    _cutlass,
    _cuda_device,
    _cudart,
)


def diagnose() -> tuple[Check, ...]:
    """Return all checks' results, in order; nothing is changed or installed."""
    return tuple(check() for check in CHECKS)
