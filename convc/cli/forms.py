"""The forms that `convc compile` writes, and the names that they may have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Final

import typer

__all__ = ["Format", "output_path"]


class Format(StrEnum):
    """What is written."""

    SO = "so"
    BUNDLE = "bundle"
    STATIC = "static"


_SUFFIX: Final = {Format.SO: ".so", Format.BUNDLE: "", Format.STATIC: ".a"}


def output_path(given: Path | None, model: Path, format: Format) -> Path:
    """Return where to write: what was given, checked, or the model's name in this folder.

    Raises:
        BadParameter: if the name does not fit the form, or its folder does not exist.
    """
    path = given or Path(f"{model.stem}{_SUFFIX[format]}")
    suffix = _SUFFIX[format]
    if suffix and path.suffix != suffix:
        raise typer.BadParameter(
            f"-o must name a file that ends in {suffix} for --format {format}; got '{path}'."
        )
    # A model's own name may have dots in it.
    if format is Format.BUNDLE and given is not None and path.suffix not in ("", ".tar"):
        raise typer.BadParameter(
            f"-o must name a folder, or a file that ends in .tar, for --format bundle; got '{path}'."
        )
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"-o must be in a folder that exists; got '{path}'.")
    return path
