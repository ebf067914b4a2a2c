"""Signatures of module files: who made this file, where a checksum only tells whether it was damaged.

A signature is Ed25519 over the whole file, 64 raw bytes in a file of its own, `MODULE.so.sig`. Keys are PEM files. Both are what
OpenSSL reads and writes, so that nobody needs convc to check one:

    openssl pkeyutl -verify -pubin -inkey KEY.pub -rawin -in MODULE.so -sigfile MODULE.so.sig

SOURCE  RFC 8032 (Ed25519), RFC 8410 (keys).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from convc.errors import InputError, PackageError, ToolchainError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

__all__ = ["check_signature", "new_key", "sign", "signature_file"]


def signature_file(module: Path) -> Path:
    """Return where a module's signature lies: beside it.

    Example:
        >>> str(signature_file(Path("net.so")))
        'net.so.sig'
    """
    return module.with_name(f"{module.name}.sig")


def new_key(path: Path) -> Path:
    """Write a new private key at `path`, readable by its owner alone, and its public key at `path`.pub; return the latter.

    Raises:
        InputError: if one of the files exists: a key is never replaced.
        ToolchainError: if the package `cryptography` is missing.
    """
    _need_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public_path = path.with_name(f"{path.name}.pub")
    if found := [p for p in (path, public_path) if p.exists()]:
        raise InputError(f"a new key must not replace a file; got '{found[0]}', which exists.")
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secret)
    public_path.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return public_path


def sign(module: Path, key: Path) -> Path:
    """Write the signature of a file with a private key, and return the signature's path.

    Raises:
        InputError: if the key is none.
        PackageError: if the file cannot be read.
        ToolchainError: if the package `cryptography` is missing.
    """
    signature = _private_key(key).sign(_read(module))
    path = signature_file(module)
    path.write_bytes(signature)
    return path


def check_signature(module: Path, public_key: Path, signature: Path | None = None) -> None:
    """Raise unless a file's signature was made with the private half of a key.

    Args:
        module: the file.
        public_key: PEM file.
        signature: default: beside the module.

    Raises:
        InputError: if the key is none.
        PackageError: if there is no signature, or it is not this file's by this key.
        ToolchainError: if the package `cryptography` is missing.
    """
    key = _public_key(public_key)
    from cryptography.exceptions import InvalidSignature

    path = signature or signature_file(module)
    try:
        key.verify(_read(path), _read(module))
    except InvalidSignature:
        raise PackageError(
            f"'{module}' must have a signature by the key '{public_key}'; got '{path}', which is not one."
            " The file was changed, or signed by somebody else."
        ) from None


def _need_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise ToolchainError(
            "signing must have the package cryptography; got none. Install it with `pip install 'convc[sign]'`."
        ) from None


def _private_key(path: Path) -> Ed25519PrivateKey:
    _need_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(
            f"a key must be an Ed25519 private key in PEM without a password; got '{path}'."
            " Make one with `convc sign --new-key FILE`."
        )
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    _need_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_read(path))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"a public key must be an Ed25519 key in PEM; got '{path}'.")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PackageError(f"file must be readable; got '{path}' ({error.strerror}).") from None
