"""What a verb is given: a model to import, or a module to load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from convc.cli.parameters import existing_file, parse_shapes

if TYPE_CHECKING:
    import numpy as np


__all__ = [
    "MODEL_SUFFIXES",
    "batch_range_of",
    "largest_shapes_of",
    "model_file",
    "module_file",
    "shapes_of",
    "values_of",
]

MODEL_SUFFIXES = (".onnx", ".cvc")


def model_file(path: Path) -> Path:
    """Return `path` if it is a model's file, by its suffix."""
    if path.suffix not in MODEL_SUFFIXES:
        raise typer.BadParameter(f"MODEL must end in {' or '.join(MODEL_SUFFIXES)}; got '{path}'.")
    return existing_file(path, "MODEL")


def module_file(path: Path) -> Path:
    """Return `path` if it is a module's file, by its suffix."""
    if path.suffix != ".so":
        raise typer.BadParameter(
            f"MODULE must end in .so; got '{path}'. Make one with `convc compile`."
        )
    return existing_file(path, "MODULE")


def _input_names(path: Path) -> Sequence[str]:
    from convc.frontend.onnx.model_file import read_model

    graph = read_model(path).proto.graph
    constants = {t.name for t in graph.initializer}
    return [i.name for i in graph.input if i.name not in constants]


def shapes_of(path: Path, texts: list[str] | None) -> dict[str, tuple[int | str, ...]] | None:
    """Return `--shape` values by input name; the batch by its name alone."""
    shapes = _shapes_as_given(path, texts)
    return shapes and {
        name: (shape[0].partition("=")[0] if isinstance(shape[0], str) else shape[0], *shape[1:])
        for name, shape in shapes.items()
    }


def largest_shapes_of(
    path: Path, texts: list[str] | None
) -> dict[str, tuple[int | str, ...]] | None:
    """Return them with the greatest of each range of heights and widths."""
    shapes = shapes_of(path, texts)
    return shapes and {
        name: (shape[0], *(int(d.partition("..")[2]) if isinstance(d, str) and ".." in d else d for d in shape[1:]))
        for name, shape in shapes.items()
    }  # fmt: skip


def batch_range_of(path: Path, texts: list[str] | None) -> tuple[int, ...] | None:
    """Return the numbers of samples to make code for, of a range in `--shape`: its ends, and 8 where that lies between."""
    dims = {shape[0] for shape in (_shapes_as_given(path, texts) or {}).values()}
    ranges = {d for d in dims if isinstance(d, str) and "=" in d}
    if len(ranges) > 1:
        raise typer.BadParameter(f"--shape must give one range for the batch; got {', '.join(sorted(ranges))}.")  # fmt: skip
    if not ranges:
        return None
    low, high = map(int, ranges.pop().partition("=")[2].split(".."))
    return tuple(sorted({low, high, *([8] if low < 8 < high else [])}, reverse=True))


def _shapes_as_given(
    path: Path, texts: list[str] | None
) -> dict[str, tuple[int | str, ...]] | None:
    if texts and path.suffix != ".onnx":
        raise typer.BadParameter(f"--shape must be for an .onnx model; got '{path}'.")
    return parse_shapes(texts, lambda: _input_names(path))


def values_of(path: Path, values: Path | None) -> dict[str, np.ndarray] | None:
    """Return the arrays of `--values`."""
    if values is None:
        return None
    if path.suffix != ".onnx":
        raise typer.BadParameter(f"--values must be for an .onnx model; got '{path}'.")
    from convc.npz import load_npz

    return load_npz(existing_file(values, "--values"))
