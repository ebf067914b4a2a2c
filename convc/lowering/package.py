"""Write a packaged module: TVM's objects, a payload object and a small shim, linked to a shared library and sealed.

The payload's two sections are not loaded by the dynamic loader (no ALLOC flag): weights of any size neither slow down `dlopen`
nor meet the 2 GB limit of relative addresses, and the runtime maps them from the file. Same input, same bytes: nothing in the
file names a time, a path or a machine.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from convc.errors import LoweringError, ToolchainError
from convc.runtime.elf import find_sections
from convc.runtime.manifest import Manifest, buffer_bytes, check, encode
from convc.runtime.package import MANIFEST_SECTION, PAGE, WEIGHTS_SECTION
from convc.runtime.seal import seal_of

__all__ = ["SHIM", "WRAP", "link", "with_own_conversions", "write_weights"]

# .note.GNU-stack: without it the linker takes the hand-written object as asking for an executable stack.
_PAYLOAD: Final = f"""\
    .section {MANIFEST_SECTION}, "", %progbits
    .incbin "manifest.json"
    .section {WEIGHTS_SECTION}, "", %progbits
    .balign {PAGE}
    .incbin "weights.bin"
    .section .note.GNU-stack, "", %progbits
"""
# How a kernel reports an error. TVM's code calls a function of libtvm_ffi, which a product does not ship; with --wrap the call
# comes here and goes on to whichever runtime has loaded the module: libconvc fills the variable in, else libtvm_ffi is there.
SHIM: Final = """\
extern "C" {
using Raise = void(const char *kind, const char **parts, int count);
__attribute__((visibility("default"))) Raise *convc_raise = nullptr;
__attribute__((weak)) Raise __real_TVMFFIErrorSetRaisedFromCStrParts;
__attribute__((visibility("hidden"))) void __wrap_TVMFFIErrorSetRaisedFromCStrParts(
    const char *kind, const char **parts, int count) {
  (convc_raise ? convc_raise : __real_TVMFFIErrorSetRaisedFromCStrParts)(kind, parts, count);
}
}
"""
_CONVERSIONS: Final = (
    "__extendhfsf2",
    "__truncsfhf2",
    "__truncdfhf2",
    "__truncsfbf2",
    "__truncdfbf2",
)
# -Bsymbolic: a step is this library's own, even if the process has another library's symbol of that name.
WRAP: Final = "-Wl,--wrap=TVMFFIErrorSetRaisedFromCStrParts"
_FLAGS: Final = (
    "-shared",
    "-fPIC",
    "-Wl,--build-id=none,-Bsymbolic,--as-needed,--strip-debug",
    WRAP,
)


def link(
    objects: Sequence[Path],
    manifest: Manifest,
    weights: Iterable[tuple[int, NDArray]],
    destination: Path,
    *,
    compiler: str = "g++",
) -> Manifest:
    """Write the packaged module at `destination`, replacing what was there only once it is complete.

    Args:
        objects: relocatable object files with the entry function and every step.
        manifest: `weights_sha256` may be empty and is filled in.
        weights: (byte offset, contiguous array) in ascending order of offset; gaps and the end are filled with zeros. Taken
            one by one and written straight to disk, so the arrays need not exist all at once.
        destination: the file to write.
        compiler: the C++ compiler driver that links.

    Returns:
        The manifest as written.

    Raises:
        ToolchainError: if there is no such compiler, or no room on the disk.
        LoweringError: if linking fails otherwise, or weights and manifest disagree.
        PackageError: if the manifest contradicts itself.
    """
    check(manifest)
    driver = shutil.which(compiler)
    if driver is None:
        raise ToolchainError(
            f"linking a module must find the compiler '{compiler}'; got none on PATH."
            " Install it with `apt-get install g++`."
        )
    destination = Path(destination).absolute()
    # Beside the destination: the rename at the end must stay on one file system to be atomic.
    with tempfile.TemporaryDirectory(prefix=".convc-", dir=destination.parent) as name:
        folder = Path(name)
        digest = _write_payload(folder, manifest, weights)
        written = msgspec.structs.replace(manifest, weights_sha256=digest)
        (folder / "manifest.json").write_bytes(encode(written))
        # Relative names only, and .s, not .S: the preprocessor would write the path into the object.
        (folder / "payload.s").write_text(_PAYLOAD)
        (folder / "shim.cc").write_text(SHIM)
        _run([driver, "-c", "-O2", "-fPIC", "payload.s", "shim.cc"], folder)
        sources = [str(Path(path).absolute()) for path in objects]
        if len(sources) > 1:
            sources = with_own_conversions(driver, sources, folder)
        _run([driver, *_FLAGS, "-o", "module.so", "shim.o", *sources, "payload.o"], folder)
        _seal(folder / "module.so")
        os.replace(folder / "module.so", destination)
    return written


def with_own_conversions(driver: str, objects: Sequence[str], folder: Path) -> list[str]:
    """Return copies of the objects in which each keeps its own functions for half precision.

    LLVM puts them into every object, weak, in the instructions of that object's CPU. The linker would keep the first one for
    all: code for one CPU would call instructions of another.
    """
    objcopy = _output([driver, "-print-prog-name=objcopy"], folder).strip()
    options = [f"--localize-symbol={name}" for name in _CONVERSIONS]
    copies = []
    for index, path in enumerate(objects):
        copies.append(f"own{index}.o")
        _run([objcopy, *options, path, copies[-1]], folder)
    return copies


def _seal(file: Path) -> None:
    with file.open("r+b") as stream:
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            seal = seal_of(data, find_sections(data, (WEIGHTS_SECTION,))[WEIGHTS_SECTION])
        stream.seek(0, os.SEEK_END)
        stream.write(seal)


def _write_payload(folder: Path, manifest: Manifest, weights: Iterable[tuple[int, NDArray]]) -> str:
    with (folder / "weights.bin").open("wb") as file:
        digest = write_weights(file, weights, buffer_bytes(manifest.weights_bytes))
    if manifest.weights_sha256 not in ("", digest):
        raise LoweringError(
            f"weights must have the manifest's SHA-256 {manifest.weights_sha256}; got {digest}."
        )
    return digest


def write_weights(file: BinaryIO, weights: Iterable[tuple[int, NDArray]], nbytes: int) -> str:
    """Write arrays at their offsets, zeros in between and up to `nbytes`, and return the SHA-256 of all of it.

    Raises:
        LoweringError: if an array is not contiguous, or begins before the one before it ended, or the last ends behind `nbytes`.
    """
    digest = hashlib.sha256()
    position = 0

    def put(data: bytes | memoryview) -> None:
        nonlocal position
        file.write(data)
        digest.update(data)
        position += len(data)

    def pad(until: int) -> None:
        while position < until:
            put(bytes(min(until - position, 1 << 20)))

    for offset, array in weights:
        if not array.flags.c_contiguous:
            raise LoweringError(
                f"weights at byte {offset} must be C-contiguous; got strides {array.strides}."
            )
        if not position <= offset <= nbytes - array.nbytes:
            raise LoweringError(
                f"weights of {array.nbytes} bytes must lie between byte {position} and {nbytes}; got offset {offset}."
            )
        pad(offset)
        put(array.reshape(-1).view(np.uint8).data)
    pad(nbytes)
    return digest.hexdigest()


def _run(command: list[str], folder: Path) -> None:
    _output(command, folder)


def _output(command: list[str], folder: Path) -> str:
    # C: the linker's messages, which the error shows, in English on every machine.
    environment = os.environ | {"LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if "No space left on device" in result.stderr:
        temporary = tempfile.gettempdir()
        free = {f"'{place}'": shutil.disk_usage(place).free for place in (folder.parent, temporary)}
        raise ToolchainError(
            f"linking a module must have room for its files; got {' and '.join(f'{n} bytes free in {place}' for place, n in free.items())}."
            " Free some, or name another folder for the module, and by TMPDIR for the compiler's own files."
        )
    if result.returncode:
        shown = " ".join([Path(command[0]).name, *command[1:]])
        raise LoweringError(
            f"`{shown}` must succeed; got exit code {result.returncode}:\n{result.stderr.strip()}"
        )
    return result.stdout
