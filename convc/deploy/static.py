"""Static archive: a module and its runtime as one .a file and a header, to be linked into a program of one's own.

    NAME.a      the model, whose only symbol is `convc_model_NAME`, and libconvc
    NAME.h      declares it;  convc.h, convc.hpp beside it

    convc_load_static(&convc_model_NAME, NULL, &module);     the rest as with a file

Every symbol of the model but that one is made local, so that several models fit into one program. Weights and manifest are
read-only data of the program: mapped with it, never copied.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from convc.deploy.bundle import libraries
from convc.deploy.libconvc import HEADERS, NATIVE, build_objects, find_compiler, run
from convc.errors import PackageError
from convc.lowering.package import SHIM, WRAP, with_own_conversions, write_weights
from convc.runtime.manifest import Manifest, buffer_bytes, encode
from convc.runtime.variants import every_variant

__all__ = ["write_static"]

_PAYLOAD: Final = """\
    .section .rodata.convc, "a", %progbits
    .global convc_manifest, convc_manifest_end, convc_weights
    .balign 4096
convc_weights:
    .incbin "weights.bin"
convc_manifest:
    .incbin "manifest.json"
convc_manifest_end:
    .byte 0
    .section .note.GNU-stack, "", %progbits
"""
_BACKEND: Final = (
    "__TVMBackendParallelLaunch", "__TVMBackendAllocWorkspace", "__TVMBackendFreeWorkspace",
    "__TVMBackendParallelBarrier", "__TVMFFIHandleInitOnce", "__TVMFFIEnvModLookupFromImports", "__TVMFFIFunctionCall",
    "__tvm_ffi__library_bin", "__tvm_ffi_convc_cudnn_watch", "__tvm_ffi_convc_cudnn_watched", "__tvm_ffi_convc_cudnn_users", "convc_stream", "convc_take_workspace", "convc_give_workspace", "convc_raise",
)  # fmt: skip


def write_static(
    objects: Sequence[bytes],
    manifest: Manifest,
    weights: Iterable[tuple[int, NDArray[np.generic]]],
    destination: Path,
    *,
    cc: str = "g++",
) -> Manifest:
    """Write the archive at `destination`, and the headers beside it.

    Args:
        objects: contents of relocatable object files.
        manifest: of the module.
        weights: (byte offset, array), as `convc.lowering.package.link` takes them.
        destination: a file that ends in .a; its name without it names the model's symbol.
        cc: the C++ compiler for the module's machine.

    Returns:
        The manifest as written.

    Raises:
        PackageError: if the name is none that C takes.
        ToolchainError: if there is no such compiler.
        LoweringError: if it fails.
    """
    stem = destination.stem.removeprefix("lib")
    if not re.fullmatch(r"\w+", stem, re.ASCII):
        raise PackageError(
            f"a static archive's name must be letters, digits and _, since it names a C symbol; got '{stem}'."
            " Name another file with -o."
        )
    symbol = f"convc_model_{stem}"
    compiler, destination = find_compiler(cc), destination.absolute()
    with tempfile.TemporaryDirectory(prefix=".convc-", dir=destination.parent) as scratch:
        folder = Path(scratch)
        with (folder / "weights.bin").open("wb") as file:
            digest = write_weights(file, weights, buffer_bytes(manifest.weights_bytes))
        written = msgspec.structs.replace(manifest, weights_sha256=digest)
        (folder / "manifest.json").write_bytes(encode(written))
        (folder / "payload.s").write_text(_PAYLOAD)
        (folder / "shim.cc").write_text(SHIM)
        (folder / "model.cc").write_text(_descriptor(written, symbol))
        parts = []
        for index, content in enumerate(objects):
            (folder / f"part{index}.o").write_bytes(content)
            parts.append(f"part{index}.o")
        if len(parts) > 1:
            parts = with_own_conversions(compiler, parts, folder)
        run([compiler, "-c", "-O2", "-g0", "-fPIC", f"-I{NATIVE / 'src'}", "payload.s", "shim.cc", "model.cc"], folder)  # fmt: skip
        everything = [*parts, "shim.o", "payload.o", "model.o"]
        # Inline functions of a C++ shim come in groups, of which the linker keeps one among all archives: here each has its own.
        run(
            [
                compiler,
                "-r",
                "-nostdlib",
                "-Wl,--force-group-allocation",
                WRAP,
                "-o",
                f"{stem}.o",
                *everything,
            ],
            folder,
        )
        objcopy, ar = (
            run([compiler, f"-print-prog-name={tool}"], folder).strip()
            for tool in ("objcopy", "ar")
        )
        run([objcopy, f"--keep-global-symbol={symbol}", f"{stem}.o"], folder)
        runtime = folder / "runtime"
        runtime.mkdir()
        # D: no times, no owners: equal input, equal bytes.
        run([ar, "rcsD", "archive.a", f"{stem}.o", *build_objects(runtime, cc)], folder)
        (folder / "archive.a").replace(destination)
    header = destination.with_name(f"{stem}.h")
    header.write_text(_header(written, stem, symbol), encoding="utf-8")
    for source in HEADERS:
        shutil.copyfile(source, destination.with_name(source.name))
    return written


def _descriptor(manifest: Manifest, symbol: str) -> str:
    """Return the C++ source of the table that stands for the dynamic linker's: name -> address."""
    parts = [part for v in every_variant(manifest) for part in (v, *v.smaller)]
    functions = {part.entry for part in parts}
    functions |= {
        s.symbol for part in parts for step in part.steps for s in (step, *step.otherwise)
    }
    names = [*(f"__tvm_ffi_{name}" for name in sorted(functions)), *_BACKEND]
    # Weak: a model without parallel kernels has no variable for launching them, one for CPUs no kernels of a device.
    declared = "\n".join(f"extern char {name}[] __attribute__((weak));" for name in names)
    rows = "\n".join(f'    {{"{name}", {name}}},' for name in names)
    return f"""\
#include "abi.h"
extern "C" {{
{declared}
extern const unsigned char convc_manifest[], convc_manifest_end[], convc_weights[];
static const convc_symbol symbols[] = {{
{rows}
}};
extern const convc_static_module {symbol};
const convc_static_module {symbol} = {{
    1, convc_manifest, {len(encode(manifest))}, convc_weights, {buffer_bytes(manifest.weights_bytes)},
    symbols, sizeof symbols / sizeof *symbols}};
}}
"""


def _header(manifest: Manifest, stem: str, symbol: str) -> str:
    guard = f"CONVC_MODEL_{stem.upper()}_H_"
    ports = "\n".join(
        f" *   {kind} {index}: {t.name}, {t.dtype} {' x '.join(map(str, t.shape)) or 'scalar'}"
        for kind, tensors in (("input", manifest.inputs), ("output", manifest.outputs))
        for index, t in enumerate(tensors)
    )
    # A name from the model may hold whatever ends a comment.
    ports = ports.replace("*/", "* /")
    return f"""\
/* The network '{manifest.name.replace("*/", "* /")}', compiled by convc {manifest.convc} for {", ".join((manifest.target.mcpu, *manifest.target.device))}.
 *
{ports}
 *
 * Link with {stem}.a and -lpthread -ldl -lm{" -lstdc++" if libraries(manifest) else ""}.
 */
#ifndef {guard}
#define {guard}

#include "convc.h"

#ifdef __cplusplus
extern "C" {{
#endif
/* For convc_load_static. */
extern const convc_static_module {symbol};
#ifdef __cplusplus
}}
#endif
#endif
"""
