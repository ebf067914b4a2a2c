"""Export the five models of the standard comparison, with random weights.

    python -m benchmarks.zoo [--folder DIR] [NAME ...]

Only the export needs torch; a folder of exported files serves every later run. The weights are random but not arbitrary: each
layer keeps the size of its data, and batch normalisations have statistics that are not 0 and 1, so that folding them is exercised
and errors mean something.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cache import cache_folder
from benchmarks.random_weights import randomise
from convc.cli.exits import REPORTED, report_error
from convc.errors import ToolchainError, unknown_name

__all__ = ["NAMES", "exported", "input_shape", "zoo_folder"]

# Name -> input shape.
_SHAPES = {
    "resnet18": (1, 3, 224, 224),
    "resnet50": (1, 3, 224, 224),
    "vgg16": (1, 3, 224, 224),
    "mobilenet_v2": (1, 3, 224, 224),
    "unet": (1, 3, 256, 256),
}
NAMES = tuple(_SHAPES)


def zoo_folder() -> Path:
    """Return where exported models are kept."""
    return cache_folder() / "zoo"


def input_shape(name: str) -> tuple[int, ...]:
    """Return the shape of a zoo model's input, batch 1."""
    return _SHAPES[name]


def exported(name: str, folder: Path | None = None, batch: int = 1) -> Path:
    """Return the path of a zoo model, exported now if the folder does not have it; of any batch with the same weights.

    Raises:
        UnknownNameError: if the zoo has no such model.
        ToolchainError: if it must be exported and a package is missing.
    """
    if name not in _SHAPES:
        raise unknown_name("zoo model", name, NAMES)
    path = (folder or zoo_folder()) / f"{name}{'' if batch == 1 else f'-n{batch}'}.onnx"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        _export(name, path, batch)
    return path


def _export(name: str, path: Path, batch: int) -> None:
    try:
        import torch  # pyright: ignore[reportMissingImports]

        from benchmarks.architectures import ARCHITECTURES
    except ImportError as error:
        raise ToolchainError(
            f"exporting '{name}' must have the package 'torch'; got no module '{error.name}'. "
            "Run: pip install torch  (or give files with --model, or a folder of exported ones with --zoo)"
        ) from None
    model = ARCHITECTURES[name]().eval()
    randomise(model)
    data = torch.zeros((batch, *_SHAPES[name][1:]))
    scratch = path.with_suffix(".part")
    with torch.no_grad(), warnings.catch_warnings():
        # The exporter that traces, which torch calls old: the new one needs onnxscript and writes the weights to a second file.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model, (data,), str(scratch), opset_version=18, input_names=["input"], output_names=["output"], dynamo=False
        )  # fmt: skip
    scratch.rename(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Export the models named; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description="Export the models of the standard comparison with random weights.")  # fmt: skip
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all if left out"
    )
    parser.add_argument("--folder", type=Path, help=f"where to; default {zoo_folder()}")
    given = parser.parse_args(arguments)
    try:
        for name in given.names or NAMES:
            path = exported(name, given.folder)
            print(f"{path}  {path.stat().st_size / 2**20:.1f} MiB")
    except REPORTED as error:
        return report_error(error, as_json=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
