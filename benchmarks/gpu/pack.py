"""Put jobs, convc, the benchmark and TVM's runtime (not its compiler: 6 MB instead of 260) into one archive for a machine without network.

There:

    tar xf gpu.tar.xz && cd gpu_check && . ./environment && python3 -m benchmarks.gpu_check run --folder jobs
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from convc.errors import ToolchainError
from convc.toolchain import PINS, installed_version

__all__ = ["pack"]

_ROOT: Final = Path(__file__).parents[2]
_LIBRARIES: Final = ("libtvm_runtime.so", "libtvm_runtime_cuda.so")
# What convc's runtime imports and a machine with torch may lack; compiled for the other machine's Python.
_WHEELS: Final = ("msgspec", "ml_dtypes", "networkx")
_ENVIRONMENT: Final = """\
export PYTHONPATH="$PWD/packages:$PWD${PYTHONPATH:+:$PYTHONPATH}"
export CONVC_TVM_RUNTIME="$PWD/lib/libtvm_runtime.so"
export LD_LIBRARY_PATH="$(python3 -c 'import tvm_ffi, os; print(os.path.join(os.path.dirname(tvm_ffi.__file__), "lib"))' 2>/dev/null)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
"""


def pack(jobs: Path, archive: Path, python: str) -> int:
    """Write the archive and return its bytes.

    Raises:
        ToolchainError: if a wheel for the other machine's Python cannot be had.
    """
    from tvm.libinfo import package_lib_paths

    folders = [Path(p) for p in package_lib_paths()]
    with (
        tempfile.TemporaryDirectory() as name,
        tarfile.open(archive, "w:xz", preset=1, dereference=True) as tar,
    ):
        scratch = Path(name)
        packages = scratch / "packages"
        _unpack_wheels(python, scratch / "wheels", packages)
        (scratch / "environment").write_text(_ENVIRONMENT)
        tar.add(scratch / "environment", "gpu_check/environment")
        tar.add(packages, "gpu_check/packages")
        for library in _LIBRARIES:
            path = next(f / library for f in folders if (f / library).is_file())
            tar.add(path, f"gpu_check/lib/{library}")
        for part in ("convc", "benchmarks"):
            for path in sorted((_ROOT / part).rglob("*")):
                if path.suffix in (".py", ".csv") and path.is_file():
                    tar.add(path, f"gpu_check/{path.relative_to(_ROOT)}")
        for path in sorted(jobs.iterdir()):
            if path.is_file():
                tar.add(path, f"gpu_check/jobs/{path.name}")
    return archive.stat().st_size


def _unpack_wheels(python: str, wheels: Path, packages: Path) -> None:
    ffi = next(pin for pin in PINS if pin.package == "apache-tvm-ffi")
    wanted = [f"{ffi.package}=={ffi.version}", *(f"{w}=={installed_version(w)}" for w in _WHEELS)]
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", python,
        "--implementation", "cp", "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_17_x86_64", "-d", str(wheels), *wanted,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolchainError(f"wheels for Python {python} must be available ({', '.join(wanted)}); pip says:\n{done.stderr.strip()}")  # fmt: skip
    for wheel in wheels.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(packages)
