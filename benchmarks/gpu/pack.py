"""Put jobs, convc, the benchmark and TVM's runtime (not its compiler: 6 MB instead of 260) into one archive for a machine without network.

There:

    tar xf gpu.tar.xz && cd gpu_check && . ./environment && python3 -m benchmarks.gpu_check run --folder jobs

An archive named `.tar.zst` is written by the program zstd with a window of 2 GiB: a layer's settings hold the same weights in a few
orders, megabytes apart. 198 jobs of layers, 1.2 GB, became 30 MB; xz took 14 minutes. There, with zstd on that machine,
`zstd -dc --long=31 gpu.tar.zst | tar x` instead.

With a file of layers the archive is for tuning them there: TVM whole, convc whole with its device logs. It takes nvcc and g++ there.
"""

from __future__ import annotations

import lzma
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
# What convc's runtime imports and a machine with torch may lack; compiled for the other machine's Python. Its compiler imports more.
_WHEELS: Final = ("msgspec", "ml_dtypes", "networkx", "filelock")
_COMPILER_WHEELS: Final = (*_WHEELS, "platformdirs", "psutil")
# Of the wheels of TVM and its FFI what nobody imports, 90 MB.
_UNUSED: Final = ("tvm/3rdparty", "tvm/web", "tvm/include", "tvm/src", "tvm/cmake", "tvm/licenses", "tvm_ffi/3rdparty", "tvm_ffi/lib/*.a")  # fmt: skip
# pip matches these exactly.
_PLATFORMS: Final = ("manylinux_2_28_x86_64", "manylinux_2_24_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")  # fmt: skip
_FOLDER: Final = "gpu_check"
_PACKAGES: Final = """\
export PYTHONPATH="$PWD/packages:$PWD${PYTHONPATH:+:$PYTHONPATH}"
"""
_RUNTIME: Final = """\
export CONVC_TVM_RUNTIME="$PWD/lib/libtvm_runtime.so"
export LD_LIBRARY_PATH="$(python3 -c 'import tvm_ffi, os; print(os.path.join(os.path.dirname(tvm_ffi.__file__), "lib"))' 2>/dev/null)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
"""


def pack(jobs: Path, archive: Path, python: str, tasks: Path | None = None) -> int:
    """Write the archive and return its bytes.

    Args:
        jobs: the folder that `build` filled; with tasks it may be missing.
        archive: `*.tar.xz`, or `*.tar.zst`, which takes the program zstd here and there.
        python: the other machine's version, `3.12` say.
        tasks: layers to be tuned there; the archive then holds TVM's compiler.

    Raises:
        InputError: if the archive has another suffix.
        ToolchainError: if a wheel for the other machine's Python cannot be had, or zstd is missing or fails.
    """
    compiles = tasks is not None
    with tempfile.TemporaryDirectory() as name, _written(archive, compiles) as tar:
        scratch = Path(name)
        packages = scratch / "packages"
        _unpack_wheels(python, compiles, scratch / "wheels", packages)
        (scratch / "environment").write_text(_PACKAGES if compiles else _PACKAGES + _RUNTIME)
        tar.add(scratch / "environment", f"{_FOLDER}/environment")
        tar.add(packages, f"{_FOLDER}/packages")
        for path, inside in _program(compiles):
            tar.add(path, f"{_FOLDER}/{inside}")
        if tasks is not None:
            tar.add(tasks, f"{_FOLDER}/tasks.jsonl")
        for path in sorted(jobs.iterdir()) if jobs.is_dir() or not compiles else ():
            if path.is_file():
                tar.add(path, f"{_FOLDER}/jobs/{path.name}")
    return archive.stat().st_size


def _program(compiles: bool) -> Iterator[tuple[Path, str]]:
    """Yield the files of convc, the benchmark and TVM's runtime, with their places in the archive."""
    from tvm.libinfo import package_lib_paths

    if not compiles:
        folders = [Path(p) for p in package_lib_paths()]
        for library in _LIBRARIES:
            yield next(f / library for f in folders if (f / library).is_file()), f"lib/{library}"
    places = [
        # Native parts are sources, compiled there: the shims of libraries.
        ("convc", None if compiles else (".py",)),
        ("benchmarks", (".py", ".csv")),
        *([("tuning_logs/cuda", (".jsonl",))] if compiles else []),
    ]
    for part, suffixes in places:
        for path in sorted((_ROOT / part).rglob("*")):
            if path.is_file() and path.suffix != ".pyc" and (suffixes is None or path.suffix in suffixes):  # fmt: skip
                yield path, str(path.relative_to(_ROOT))


@contextmanager
def _written(archive: Path, compiles: bool) -> Iterator[tarfile.TarFile]:
    """Open an archive by its suffix; what was written of one that fails is removed."""
    openers = {".tar.xz": _by_much_xz if compiles else _by_xz, ".tar.zst": _by_zstd}
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
def _by_much_xz(archive: Path) -> Iterator[tarfile.TarFile]:
    """As small as xz can: 250 MB of machine code, which a machine may only take 64 MiB of, in 3 minutes of one core."""
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 256 << 20}]  # fmt: skip
    with (
        lzma.open(archive, "wb", filters=filters) as packed,
        tarfile.open(fileobj=packed, mode="w|", dereference=True) as tar,
    ):
        yield tar


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


def _unpack_wheels(python: str, compiles: bool, wheels: Path, packages: Path) -> None:
    pins = [p for p in PINS if compiles or p.package == "apache-tvm-ffi"]
    others = _COMPILER_WHEELS if compiles else _WHEELS
    wanted = [*(f"{p.package}=={p.version}" for p in pins), *(f"{w}=={installed_version(w)}" for w in others)]  # fmt: skip
    platforms = [a for p in _PLATFORMS for a in ("--platform", p)]
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", python,
        "--implementation", "cp", *platforms, "-d", str(wheels), *wanted,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolchainError(f"wheels for Python {python} must be available ({', '.join(wanted)}); pip says:\n{done.stderr.strip()}")  # fmt: skip
    for wheel in wheels.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(packages)
    for path in (p for pattern in _UNUSED for p in packages.glob(pattern)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
