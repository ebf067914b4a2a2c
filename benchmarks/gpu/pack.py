"""Put jobs, convc, the benchmark and TVM's runtime (not its compiler: 6 MB instead of 260) into one archive for a machine without network.

There:

    tar xf gpu.tar.xz && cd gpu_check && . ./environment && python3 -m benchmarks.gpu_check run --folder jobs

An archive named `.tar.zst` is written by the program zstd with a window of 2 GiB: a layer's settings hold the same weights in a few
orders, megabytes apart. 198 jobs of layers, 1.2 GB, became 30 MB; xz took 14 minutes. There, with zstd on that machine,
`zstd -dc --long=31 gpu.tar.zst | tar x` instead.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from convc.errors import InputError, ToolchainError
from convc.toolchain import PINS, installed_version

__all__ = ["pack"]

_ROOT: Final = Path(__file__).parents[2]
_LIBRARIES: Final = ("libtvm_runtime.so", "libtvm_runtime_cuda.so")
# What convc's runtime imports and a machine with torch may lack; compiled for the other machine's Python.
_WHEELS: Final = ("msgspec", "ml_dtypes", "networkx", "filelock")
_ENVIRONMENT: Final = """\
export PYTHONPATH="$PWD/packages:$PWD${PYTHONPATH:+:$PYTHONPATH}"
export CONVC_TVM_RUNTIME="$PWD/lib/libtvm_runtime.so"
export LD_LIBRARY_PATH="$(python3 -c 'import tvm_ffi, os; print(os.path.join(os.path.dirname(tvm_ffi.__file__), "lib"))' 2>/dev/null)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
"""


def pack(jobs: Path, archive: Path, python: str) -> int:
    """Write the archive and return its bytes.

    Args:
        jobs: the folder that `build` filled.
        archive: `*.tar.xz`, or `*.tar.zst`, which takes the program zstd here and there.
        python: the other machine's version, `3.12` say.

    Raises:
        InputError: if the archive has another suffix.
        ToolchainError: if a wheel for the other machine's Python cannot be had, or zstd is missing or fails.
    """
    from tvm.libinfo import package_lib_paths

    folders = [Path(p) for p in package_lib_paths()]
    with (
        tempfile.TemporaryDirectory() as name,
        _written(archive) as tar,
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


@contextmanager
def _written(archive: Path) -> Iterator[tarfile.TarFile]:
    """Open an archive by its suffix; what was written of one that fails is removed."""
    openers = {".tar.xz": _by_xz, ".tar.zst": _by_zstd}
    by = next((opener for suffix, opener in openers.items() if archive.name.endswith(suffix)), None)
    if by is None:
        raise InputError(f"an archive must be a .tar.xz or .tar.zst; got '{archive}'. Try -o gpu.tar.xz.")  # fmt: skip
    try:
        with by(archive) as tar:
            yield tar
    except BaseException:
        archive.unlink(missing_ok=True)
        raise


def _by_xz(archive: Path) -> AbstractContextManager[tarfile.TarFile]:
    return tarfile.open(archive, "w:xz", preset=1, dereference=True)


@contextmanager
def _by_zstd(archive: Path) -> Iterator[tarfile.TarFile]:
    if shutil.which("zstd") is None:
        raise ToolchainError(f"the program zstd must be on PATH to write '{archive}'; got none. Install it, or try -o gpu.tar.xz.")  # fmt: skip
    command = ["zstd", "--quiet", "--force", "--long=31", "-7", "-T0", "-o", str(archive)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as packer:
        assert packer.stdin is not None
        try:
            with tarfile.open(fileobj=packer.stdin, mode="w|", dereference=True) as tar:
                yield tar
            packer.stdin.close()
        except BrokenPipeError:
            pass  # zstd has ended: its code says so below
        if code := packer.wait():
            raise ToolchainError(f"zstd must write '{archive}'; got exit code {code}.")


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
