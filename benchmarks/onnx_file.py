"""OnnxFile: the one model file that convc and every peer are given, with what it takes and returns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from benchmarks.cache import cache_folder, made_once
from convc.errors import InvalidModelError
from convc.frontend.onnx.input_shapes import bind_inputs, dimensions
from convc.ir.types import Shape
from convc.runtime.manifest import Tensor

__all__ = ["OnnxFile", "file_hash", "input_names", "open_model"]


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A model whose inputs have static shapes.

    Attributes:
        name: what tables call it: the stem of the file the user named.
        path: the file, maybe a copy with the shapes filled in.
        sha256: of the file; the key of everything converted from it.
        inputs: without initializers, in the model's order.
        outputs: names, in the model's order.
    """

    name: str
    path: Path
    sha256: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]


def file_hash(path: Path) -> str:
    """Return the file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _model(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise InvalidModelError(f"model must be a file; got '{path}', which does not exist.")
    if path.suffix != ".onnx":
        raise InvalidModelError(
            f"model must be an .onnx file, which every peer takes; got '{path}'."
        )
    try:
        # Weights kept beside the model are not read: only names and shapes are wanted.
        return onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise InvalidModelError(
            f"'{path}' must be an ONNX protobuf file; it does not parse ({error})."
        ) from error


def _constants(model: onnx.ModelProto) -> set[str]:
    return {t.name for t in model.graph.initializer}


def input_names(path: Path) -> list[str]:
    """Return the names of the model's inputs, whatever their shapes.

    Raises:
        InvalidModelError: if there is no such file, or it is no ONNX model.
    """
    model = _model(path)
    constants = _constants(model)
    return [value.name for value in model.graph.input if value.name not in constants]


def _is_fixed(model: onnx.ModelProto) -> bool:
    """Whether every extent is given and no weight counts as an input."""
    constants = _constants(model)
    for value in model.graph.input:
        extents = dimensions(value.type)
        if value.name in constants or extents is None:
            return False
        if any(isinstance(e, str) or e < 1 for e in extents):
            return False
    return True


def _batch_of_one(model: onnx.ModelProto, shapes: Mapping[str, Shape] | None) -> dict[str, Shape]:
    """Return the given shapes, and a batch of 1 for every other input that leaves only its first axis open."""
    known = dict(shapes or {})
    constants = _constants(model)
    for value in model.graph.input:
        first, *rest = dimensions(value.type) or (1,)
        is_open = isinstance(first, str) or first < 1
        fixed = [e for e in rest if isinstance(e, int) and e >= 1]
        if value.name not in {*known, *constants} and is_open and len(fixed) == len(rest):
            known[value.name] = (1, *fixed)
    return known


def _write_fixed(source: Path, destination: Path, inputs: tuple[Tensor, ...]) -> None:
    """Write the model with the inputs' shapes filled in, its weights in the same file and no longer inputs."""
    model = onnx.load(source)
    values = {value.name: value for value in model.graph.input}
    model.graph.ClearField("input")
    for tensor in inputs:
        value = values[tensor.name]
        value.type.tensor_type.shape.ClearField("dim")
        for extent in tensor.shape:
            value.type.tensor_type.shape.dim.add().dim_value = extent
        model.graph.input.append(value)
    # From version 4 on an initializer need not be an input.
    model.ir_version = max(model.ir_version, 4)
    # What an exporter inferred for the open shape is not true of this one; every reader infers it anew.
    model.graph.ClearField("value_info")
    onnx.save(model, destination)


def open_model(path: Path, shapes: Mapping[str, Shape] | None = None) -> OnnxFile:
    """Return the model at `path`.

    So that all engines see the same problem, a model with open extents is copied into the cache with static ones: `shapes`, and 1
    for a batch axis that nothing is said about. So is an old model whose weights are inputs with defaults: an engine that takes
    them for inputs could not prepare them.

    Raises:
        InvalidModelError: if there is no such file, or an extent stays open.
    """
    model = _model(path)
    bound = bind_inputs(model.graph, _batch_of_one(model, shapes))
    inputs = tuple(Tensor(name, type.shape, type.dtype) for name, type in bound.items())
    outputs = tuple(o.name for o in model.graph.output)
    digest = file_hash(path)
    if _is_fixed(model):
        return OnnxFile(path.stem, path, digest, inputs, outputs)
    key = hashlib.sha256(f"{digest} {inputs}".encode()).hexdigest()[:16]
    folder = made_once(
        cache_folder() / "fixed" / key, lambda made: _write_fixed(path, made / path.name, inputs)
    )
    fixed = folder / path.name
    return OnnxFile(path.stem, fixed, file_hash(fixed), inputs, outputs)
