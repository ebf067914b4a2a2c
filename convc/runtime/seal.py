"""The seal at the end of a module's file: a checksum of everything in the file but the weights.

    bytes 0..15    magic
    bytes 16..23   how many bytes are before the seal
    bytes 24..31   zero
    bytes 32..63   SHA-256 of those bytes without the weights' section

It costs a millisecond or two for a megabyte of code and manifest, so it is compared at every load and inspection: a flipped bit in
a kernel is found before the kernel is loaded. The weights' own SHA-256 is in the manifest, which the seal covers; reading 200 MB
for it at each load would take longer than all the rest, so that is done only when asked for.

A checksum finds damage, not malice: for that there are `sha256_of` and `convc.signature`.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import struct
from typing import Final

from convc.errors import InputError, PackageError
from convc.runtime.elf import Section

__all__ = ["SEAL_BYTES", "check_expected", "check_seal", "seal_of", "sha256_of"]

_MAGIC: Final = b"\nconvc seal 1\n\0\0"
_SEAL: Final = struct.Struct("<16sQQ32s")
SEAL_BYTES: Final = _SEAL.size


def seal_of(data: bytes | mmap.mmap, weights: Section) -> bytes:
    """Return the seal to append to a file that so far is `data`."""
    return _SEAL.pack(_MAGIC, len(data), 0, _digest(data, len(data), weights))


def check_seal(data: bytes | mmap.mmap, weights: Section) -> None:
    """Raise unless the file ends with a seal that fits the rest of it.

    Raises:
        PackageError: if the file is cut short, damaged, or was changed after it was written.
    """
    sealed = len(data) - SEAL_BYTES
    magic, size, zero, digest = _SEAL.unpack_from(data, sealed) if sealed >= 0 else (b"", 0, 0, b"")
    if magic != _MAGIC:
        raise PackageError(
            f"module must end with its seal; got {bytes(magic).hex(' ') or 'nothing'}."
            " The file is cut short, damaged, or was changed by another program."
        )
    if size != sealed or zero or weights.offset + weights.size > sealed:
        raise PackageError(
            f"module must have the {size} bytes that its seal names; got {sealed}. The file is damaged."
        )
    found = _digest(data, sealed, weights)
    if found != digest:
        raise PackageError(
            f"module must have the SHA-256 in its seal, {digest.hex()}; got {found.hex()}."
            " The file is damaged, or was changed by another program."
        )


def sha256_of(data: bytes | mmap.mmap) -> str:
    """Return the SHA-256 of a whole file's bytes, as `sha256sum` prints it."""
    return hashlib.sha256(data).hexdigest()


def check_expected(data: bytes | mmap.mmap, expected: str) -> None:
    """Raise unless the file's bytes have the SHA-256 that the caller expects.

    Raises:
        InputError: if `expected` is no SHA-256.
        PackageError: if the file has another.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{64}", expected):
        raise InputError(f"expect_sha256 must be 64 hexadecimal digits; got '{expected}'.")
    found = sha256_of(data)
    if found != expected.lower():
        raise PackageError(
            f"module must have SHA-256 {expected.lower()}; got {found}."
            " It is another file, or was changed."
        )


def _digest(data: bytes | mmap.mmap, size: int, weights: Section) -> bytes:
    digest = hashlib.sha256()
    with memoryview(data) as view:
        digest.update(view[: weights.offset])
        digest.update(view[weights.offset + weights.size : size])
    return digest.digest()
