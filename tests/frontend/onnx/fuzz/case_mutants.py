"""Mild mutants of one operator each: many survive the import, and so reach the compiler.

The light models' mutants (`mutations`) are mostly refused, and a whole network takes seconds to compile; these take a tenth of one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import numpy as np
from onnx import AttributeProto, ModelProto, TensorProto, numpy_helper

from tests.frontend.onnx.onnx_models import NEWEST
from tests.frontend.onnx.operator_cases import CASES

__all__ = ["case_mutant"]

_SMALL: Final = (-2, -1, 0, 1, 2, 3, 4, 5)
_TYPES: Final = (
    TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16,
    TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL,
)  # fmt: skip


def _attribute(r: random.Random, model: ModelProto) -> None:
    """Another small number, or another word that the model has."""
    given = [a for n in model.graph.node for a in n.attribute]
    if not given:
        _extent(r, model)
        return
    one = r.choice(given)
    if one.type == AttributeProto.INT:
        one.i = r.choice(_SMALL)
    elif one.type == AttributeProto.FLOAT:
        one.f = r.choice((-1.5, 0.0, 0.3, 1.0, 2.0))
    elif one.type == AttributeProto.INTS and one.ints:
        one.ints[r.randrange(len(one.ints))] = r.choice(_SMALL)
    else:
        del model.graph.node[0].attribute[:]


def _extent(r: random.Random, model: ModelProto) -> None:
    """Another extent of an input, often 0 or 1."""
    dims = [d for i in model.graph.input for d in i.type.tensor_type.shape.dim]
    if dims:
        r.choice(dims).dim_value = r.choice((0, 1, 1, 2, 3, 5, 17))


def _rank(r: random.Random, model: ModelProto) -> None:
    """One axis more or less of an input."""
    if model.graph.input:
        dims = r.choice(list(model.graph.input)).type.tensor_type.shape.dim
        if r.random() < 0.5 and dims:
            del dims[r.randrange(len(dims))]
        else:
            dims.add(dim_value=r.choice((1, 2, 3)))


def _type(r: random.Random, model: ModelProto) -> None:
    """Another element type of all inputs, or of one."""
    given, code = list(model.graph.input), r.choice(_TYPES)
    for one in given if r.random() < 0.7 else r.sample(given, min(1, len(given))):
        one.type.tensor_type.elem_type = code


def _constant(r: random.Random, model: ModelProto) -> None:
    """Another small number in a constant."""
    if not model.graph.initializer:
        _type(r, model)
        return
    one = r.choice(list(model.graph.initializer))
    array = numpy_helper.to_array(one).copy()
    if array.size:
        array.flat[r.randrange(array.size)] = np.asarray(r.choice(_SMALL)).astype(array.dtype)
    one.CopyFrom(numpy_helper.from_array(array, one.name))


def _operator(r: random.Random, model: ModelProto) -> None:
    """Another operator with as many operands."""
    count = len(model.graph.node[0].input)
    others = [c for c in CASES if len(c.operands) == count]
    model.graph.node[0].op_type = r.choice(others).op


_MUTATIONS: Final[tuple[Callable[[random.Random, ModelProto], None], ...]] = (
    _attribute, _attribute, _extent, _extent, _rank, _type, _type, _constant, _constant, _operator,
)  # fmt: skip


def case_mutant(seed: int) -> tuple[str, bytes]:
    """Return (what it is made of, the file) of a seed: one operator's case, in one or two places another one."""
    r = random.Random(seed)
    case = r.choice(CASES)
    opsets = [v for v in (11, 13, 16, 18, NEWEST) if case.since[0] <= v <= case.since[1]]
    model = case.model(r.choice(opsets or [NEWEST]))
    names = []
    for _ in range(r.choice((1, 1, 2))):
        change = r.choice(_MUTATIONS)
        change(r, model)
        names.append(change.__name__)
    return f"{case} {' '.join(names)}", model.SerializeToString()
