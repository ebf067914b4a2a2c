"""Operators that are always constants, or that convc takes only of constants: the arithmetic of shapes."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from convc.errors import InvalidModelError
from convc.frontend.onnx.converter import Converter, Result
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.refusal import Unsupported
from convc.ir.ops.definition import Array

__all__ = ["ROWS"]


_MOST_AXES: Final = 64  # NumPy's


def constant(node: OperatorNode) -> Array:
    """Return the array of a Constant; exactly one of its attributes is given."""
    a = node.attributes
    readers = {
        "value": a.tensor,
        "value_float": lambda name: np.asarray(a.real(name), np.float32),
        "value_floats": lambda name: np.asarray(a.reals(name), np.float32),
        "value_int": lambda name: np.asarray(a.integer(name), np.int64),
        "value_ints": lambda name: np.asarray(a.integers(name), np.int64),
    }
    given = [name for name in readers if name in a]
    if len(given) > 1:
        raise InvalidModelError(f"Constant must have one value; got {', '.join(given)}.")
    if not given:
        a.finish()
        raise InvalidModelError("Constant must have a value; it has none.")
    return readers[given[0]](given[0])


def constant_of_shape(node: OperatorNode) -> Array:
    """Return a splat: one stored element, however large the shape."""
    a = node.attributes
    value = a.tensor("value") if "value" in a else np.zeros(1, np.float32)
    if value.size != 1:
        raise InvalidModelError(
            f"ConstantOfShape value must have one element; got shape {list(value.shape)}."
        )
    shape = node.constant_integers(0)
    if min(shape, default=0) < 0:
        raise InvalidModelError(f"ConstantOfShape shape must not be negative; got {list(shape)}.")
    if len(shape) > _MOST_AXES or math.prod(shape) * value.itemsize >= 2**63:
        raise InvalidModelError(
            f"ConstantOfShape shape must have at most {_MOST_AXES} axes and less than 2^63 bytes; got {list(shape)}."
        )
    return np.broadcast_to(value.reshape(()), shape)


def shape(node: OperatorNode) -> Array:
    """Return the static shape, from `start` to `end` since version 15."""
    extents = node.type().shape
    start = node.attributes.integer("start", 0)
    end = node.attributes.integer("end", len(extents))
    return np.asarray(extents[slice(start, end)], np.int64)


def size(node: OperatorNode) -> Array:
    """Return the static element count."""
    return np.asarray(math.prod(node.type().shape), np.int64)


def only_constants(node: OperatorNode) -> Result:
    """Refuse the node: its operands are not all constants, else it would have been folded."""
    for index, name in enumerate(node.inputs):
        if node.has(index) and not node.is_constant(index):
            raise Unsupported(f"depends on runtime values of '{name}'")
    raise Unsupported("result too large to be computed at import")


def has_element(node: OperatorNode) -> Array:
    """Return whether there is a tensor: known at import, since convc knows no optional values."""
    return np.asarray(node.has(0))


def get_element(node: OperatorNode) -> str | Array:
    """Return the tensor itself, which is what it would hold if it were optional."""
    return node.operand(0)


ALWAYS: Final = (13, 19, 21, 23, 24, 25)
NOTE: Final = "constants only"

ROWS: Final = (
    Converter("Constant", (1, 9, 11, 12, *ALWAYS), constant, "dense numbers"),
    Converter("ConstantOfShape", (9, 20, 21, 23, 24, 25), constant_of_shape, "constant shape"),
    Converter("Shape", (1, 13, 15, 19, 21, 23, 24, 25), shape),
    Converter("Size", (1, *ALWAYS), size),
    Converter("Range", (11, 27), only_constants, NOTE, folds=True),
    Converter("Unique", (11, 28), only_constants, NOTE, folds=True),
    Converter("Det", (11, 22), only_constants, NOTE, folds=True),
    Converter("MelWeightMatrix", (17,), only_constants, NOTE, folds=True),
    Converter("TfIdfVectorizer", (9,), only_constants, NOTE, folds=True),
    Converter("OptionalHasElement", (18, 28), has_element, "tensors"),
    Converter("OptionalGetElement", (18, 28), get_element, "tensors"),
)
