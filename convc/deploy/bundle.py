"""Bundle: a folder, or a .tar of it, with all that a product needs to run a module and nothing that has to be installed.

NAME/
  NAME.so              the module
  lib/libconvc.so      the runtime
  include/convc.h .hpp
  examples/run.c run.cc run.py, CMakeLists.txt
  README.md
  SHA256SUMS           `sha256sum -c SHA256SUMS`
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Final

from convc.deploy.libconvc import EXAMPLES, HEADERS, NATIVE, build_library
from convc.errors import PackageError
from convc.runtime.manifest import Manifest, Step, Tensor
from convc.runtime.package import read_manifest
from convc.runtime.variants import every_variant

__all__ = ["libraries", "write_bundle"]

# The part of the README that depends on the target.
_ON_CPU: Final = """\
The best of these that the CPU can run is taken when the module is loaded; a machine that can run none gets an error in words.

$variants

Of working memory each context takes $arena bytes."""
_ON_DEVICE: Final = """\
On a CUDA device for which this has code: $code (sm_90 runs on capability 9.0 and later ones of 9, ptx_90 on anything not older). Needed
there, and not in this folder: NVIDIA's driver of CUDA 13 (580 or newer), `libcuda.so.1`$libraries. CUDA's runtime library and a compiler
are not needed; the kernels are machine code. The launching code is for this CPU:

$variants

A machine that lacks what is needed, or with a device for which there is no code, gets an error in words before anything of the module is
loaded. Weights are uploaded once; of device memory each context takes $arena bytes, and its inputs and outputs. `convc_run` copies
between the host's buffers and the device; `convc_run_on_device` takes addresses there and a stream."""
_CUDNN: Final = """; and cuDNN 9 for
CUDA 13, `libcudnn.so.9`, with the C++ library (libstdc++.so.6): from the loader's path, or the file that the variable CONVC_CUDNN_PATH names"""
# Where every layer of its has convc's own kernel beside it.
_CUDNN_IF_THERE: Final = """; and the C++ library,
`libstdc++.so.6`. cuDNN 9 for CUDA 13, `libcudnn.so.9`, is used if it is there, from the loader's path or the file that the variable
CONVC_CUDNN_PATH names; convc's own kernels run in its place elsewhere"""
# A shim of C++ by itself.
_CXX: Final = "; and the C++ library, `libstdc++.so.6`"
_EXAMPLES: Final = ("run.c", "run.cc", "run.py", "CMakeLists.txt")


def write_bundle(module: Path, destination: Path, *, cc: str = "g++") -> Path:
    """Write the bundle of a packaged module and return its path.

    Args:
        module: the module's file, for CPUs or for cuda.
        destination: a folder, which must not exist or be empty, or a file that ends in .tar, which is replaced.
        cc: the C++ compiler that builds the runtime for the module's machine.

    Raises:
        PackageError: if the module is no such file, or the folder holds something.
        ToolchainError: if there is no such compiler.
        LoweringError: if it fails.
    """
    manifest = read_manifest(module)
    destination = destination.absolute()
    as_file = destination.suffix == ".tar"
    if not as_file and destination.exists() and any(destination.iterdir()):
        raise PackageError(
            f"a bundle's folder must be new or empty; got '{destination}', which holds files. Remove it, or name another."
        )
    name = destination.stem if as_file else destination.name
    # Beside the destination: the rename at the end must stay on one file system.
    with tempfile.TemporaryDirectory(prefix=".convc-", dir=destination.parent) as scratch:
        folder = Path(scratch) / name
        _fill(folder, name, module, manifest, cc)
        if as_file:
            made = Path(scratch) / destination.name
            _pack(folder, made)
            os.replace(made, destination)
        else:
            if destination.exists():
                destination.rmdir()
            os.replace(folder, destination)
    return destination


def libraries(manifest: Manifest) -> frozenset[str]:
    """Return which of cudnn and cutlass do a layer of the module: their shims are C++."""
    done = {step.algorithm for step in _steps(manifest)}
    done |= {own.algorithm for step in _steps(manifest) for own in step.otherwise}
    return frozenset(done.intersection(("cudnn", "cutlass")))


def _steps(manifest: Manifest) -> list[Step]:
    parts = (part for v in every_variant(manifest) for part in (v, *v.smaller))
    return [step for part in parts for step in part.steps]


def _needed(manifest: Manifest) -> str:
    """Return what the driver is not enough for, in words."""
    used = libraries(manifest)
    if "cudnn" not in used:
        return _CXX if used else ""
    beside = all(step.otherwise for step in _steps(manifest) if step.algorithm == "cudnn")
    return _CUDNN_IF_THERE if beside else _CUDNN


def _fill(folder: Path, name: str, module: Path, manifest: Manifest, cc: str) -> None:
    for part in ("lib", "include", "examples"):
        (folder / part).mkdir(parents=True)
    shutil.copyfile(module, folder / f"{name}.so")
    (folder / f"{name}.so").chmod(0o755)
    build_library(folder / "lib", cc)
    for header in HEADERS:
        shutil.copyfile(header, folder / "include" / header.name)
    for example in _EXAMPLES:
        shutil.copyfile(EXAMPLES / example, folder / "examples" / example)
    (folder / "README.md").write_text(_readme(name, manifest), encoding="utf-8")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = [f"{_sha256(path)}  {path.relative_to(folder)}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")


def _counted(tensor: Tensor) -> str:
    """Return how much of an output is there, where that is data."""
    return f"; of axis {tensor.axis} as much as `{tensor.count}` says" if tensor.count else ""


def _readme(name: str, manifest: Manifest) -> str:
    def ports(tensors: Sequence[Tensor]) -> str:
        return "\n".join(
            f"| `{t.name}` | {t.dtype} | {' x '.join(map(str, t.shape)) or 'scalar'}{_counted(t)} | {t.nbytes} |"
            for t in tensors
        )

    variants = "\n".join(
        f"- {v.target.mcpu} ({v.target.triple}): needs {', '.join(v.target.features) or 'nothing special'}"
        for v in every_variant(manifest)
    )
    where = _ON_DEVICE if manifest.target.device else _ON_CPU
    text = (NATIVE / "bundle.md").read_text(encoding="utf-8")
    return Template(text).substitute(
        name=name,
        graph=manifest.name,
        convc=manifest.convc,
        inputs=ports(manifest.inputs),
        outputs=ports(manifest.outputs),
        where=Template(where).substitute(
            variants=variants,
            code=", ".join(manifest.target.device),
            libraries=_needed(manifest),
            arena=manifest.arena_bytes
            + (manifest.workspace_bytes if manifest.target.device else 0),
        ),
        driver=" and NVIDIA's driver" if manifest.target.device else " alone",
        weights=manifest.weights_bytes,
    )


def _pack(folder: Path, destination: Path) -> None:
    """Write a tar that depends on nothing but the files: equal bundles are equal bytes."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = 0
        return entry

    with tarfile.open(destination, "w", format=tarfile.PAX_FORMAT) as archive:
        # `add` sorts a folder's entries by name.
        archive.add(folder, folder.name, filter=plain)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
