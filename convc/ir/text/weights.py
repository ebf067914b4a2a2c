"""Constants in an .npz file beside the graph's text."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType
from typing import Self

import numpy as np

from convc.errors import TextError
from convc.ir.ops.definition import Array
from convc.ir.types import TensorType, numpy_dtype

__all__ = ["WeightFiles", "write_weights"]

# The oldest date a ZIP file can hold: equal weights make equal files.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def _stored_dtype(dtype: str) -> np.dtype:
    """Return the dtype under which an element type is stored: NumPy's format has no bfloat16."""
    return np.dtype(np.uint16) if dtype == "bfloat16" else numpy_dtype(dtype)


def write_weights(path: Path, arrays: Mapping[str, tuple[Array, TensorType]]) -> None:
    """Write arrays as an .npz file that `numpy.load` reads, too.

    Not `numpy.savez`: that cannot store an array called 'file' and stamps the time of day.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for key, (array, type) in arrays.items():
            # asarray(order="C") keeps a 0-d array 0-d, which ascontiguousarray does not.
            data = np.asarray(array, order="C").view(_stored_dtype(type.dtype))
            with archive.open(
                zipfile.ZipInfo(f"{key}.npy", _EPOCH), "w", force_zip64=True
            ) as member:
                np.lib.format.write_array(member, data, allow_pickle=False)


class WeightFiles:
    """The .npz files that one text refers to; each is opened once, all are closed on leaving the `with` block."""

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self._open: dict[str, zipfile.ZipFile] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _path(self, file: str) -> Path:
        if self.directory is None:
            raise TextError(
                f"ref('{file}') must be read from a directory; none is given. Use load(path) or parse(..., directory=...)."
            )
        absolute = PurePosixPath(file).is_absolute() or PureWindowsPath(file).anchor
        inside = self.directory.resolve()
        # Both tests are needed: `..` may lead back inside, and a symbolic link may lead outside without it.
        if absolute or ".." in PureWindowsPath(file).parts:
            raise TextError(
                f"ref path must be relative and stay inside the text's directory; got '{file}'."
            )
        path = (inside / file).resolve()
        if not path.is_relative_to(inside):
            raise TextError(
                f"ref path must stay inside the text's directory; got '{file}', a link to outside."
            )
        return path

    def _archive(self, file: str) -> zipfile.ZipFile:
        if file not in self._open:
            path = self._path(file)
            try:
                self._open[file] = self._stack.enter_context(zipfile.ZipFile(path))
            except OSError as error:
                raise TextError(
                    f"ref file '{file}' must be readable; got {error.strerror or error}."
                ) from None
            except zipfile.BadZipFile:
                raise TextError(
                    f"ref file '{file}' must be an .npz archive; got another format."
                ) from None
        return self._open[file]

    def read(self, file: str, key: str, type: TensorType) -> Array:
        """Return the array `key` of `file`, which must have exactly this type.

        Raises:
            TextError: if the path leaves the directory, the file or key is not there, or the array has another type.
        """
        archive = self._archive(file)
        try:
            member = archive.open(f"{key}.npy")
        except KeyError:
            names = [n.removesuffix(".npy") for n in archive.namelist()]
            shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            raise TextError(
                f"ref key must be in '{file}', which has {shown or 'none'}; got '{key}'."
            ) from None
        with member:
            try:
                array = np.lib.format.read_array(member, allow_pickle=False)
            except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                raise TextError(
                    f"ref array '{key}' of '{file}' must be a plain NumPy array; got {error}"
                ) from None
        stored = _stored_dtype(type.dtype)
        if array.dtype.newbyteorder("=") != stored or array.shape != type.shape:
            raise TextError(
                f"ref array '{key}' of '{file}' must be {stored}{list(type.shape)} for {type}; "
                f"got {array.dtype}{list(array.shape)}."
            )
        return array.astype(stored, copy=False).view(numpy_dtype(type.dtype))
