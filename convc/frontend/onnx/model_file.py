"""ModelSource: a checked ModelProto with its opset versions, from a path or from memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
import onnx.inliner
import onnx.shape_inference
import onnx.version_converter
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto

from convc.errors import InvalidModelError, UnsupportedModelError
from convc.frontend.onnx.converter import display_domain
from convc.frontend.onnx.tensors import TensorReader, all_tensors

__all__ = [
    "MICROSOFT",
    "OLDEST_OPSET",
    "ModelSource",
    "normal_domain",
    "read_model",
    "since_version",
]

# Before opset 7 broadcasting was an attribute of each operator: onnx rewrites such models, see `_raised`.
OLDEST_OPSET: Final = 7


def normal_domain(domain: str) -> str:
    """Return "" for ai.onnx, which has both names."""
    return "" if domain == "ai.onnx" else domain


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model to import.

    Attributes:
        proto: without local functions; read only.
        label: what messages call it: the file's name, or the graph's.
        stem: a name for the graph.
        opsets: domain -> version; ai.onnx is "".
        tensors: reads its weights.
    """

    proto: ModelProto
    label: str
    stem: str
    opsets: dict[str, int]
    tensors: TensorReader


MICROSOFT: Final = "com.microsoft"


def since_version(domain: str, op_type: str, opset: int) -> int | None:
    """Return the version of an operator that a model at `opset` means; None if onnx has no such operator.

    Example:
        >>> since_version("", "Softmax", 12), since_version("", "Softmax", 13), since_version("", "Foo", 13)
        (11, 13, None)
    """
    if (
        domain == MICROSOFT
    ):  # ONNX Runtime's own operators, of which onnx knows nothing; their one version is 1
        return 1
    try:
        return int(onnx.defs.get_schema(op_type, opset, domain).since_version)
    except onnx.defs.SchemaError:
        return None


def read_model(model: str | os.PathLike[str] | ModelProto) -> ModelSource:
    """Return the model, its external data and opsets checked, its local functions inlined.

    Raises:
        InvalidModelError: if the file cannot be read or parsed, or external data lies outside its folder.
        UnsupportedModelError: if the model as a whole is too old, too new, or has sparse weights.
    """
    if isinstance(model, ModelProto):
        proto, label = model, model.graph.name or "model"
        stem, tensors = label, TensorReader(None)
    else:
        path = Path(model)
        proto, label, stem = _parse(path), path.name, path.stem
        tensors = TensorReader(path.parent)
    if not proto.HasField("graph"):
        raise InvalidModelError(f"{label} must hold an ONNX graph; it holds none.")
    for name in _names(proto.graph):
        if isinstance(name, bytes):  # what protobuf gives for text that is none
            raise InvalidModelError(f"names in {label} must be UTF-8 text; got {name!r}.")
    for tensor in all_tensors(proto):
        tensors.check_external(tensor)
    opsets = {normal_domain(o.domain): int(o.version) for o in proto.opset_import}
    _check_versions(proto, opsets, label)
    if 0 < opsets.get("", 0) < OLDEST_OPSET:
        proto = _raised(proto, label)
        opsets[""] = OLDEST_OPSET
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    if proto.graph.sparse_initializer:
        names = ", ".join(s.values.name for s in proto.graph.sparse_initializer)
        raise UnsupportedModelError(
            f"{label} must have dense initializers; got sparse ones: {names}."
        )
    return ModelSource(proto, label, stem, opsets, tensors)


def _names(graph: GraphProto) -> Iterator[str | bytes]:
    """Yield every name in a graph and in its bodies."""
    for info in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        yield info.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield attribute.name
            if attribute.HasField("g"):
                yield from _names(attribute.g)


def _parse(path: Path) -> ModelProto:
    if not path.is_file():
        raise InvalidModelError(f"model must be a file; '{path}' is not there.")
    try:
        return onnx.load_model_from_string(path.read_bytes())
    except DecodeError as error:
        raise InvalidModelError(
            f"{path.name} must be an ONNX protobuf file; its {path.stat().st_size} bytes do not parse ({error}). "
            f"Is it truncated?"
        ) from error


def _raised(proto: ModelProto, label: str) -> ModelProto:
    """Return a model of an opset before 7 as onnx's own converter writes it in opset 7: broadcasting by shape, not by attribute."""
    try:
        return onnx.version_converter.convert_version(proto, OLDEST_OPSET)
    except (
        RuntimeError,
        ValueError,
        IndexError,
        onnx.shape_inference.InferenceError,
        onnx.version_converter.ConvertError,
    ) as error:
        raise UnsupportedModelError(
            f"{label} must use opset {OLDEST_OPSET} or newer, or be one that onnx raises to it; onnx says: {error}"
        ) from error


def _check_versions(proto: ModelProto, opsets: dict[str, int], label: str) -> None:
    newest = int(onnx.defs.onnx_opset_version())
    if not opsets:
        raise InvalidModelError(f"{label} must import an opset; it imports none.")
    for domain, version in opsets.items():
        if not 1 <= version < 2**31 and domain:
            raise InvalidModelError(
                f"{label} must use a positive version of {display_domain(domain)}; got {version}."
            )
    opset = opsets.get("")
    if opset is not None and not 1 <= opset <= newest:
        hint = (
            f" A newer onnx package may know it (installed: {onnx.__version__})."
            if opset > newest
            else ""
        )
        raise UnsupportedModelError(
            f"{label} must use opset 1 to {newest} of {display_domain('')}; got {opset}.{hint}"
        )
    if proto.ir_version > onnx.IR_VERSION:
        raise UnsupportedModelError(
            f"{label} must have ir_version {onnx.IR_VERSION} or older; got {proto.ir_version}. "
            f"A newer onnx package may know it (installed: {onnx.__version__})."
        )
