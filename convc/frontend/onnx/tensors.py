"""TensorProto -> NumPy array, with external data read only from inside the model's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, external_data_helper, numpy_helper

from convc.errors import InvalidModelError

__all__ = ["TensorReader", "all_tensors"]


def _node_tensors(nodes: Iterator[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _graph_tensors(graph)


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    yield from _node_tensors(iter(graph.node))


def all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor stored in a model: initializers and attributes, in subgraphs and functions too."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(iter(function.node))


class TensorReader:
    """Reads tensors of one model.

    Attributes:
        folder: where external data lies; None for a model given as a ModelProto, which has no folder.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def check_external(self, tensor: TensorProto) -> None:
        """Raise InvalidModelError if a tensor's data lies outside the model's folder, or is not there."""
        if not external_data_helper.uses_external_data(tensor):
            return
        entries = {e.key: e.value for e in tensor.external_data}
        location = entries.get("location", "")
        name = tensor.name or "<unnamed>"
        if self.folder is None:
            raise InvalidModelError(
                f"tensor '{name}' of a model in memory must hold its data; got external data '{location}'. "
                f"Give from_onnx the path of the file, or load it with onnx.load, which reads external data."
            )
        parts = Path(location).parts
        path = self.folder / location
        steps = [self.folder.joinpath(*parts[: i + 1]) for i in range(len(parts))]
        outside = (
            "an empty location"
            if not location
            else "an absolute path"
            if Path(location).is_absolute() or PureWindowsPath(location).is_absolute()
            else "a path with '..'"
            if ".." in parts or ".." in PureWindowsPath(location).parts
            else "a symbolic link"
            if any(step.is_symlink() for step in steps)
            else ""
        )
        if outside:
            raise InvalidModelError(
                f"external data of tensor '{name}' must lie inside the model's folder; got {outside}: '{location}'."
            )
        if not path.is_file():
            raise InvalidModelError(
                f"external data of tensor '{name}' must be a file in the model's folder; '{location}' is not there."
            )
        try:
            offset, size = int(entries.get("offset", "0")), path.stat().st_size
            length = int(entries.get("length", str(size - offset)))
        except ValueError:
            raise InvalidModelError(
                f"external data of tensor '{name}' must have whole numbers as offset and length; got {entries}."
            ) from None
        if min(offset, length) < 0 or offset + length > size:
            raise InvalidModelError(
                f"external data of tensor '{name}' must lie inside '{location}' of {size} bytes; "
                f"got offset {offset} and length {length}."
            )

    def array(self, tensor: TensorProto) -> np.ndarray:
        """Return a tensor's contents.

        Raises:
            InvalidModelError: if the data's size or type contradicts the tensor's header.
        """
        self.check_external(tensor)
        try:
            # The reader writes nothing, and onnx's own check repeats ours.
            return numpy_helper.to_array(tensor, str(self.folder or ""))
        except (ValueError, TypeError, KeyError, OSError, onnx.checker.ValidationError) as error:
            raise InvalidModelError(
                f"tensor '{tensor.name}' must hold {tuple(tensor.dims)} elements of its type; it cannot be read: {error}"
            ) from error
