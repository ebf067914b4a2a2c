"""Named arrays in an .npz file, NumPy's format, under any name: `numpy.savez` takes names as keywords and refuses some."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from convc.errors import InputError

__all__ = ["load_npz", "save_npz"]


def save_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays, uncompressed; `numpy.load` reads them back under the same names."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def load_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Return the arrays in an .npz file.

    Raises:
        InputError: if it is not one.
    """
    try:
        with np.load(Path(path), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        # np.load gives an array for .npy, which is no context manager and has no files; its words are about pickles nobody asked for.
        with open(path, "rb") as file:
            begins = file.read(6)
        found = f"one that begins with {begins!r}"
        if begins.startswith(b"PK"):
            found = "one of Python objects" if "pickle" in str(error) else str(error)
        raise InputError(
            f"'{os.fspath(path)}' must be a NumPy .npz file of numbers; got {found}. Write it with `numpy.savez`."
        ) from None
