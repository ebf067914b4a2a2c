"""Graph inputs: element type and static shape of each, with symbolic dimensions bound by the caller."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import (
    GraphProto,
    ModelProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from convc.errors import InvalidModelError, UnsupportedModelError
from convc.frontend.onnx.model_file import ModelSource
from convc.frontend.onnx.narrow import carrier, narrow_name
from convc.ir.types import SHORT_NAMES, Shape, TensorType

__all__ = ["Dimension", "batch_of", "bind_inputs", "bind_values", "dimensions", "element_type"]

Dimension = int | str  # a str is symbolic: the dim_param, or "?"


def element_type(code: int, subject: str) -> str:
    """Return convc's name of an ONNX element type.

    Raises:
        UnsupportedModelError: naming `subject`, if convc has no such type.

    Example:
        >>> element_type(onnx.TensorProto.BFLOAT16, "input 'x'")
        'bfloat16'
    """
    name = onnx.TensorProto.DataType.Name(code).lower()  # type: ignore[arg-type]
    name = {"float": "float32", "double": "float64"}.get(name, name)
    if name not in SHORT_NAMES:
        raise UnsupportedModelError(
            f"{subject} must have an element type of {', '.join(SHORT_NAMES)}; got {name}."
            " Convert it outside the model, or cut the model behind what reads it (onnx.utils.extract_model)."
        )
    return name


def dimensions(type: TypeProto) -> tuple[Dimension, ...] | None:
    """Return the dimensions of a tensor type, None if even its rank is unknown."""
    if not type.tensor_type.HasField("shape"):
        return None
    return tuple(
        int(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?"
        for d in type.tensor_type.shape.dim
    )


def _text(dims: Sequence[Dimension] | None) -> str:
    return "any shape" if dims is None else f"[{', '.join(map(str, dims))}]"


def _example(name: str, dims: Sequence[Dimension] | None) -> str:
    """Return a `--shape` argument that would bind the input: 1 for the batch, 224 for the rest."""
    guesses = (
        d if isinstance(d, int) else 1 if axis == 0 else 224
        for axis, d in enumerate(dims or ("N", 3, "H", "W"))
    )
    return f"--shape {name}:{'x'.join(map(str, guesses))}"


def _open_dimensions(info: ValueInfoProto) -> tuple[Dimension, ...] | None:
    dims = dimensions(info.type)
    # Exporters write -1 or 0 for an extent that they leave open.
    return dims and tuple("?" if isinstance(d, int) and d < 1 else d for d in dims)


def batch_of(
    graph: GraphProto, shapes: Mapping[str, Sequence[Dimension]] | None
) -> tuple[str, dict[str, tuple[Dimension, ...]]]:
    """Return the symbolic batch's name and the shapes of the inputs that have it in front; "" and none if there is no such batch.

    It is what `shapes` calls by a name; else, if every extent left open is an input's leading one under one name, that name.

    Raises:
        InvalidModelError: if a name is given to an extent that is not the leading one, two names, or one that the model fixes.
    """
    given = {k: tuple(s) for k, s in (shapes or {}).items()}
    named = {k: s for k, s in given.items() if any(isinstance(d, str) for d in s)}
    for name, shape in named.items():
        if any(isinstance(d, str) for d in shape[1:]):
            raise InvalidModelError(
                f"input '{name}' must have numbers behind its leading extent, the batch, which alone may have a name; got {_text(shape)}. An open height and width have ranges: H=64..512, W=64..512."
            )
    constants = {t.name for t in graph.initializer}
    inputs = {i.name: _open_dimensions(i) for i in graph.input if i.name not in constants}
    if not named:
        unbound = {k: d for k, d in inputs.items() if k not in given and (d is None or any(isinstance(e, str) for e in d))}  # fmt: skip
        if any(not d or not isinstance(d[0], str) or any(isinstance(e, str) for e in d[1:]) for d in unbound.values()):  # fmt: skip
            return "", {}
        named = {k: d for k, d in unbound.items() if d is not None}
    symbols = {str(s[0]) for s in named.values()} - {"?"}
    if len(symbols) > 1:
        if set(named) <= set(given):
            raise InvalidModelError(f"inputs must have one symbolic batch; got {', '.join(sorted(symbols))}.")  # fmt: skip
        return "", {}
    for name, shape in named.items():
        fixed = inputs.get(name)
        if fixed and isinstance(fixed[0], int):
            raise InvalidModelError(
                f"input '{name}' must have an open leading extent in the model to have a symbolic batch; got {_text(fixed)} and "
                f"{_text(shape)}. Export the model with a dynamic batch, or give the batch a number."
            )
    return (symbols.pop() if symbols else "N" if named else ""), named


def _bind(
    info: ValueInfoProto, given: Sequence[int] | None, symbols: dict[str, tuple[int, str]]
) -> Shape | str:
    """Return the static shape, or the line that says why there is none."""
    dims = _open_dimensions(info)
    if given is None:
        symbolic = [d for d in dims or () if isinstance(d, str)]
        if dims is None or symbolic:
            what = f"symbolic dimensions {', '.join(symbolic)}" if symbolic else "no rank"
            return (
                f"input '{info.name}' must have a static shape; got {_text(dims)} with {what}. "
                f"Bind it with `{_example(info.name, dims)}`."
            )
        return tuple(d for d in dims if isinstance(d, int))
    shape = tuple(int(d) for d in given)
    if any(d < 1 for d in shape):
        return f"input '{info.name}' must be bound to positive extents; got {_text(shape)}."
    if dims is None:
        return shape
    fits = len(shape) == len(dims) and all(
        isinstance(d, str) or d == s for d, s in zip(dims, shape, strict=True)
    )
    if not fits:
        return f"input '{info.name}' must fit its shape in the model, {_text(dims)}; got {_text(shape)}."
    for dim, extent in zip(dims, shape, strict=True):
        if isinstance(dim, str) and dim != "?":
            first, owner = symbols.setdefault(dim, (extent, info.name))
            if first != extent:
                return (
                    f"dimension {dim} must have one extent; got {first} in input '{owner}' and "
                    f"{extent} in input '{info.name}'."
                )
    return shape


def bind_values(source: ModelSource, values: Mapping[str, np.ndarray] | None) -> ModelSource:
    """Return the model with the inputs named in `values` turned into constants.

    Raises:
        InvalidModelError: for a name that is no input, or an array of another type or rank than the input has.
    """
    if not values:
        return source
    proto = ModelProto()
    proto.CopyFrom(source.proto)
    infos = {i.name: i for i in proto.graph.input}
    for name, array in values.items():
        if name not in infos:
            raise InvalidModelError(
                f"value must be given for an input of the model, {', '.join(infos) or 'which has none'}; got '{name}'."
            )
        code, dims = helper.np_dtype_to_tensor_dtype(array.dtype), dimensions(infos[name].type)
        fits = dims is None or (
            len(dims) == array.ndim
            and all(isinstance(d, str) or d == n for d, n in zip(dims, array.shape, strict=True))
        )
        if infos[name].type.tensor_type.elem_type != code or not fits:
            wanted = TensorProto.DataType.Name(infos[name].type.tensor_type.elem_type)  # type: ignore[arg-type]
            raise InvalidModelError(
                f"value of input '{name}' must be {wanted.lower()} {_text(dims)}; got {array.dtype} {list(array.shape)}."
            )
        proto.graph.input.remove(infos[name])
        known = [t for t in proto.graph.initializer if t.name == name]
        for tensor in known:
            proto.graph.initializer.remove(tensor)
        proto.graph.initializer.append(
            numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        )
    return replace(source, proto=proto)


def bind_inputs(
    graph: GraphProto, shapes: Mapping[str, Sequence[int]] | None
) -> dict[str, TensorType]:
    """Return the type of every graph input that is not an initializer, in order.

    Raises:
        InvalidModelError: one line for each input that stays symbolic or contradicts the shape given for it.
        UnsupportedModelError: if an input is no tensor, or has an element type convc lacks.
    """
    constants = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in constants]
    names = [i.name for i in inputs]
    problems: list[str] = []
    for name in shapes or {}:
        if name in constants:
            problems.append(f"input '{name}' must not be bound to a shape; it is an initializer.")
        elif name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            problems.append(f"unknown input '{name}'; known: {', '.join(names) or 'none'}.{hint}")
    result: dict[str, TensorType] = {}
    symbols: dict[str, tuple[int, str]] = {}
    for info in inputs:
        kind = info.type.WhichOneof("value")
        if kind != "tensor_type":
            raise UnsupportedModelError(
                f"input '{info.name}' must be a tensor; got {kind or 'no type'}."
            )
        bound = _bind(info, (shapes or {}).get(info.name), symbols)
        if isinstance(bound, str):
            problems.append(bound)
            continue
        code = info.type.tensor_type.elem_type
        narrow = narrow_name(code)
        dtype = carrier(narrow) if narrow else element_type(code, f"input '{info.name}'")
        result[info.name] = TensorType(bound, dtype)
    if problems:
        raise InvalidModelError("\n".join(problems))
    return result
