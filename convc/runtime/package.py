"""Read a packaged module's file without running or even loading its code."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from convc.errors import PackageError
from convc.runtime.elf import Section, find_sections
from convc.runtime.manifest import Manifest, buffer_bytes, decode
from convc.runtime.seal import check_expected, check_seal

__all__ = [
    "MANIFEST_SECTION",
    "PAGE",
    "WEIGHTS_SECTION",
    "Package",
    "map_weights",
    "open_package",
    "read_manifest",
]

MANIFEST_SECTION: Final = ".convc.manifest"
WEIGHTS_SECTION: Final = ".convc.weights"
# The weights' alignment in the file: the page of every machine convc writes for.
PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class Package:
    """A module's file: its manifest, where its weights are, and which file on disk this was read from."""

    path: Path
    manifest: Manifest
    weights: Section
    identity: tuple[int, ...]

    def check_unchanged(self) -> None:
        """Raise if the file is no longer the one that was read.

        Raises:
            PackageError: if another program replaced or changed it meanwhile.
        """
        with _opened(self.path) as file:
            if _identity(file) != self.identity:
                raise PackageError(
                    f"module file '{self.path}' must stay unchanged while it is loaded; got a new one."
                    " Load it again."
                )


def read_manifest(
    path: str | os.PathLike[str],
    *,
    verify_checksums: bool = False,
    expect_sha256: str | None = None,
) -> Manifest:
    """Return the manifest of the module at `path`; none of its code is loaded.

    Args:
        path: the packaged module.
        verify_checksums: as `open_package`.
        expect_sha256: as `open_package`.

    Raises:
        PackageError: if there is no readable file, it is not a convc module, or it is damaged.
    """
    return open_package(
        path, verify_checksums=verify_checksums, expect_sha256=expect_sha256
    ).manifest


def open_package(
    path: str | os.PathLike[str],
    *,
    verify_checksums: bool = False,
    expect_sha256: str | None = None,
) -> Package:
    """Return manifest and layout of the module at `path`; its seal is compared always.

    Args:
        path: the packaged module.
        verify_checksums: read all weights as well and compare their SHA-256 with the manifest's.
        expect_sha256: what the whole file's SHA-256 must be.

    Raises:
        PackageError: if there is no readable file, it is not a convc module, it is damaged, or not the expected one.
        InputError: if `expect_sha256` is no SHA-256.
    """
    package = _open_package(Path(path), expect_sha256)
    if verify_checksums:
        digest = hashlib.sha256(map_weights(package).data).hexdigest()
        if digest != package.manifest.weights_sha256:
            raise PackageError(
                f"weights of '{package.path}' must have SHA-256 {package.manifest.weights_sha256}; got {digest}."
                " The file is damaged."
            )
    return package


def _open_package(path: Path, expect_sha256: str | None) -> Package:
    try:
        with _opened(path) as file, _mapped(file) as data:
            if expect_sha256 is not None:
                check_expected(data, expect_sha256)
            sections = find_sections(data, (MANIFEST_SECTION, WEIGHTS_SECTION))
            missing = [name for name in (MANIFEST_SECTION, WEIGHTS_SECTION) if name not in sections]
            if missing:
                raise PackageError(
                    f"module must have a section {missing[0]}; got none. It is not a convc module."
                )
            check_seal(data, sections[WEIGHTS_SECTION])
            place = sections[MANIFEST_SECTION]
            manifest = decode(data[place.offset : place.offset + place.size])
            weights, size = sections[WEIGHTS_SECTION], buffer_bytes(manifest.weights_bytes)
            if weights.size != size:
                raise PackageError(f"module's weights must have {size} bytes; got {weights.size}.")
            if weights.offset % PAGE:
                raise PackageError(
                    f"module's weights must start at a multiple of {PAGE} bytes; got {weights.offset}."
                )
            return Package(path, manifest, weights, _identity(file))
    except PackageError as error:
        error.add_note(f"while reading {path}")
        raise


def map_weights(package: Package) -> NDArray[np.uint8]:
    """Return the weights as read-only memory backed by the file: never copied, shared by all processes that map it.

    Raises:
        PackageError: if the file changed since it was opened.
    """
    place = package.weights
    # mmap's offset is in units of the machine's pages, which may be larger than the file's 4096.
    start = place.offset - place.offset % mmap.ALLOCATIONGRANULARITY
    skip = place.offset - start
    with _opened(package.path) as file:
        if _identity(file) != package.identity:
            package.check_unchanged()
        data = mmap.mmap(file, skip + place.size, access=mmap.ACCESS_READ, offset=start)
    return np.frombuffer(data, np.uint8, place.size, skip)


def _identity(file: int) -> tuple[int, ...]:
    status = os.fstat(file)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise PackageError(
            f"module file must be readable; got '{path}' ({error.strerror})."
        ) from None
    try:
        yield file
    finally:
        os.close(file)


@contextlib.contextmanager
def _mapped(file: int) -> Iterator[mmap.mmap]:
    try:
        data = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # a folder or a device; an empty file
        raise PackageError(f"module must be a file that can be mapped; got {error}.") from None
    with data:
        yield data
