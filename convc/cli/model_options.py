"""The flags that say how a model is read, and in which element type it runs: one set, the same at every verb that reads one.

A verb takes them as one parameter, `reading`; `reads_model` shows typer a flag for each.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from convc.cli.sources import (
    batch_range_of,
    largest_shapes_of,
    model_file,
    shapes_of,
    values_of,
)

if TYPE_CHECKING:
    from convc.ir import Graph

__all__ = ["AS_WRITTEN", "ModelOptions", "reads_model"]

_PARAMETER: Final = "reading"


class ElementType(StrEnum):
    """Typer shows an enum's values as the flag's choices."""

    FP64 = "fp64"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


ShapeOption = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="[NAME:]1x3x224x224", help="An input's shape; repeatable. NAME may be left out if there is one input. `Nx3x224x224` or `N=1..64x3x224x224`: any number of samples. `1x3xH=64..512xW=64..512`: any height and width up to these.", show_default=False),
]  # fmt: skip
ValuesOption = Annotated[
    Path | None,
    typer.Option("--values", metavar="IN.npz", help="Inputs of an .onnx model that are constants, by name: what decides a shape must be one.", show_default=False),
]  # fmt: skip
DequantizeOption = Annotated[
    bool,
    typer.Option("--dequantize", help="Compute the layers of a quantised .onnx model in floats, not in integers."),
]  # fmt: skip
DtypeOption = Annotated[
    ElementType | None,
    typer.Option("--dtype", help="Float type of weights and activations; sums stay in float32, inputs and outputs as the model has them. Default: the model's.", show_default=False),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What a verb was told about reading its model; a field is a flag."""

    shape: ShapeOption = None
    values: ValuesOption = None
    dequantize: DequantizeOption = False
    dtype: DtypeOption = None

    def keywords(self, path: Path) -> dict[str, Any]:
        """Return them as keyword arguments of what reads a model as `convc.compile` does; an open height and width is the largest."""
        return {
            "shapes": largest_shapes_of(path, self.shape),
            "values": values_of(path, self.values),
            "dequantize": self.dequantize,
            "dtype": None if self.dtype is None else self.dtype.value,
        }

    def open_keywords(self, path: Path) -> dict[str, Any]:
        """Return them with the heights and widths that `--shape` leaves open."""
        return {**self.keywords(path), "shapes": shapes_of(path, self.shape)}

    def compile_keywords(self, path: Path) -> dict[str, Any]:
        """Return them as keyword arguments of `convc.compile`: with what `--shape` leaves open, and its numbers of samples."""
        return {**self.open_keywords(path), "batch_sizes": batch_range_of(path, self.shape)}

    def graph(self, path: Path) -> Graph:
        """Return the imported graph of a model's file, in the model's own element type."""
        from convc.source import load_graph

        keywords = self.keywords(model_file(path))
        del keywords["dtype"]
        return load_graph(path, **keywords)

    def refuse(self, file: Path) -> None:
        """Refuse flags that were given where there is no model."""
        given = [f"--{f.name}" for f in fields(self) if getattr(self, f.name) != f.default]
        if given:
            raise typer.BadParameter(f"{' and '.join(given)} must be for a model; got '{file}'.")


AS_WRITTEN: Final = ModelOptions()


def reads_model(verb: Callable[..., None]) -> Callable[..., None]:
    """Return a verb whose parameter `reading`, a `ModelOptions`, is shown as that class's fields, each a flag."""
    signature = inspect.signature(verb, eval_str=True)
    annotations = inspect.get_annotations(ModelOptions, eval_str=True)
    flags = [
        inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=f.default,
            annotation=annotations[f.name],
        )
        for f in fields(ModelOptions)
    ]
    shown: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        own = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        shown += flags if parameter.name == _PARAMETER else [own]

    @functools.wraps(verb)
    def called(**given: Any) -> None:
        reading = ModelOptions(**{f.name: given.pop(f.name) for f in flags})
        verb(**given, **{_PARAMETER: reading})

    called.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in shown}
    return called
