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
from convc.runtime.manifest import Manifest, Tensor
from convc.runtime.package import read_manifest
from convc.runtime.variants import every_variant

__all__ = ["write_bundle"]

_EXAMPLES: Final = ("run.c", "run.cc", "run.py", "CMakeLists.txt")


def write_bundle(module: Path, destination: Path, *, cc: str = "g++") -> Path:
    """Write the bundle of a packaged module and return its path.

    Args:
        module: the module's file, for CPUs.
        destination: a folder, which must not exist or be empty, or a file that ends in .tar, which is replaced.
        cc: the C++ compiler that builds the runtime for the module's machine.

    Raises:
        PackageError: if the module is no such file, is not for CPUs, or the folder holds something.
        ToolchainError: if there is no such compiler.
        LoweringError: if it fails.
    """
    manifest = read_manifest(module)
    if manifest.target.kind != "llvm":
        raise PackageError(
            f"a bundle must be of a module for CPUs (llvm); got target '{manifest.target.kind}'."
            " Ship the .so with TVM's runtime."
        )
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


def _readme(name: str, manifest: Manifest) -> str:
    def ports(tensors: Sequence[Tensor]) -> str:
        return "\n".join(
            f"| `{t.name}` | {t.dtype} | {' x '.join(map(str, t.shape)) or 'scalar'} | {t.nbytes} |"
            for t in tensors
        )

    variants = "\n".join(
        f"- {v.target.mcpu} ({v.target.triple}): needs {', '.join(v.target.features) or 'nothing special'}"
        for v in every_variant(manifest)
    )
    text = (NATIVE / "bundle.md").read_text(encoding="utf-8")
    return Template(text).substitute(
        name=name,
        graph=manifest.name,
        convc=manifest.convc,
        inputs=ports(manifest.inputs),
        outputs=ports(manifest.outputs),
        variants=variants,
        weights=manifest.weights_bytes,
        arena=manifest.arena_bytes,
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
