"""Find and load TVM's runtime library, without importing TVM.

A module's code calls three functions of `libtvm_runtime.so` (parallel launch, workspace), and those register themselves with
`libtvm_ffi.so` when they are loaded. Both libraries together are 6 MB; the compiler, 260 MB, stays on disk.

A process can hold ONE copy: a second one would register the same functions again, which ends the process. So a copy that is
already there, TVM's own for instance, is used before anything is searched, and the installed wheel goes before a library beside
the module's file: a later `import tvm` then finds the copy that is already there.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from convc.errors import PackageError, ToolchainError
from convc.runtime.manifest import Manifest

__all__ = ["ENVIRONMENT", "Runtime", "check_abi", "runtime_library"]

ENVIRONMENT: Final = "CONVC_TVM_RUNTIME"
_FILE: Final = "libtvm_runtime.so"
_WHEEL: Final = "apache-tvm"
_HINT: Final = (
    "Install it with `pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1`."
)
# void tvm::runtime::threading::SetMaxConcurrency(int): the size of this thread's pool, before it has one.
_SET_MAX_CONCURRENCY: Final = "_ZN3tvm7runtime9threading17SetMaxConcurrencyEi"

# The releases within which a module's code and the runtime fit together; libconvc has the same (load.cc).
_MADE_WITH: Final = ("0.27.", "0.1.")

_lock = threading.Lock()
_loaded: Runtime | None = None


@dataclass(frozen=True, slots=True)
class Runtime:
    """The loaded library and the functions of it that convc calls itself; all three concern the calling thread only."""

    path: Path
    set_max_concurrency: Callable[[int], None]
    config_threadpool: Callable[[int, int], None]
    num_threads: Callable[[], int]


def runtime_library(beside: Path | None = None) -> Runtime:
    """Return TVM's runtime, loaded on the first call.

    Args:
        beside: a folder, usually the module file's, to look into last.

    Raises:
        ToolchainError: if tvm_ffi or the library is missing, or is not the version that convc works with.
    """
    global _loaded
    with _lock:
        if _loaded is None:
            _loaded = _load(beside)
        return _loaded


def check_abi(manifest: Manifest) -> None:
    """Raise if a module's code was made for another TVM than the runtime is; none of the code is loaded to find out.

    Raises:
        PackageError: names both.
    """
    tvm, ffi = _MADE_WITH
    if not manifest.tvm.startswith(tvm) or not manifest.tvm_ffi.startswith(ffi):
        raise PackageError(
            f"module must be made with apache-tvm {tvm}x and apache-tvm-ffi {ffi}x; got {manifest.tvm or 'none'} and"
            f" {manifest.tvm_ffi or 'none'}. Run it with the convc that made it, {manifest.convc}, or compile it again."
        )


def _load(beside: Path | None) -> Runtime:
    try:
        import tvm_ffi
    except ImportError as error:
        raise ToolchainError(
            f"package tvm_ffi must be installed to run a module; got {error}. {_HINT}"
        ) from None
    path = _resident() or find_runtime(beside)
    try:
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
        # PyDLL keeps the interpreter lock: the call takes nanoseconds, giving the lock away and back takes longer.
        set_max_concurrency = ctypes.PyDLL(str(path))[_SET_MAX_CONCURRENCY]
    except (OSError, AttributeError) as error:
        raise ToolchainError(
            f"TVM's runtime must be apache-tvm 0.27's {_FILE}; got '{path}' ({error}). {_HINT}"
        ) from None
    set_max_concurrency.argtypes, set_max_concurrency.restype = [ctypes.c_int], None
    return Runtime(
        path,
        set_max_concurrency,
        tvm_ffi.get_global_func("runtime.config_threadpool"),
        tvm_ffi.get_global_func("runtime.NumThreads"),
    )


def find_runtime(beside: Path | None) -> Path:
    """Return the library's file: from the environment variable, else the installed wheel, else the folder `beside`.

    Raises:
        ToolchainError: lists every place that was searched.
    """
    chosen = os.environ.get(ENVIRONMENT)
    if chosen is not None:
        if not Path(chosen).is_file():
            raise ToolchainError(f"{ENVIRONMENT} must name {_FILE}'s file; got '{chosen}'.")
        return Path(chosen)
    places = {
        f"the package {_WHEEL}": _wheel_file(),
        f"the module's folder '{beside}'": beside / _FILE if beside else None,
    }
    for path in places.values():
        if path is not None and path.is_file():
            return path
    searched = ", ".join(place for place in places if not place.endswith("'None'"))
    raise ToolchainError(
        f"{_FILE} must be found to run a module; got none in {ENVIRONMENT} (not set), {searched}. {_HINT}"
    )


def _wheel_file() -> Path | None:
    try:
        files = importlib.metadata.files(_WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == _FILE), None)


def _resident() -> Path | None:
    """Return the file of the copy this process already holds."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    paths = (line.split(maxsplit=5)[-1] for line in lines if line.endswith("/" + _FILE))
    return next(map(Path, paths), None)
