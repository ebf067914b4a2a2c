"""The two packages convc is pinned to, and the check that they are the ones installed.

TVM's wheels change names and behaviour between post releases, so convc runs with exactly one pair. The check reads the
installed packages' metadata and imports neither: with a wrong `apache-tvm-ffi` the import works and a later step crashes.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Final

from convc.errors import ToolchainError

__all__ = ["PINS", "Pin", "check_toolchain", "installed_version"]


@dataclass(frozen=True, slots=True)
class Pin:
    """One package at one version, and what happens with another."""

    package: str
    version: str
    reason: str


PINS: Final = (
    Pin("apache-tvm", "0.27.0.post1", "its Python names change between releases"),
    Pin(
        "apache-tvm-ffi",
        "0.1.14.post1",
        "with 0.1.15 every JSON serialisation of TVM's IR crashes the process",
    ),
)


def installed_version(package: str) -> str | None:
    """Return the installed version of a package, or None; imports nothing.

    Example:
        >>> installed_version("no-such-package") is None
        True
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_toolchain() -> None:
    """Check that the pinned packages are installed at their versions.

    Raises:
        ToolchainError: naming every package that is missing or at another version, and the command that repairs it.
    """
    wrong = [
        f"{pin.package} must be {pin.version} ({pin.reason}); got {found or 'no such package'}."
        for pin in PINS
        if (found := installed_version(pin.package)) != pin.version
    ]
    if wrong:
        wanted = " ".join(f"'{pin.package}=={pin.version}'" for pin in PINS)
        raise ToolchainError("\n".join((*wrong, f"Run: pip install {wanted}")))
