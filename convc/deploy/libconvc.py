"""Build libconvc, the C runtime of packaged modules, from the sources that come with convc.

It is built when a bundle is made, by the compiler that links modules anyway, so that one recipe serves every machine that there is
a cross compiler for. A second for the whole library, 70 KB.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from convc.errors import LoweringError, ToolchainError

__all__ = ["EXAMPLES", "HEADERS", "LIBRARY", "NATIVE", "build_library", "build_objects", "find_compiler", "run"]  # fmt: skip

NATIVE: Final = Path(__file__).parent / "native"
HEADERS: Final = (NATIVE / "include" / "convc.h", NATIVE / "include" / "convc.hpp")
EXAMPLES: Final = NATIVE / "examples"
LIBRARY: Final = "libconvc.so"

# No exceptions and no run-time types: nothing of libstdc++ is left in the library, and nothing can be thrown out of it.
_COMPILE: Final = (
    "-std=c++17", "-O2", "-g0", "-fPIC", "-fno-exceptions", "-fno-rtti", "-fvisibility=hidden",
    "-fno-threadsafe-statics", "-Wall", "-Wextra", "-Wconversion",
)  # fmt: skip
# nodelete: a module's code, or a worker that is about to end, may still be inside when a program closes the library.
_LINK: Final = ("-shared", f"-Wl,-soname,{LIBRARY}", "-Wl,-z,nodelete,-z,defs,-z,relro,-z,now,--as-needed,--build-id=none", "-ldl", "-lpthread")  # fmt: skip


def find_compiler(name: str) -> str:
    """Return the compiler's path.

    Raises:
        ToolchainError: if it is not on PATH.
    """
    found = shutil.which(name)
    if found is None:
        package = f"g++-{name.removesuffix('-g++')}" if name.endswith("-linux-gnu-g++") else "g++"
        raise ToolchainError(
            f"cc must be a C++ compiler on PATH; got '{name}', which is none."
            f" Install it with `apt-get install {package}`."
        )
    return found


def build_library(folder: Path, cc: str = "g++", options: Sequence[str] = ()) -> Path:
    """Build libconvc.so in `folder`.

    Args:
        folder: exists.
        cc: the C++ compiler.
        options: more of its options, such as `-fsanitize=address`.

    Raises:
        ToolchainError: if there is no such compiler.
        LoweringError: if it fails.
    """
    compiler, library = find_compiler(cc), folder / LIBRARY
    run([compiler, *_COMPILE, *options, *_sources(), *_LINK, "-o", library.name], folder)
    return library


def build_objects(folder: Path, cc: str = "g++", options: Sequence[str] = ()) -> list[Path]:
    """Build libconvc's object files in `folder`, for a static archive; arguments and errors as `build_library`."""
    run([find_compiler(cc), *_COMPILE, *options, "-c", *_sources()], folder)
    return sorted(folder / f"{Path(source).stem}.o" for source in _sources())


def _sources() -> list[str]:
    return sorted(str(path) for path in (NATIVE / "src").glob("*.cc"))


def run(command: Sequence[str | Path], folder: Path) -> str:
    """Run a tool of the compiler's in `folder` and return what it printed.

    Raises:
        LoweringError: with the tool's own message, if it fails.
    """
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=os.environ | {"LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LoweringError(
            f"`{Path(command[0]).name}` must succeed; got exit code {done.returncode}:\n{done.stderr.strip()}"
        )
    return done.stdout
