"""Unshared convolution: every output point has a filter of its own; and its two gradients.

    y[n, k, p...]      = sum over c, r... of x[n, c, p stride + r dilation - pad] w[k, p..., c, r...]        conv_local(x, w)
    dL/dx              = the sum of w over the points that read it                                        conv_local_data_grad(dy, w)
    dL/dw[k, p, c, r]  = sum over n of dy[n, k, p...] x[n, c, p stride + r dilation - pad]              conv_local_weight_grad(x, dy)

All three are linear in both operands, so their own gradients are these three again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from convc.errors import DTypeError, ShapeError
from convc.ir.ops.conv import check_accumulate
from convc.ir.ops.definition import Array, Attributes, Floats, OpDef
from convc.ir.spec import ConvSpec
from convc.ir.types import Shape, TensorType

__all__ = [
    "ROWS",
    "LocalAttributes",
    "LocalDataGradAttributes",
    "LocalWeightGradAttributes",
    "local_weight",
    "spec_of_local",
]


@dataclass(frozen=True, slots=True)
class LocalAttributes(Attributes):
    """Geometry, as in `ConvSpec`; empty means ONNX's default. `accumulate` is the element type of the sums, as in `ConvAttributes`."""

    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    accumulate: str = ""


@dataclass(frozen=True, slots=True)
class LocalDataGradAttributes(Attributes):
    """The convolution's geometry and its data's spatial shape, which the operands do not tell; `accumulate` as in `ConvAttributes`."""

    extents: tuple[int, ...]
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    accumulate: str = ""


@dataclass(frozen=True, slots=True)
class LocalWeightGradAttributes(Attributes):
    """The convolution's geometry and its filters' spatial shape, which the operands do not tell; `accumulate` as in `ConvAttributes`."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    accumulate: str = ""


_Attributes = LocalAttributes | LocalDataGradAttributes | LocalWeightGradAttributes


def local_weight(spec: ConvSpec) -> Shape:
    """Return the shape of all filters of an unshared convolution: (K, *output, C/group, *kernel)."""
    return (spec.weight[0], *spec.output[2:], *spec.weight[1:])


def _spec(data: Shape, shared: Shape, dtype: str, a: _Attributes) -> ConvSpec:
    return ConvSpec.of(
        data,
        shared,
        strides=a.strides,
        pads=a.pads,
        dilations=a.dilations,
        group=a.group,
        dtype=dtype,
    )


def spec_of_local(types: Sequence[TensorType], a: _Attributes) -> ConvSpec:
    """Return the geometry of the forward convolution, with the shape that one shared filter would have.

    Raises:
        ShapeError: as `ConvSpec`; if the filters are not one per output point, or a gradient has not the output's shape.
        DTypeError: as `ConvSpec`; if the operands differ in element type, or their products cannot be added up in `accumulate`.

    Example:
        >>> types = TensorType((2, 4, 5, 5)), TensorType((6, 3, 3, 4, 3, 3))
        >>> spec_of_local(types, LocalAttributes()).output
        (2, 6, 3, 3)
    """
    first, second = types
    if first.dtype != second.dtype:
        raise DTypeError(
            f"conv_local operands must have one element type; got {first} and {second}."
        )
    check_accumulate(first.dtype, a.accumulate)
    n = first.rank - 2
    wanted = first.rank if isinstance(a, LocalWeightGradAttributes) else 2 + 2 * n
    if n not in (1, 2, 3) or second.rank != wanted:
        raise ShapeError(
            f"conv_local must have data (N, C, *spatial) and filters (K, *output, C/group, *kernel), or gradients of such; "
            f"got {first} and {second}."
        )
    if isinstance(a, LocalWeightGradAttributes):
        if a.group < 1 or first.shape[1] % a.group:
            raise ShapeError(
                f"conv_local group must divide the channels of {first}; got {a.group}."
            )
        shared = (second.shape[1], first.shape[1] // a.group, *a.kernel)
        spec = _spec(first.shape, shared, first.dtype, a)
        return _checked(spec, "gradient", second.shape, spec.output)
    shared = (second.shape[0], *second.shape[1 + n :])
    if isinstance(a, LocalDataGradAttributes):
        data = (first.shape[0], shared[1] * a.group, *a.extents)
        spec = _spec(data, shared, first.dtype, a)
        _checked(spec, "gradient", first.shape, spec.output)
    else:
        spec = _spec(first.shape, shared, first.dtype, a)
    return _checked(spec, "filters", second.shape, local_weight(spec))


def _checked(spec: ConvSpec, what: str, shape: Shape, wanted: Shape) -> ConvSpec:
    if shape != wanted:
        raise ShapeError(
            f"conv_local {what} must have shape {wanted}, one filter per output point; got {shape} (data {spec.data})."
        )
    return spec


# ---- references: one product per tap ------------------------------------------------------------------------------------


def _taps(spec: ConvSpec) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Yield every tap and the strided box of the padded data that it reads."""
    for tap in itertools.product(*map(range, spec.kernel)):
        axes = zip(tap, spec.dilations, spec.strides, spec.output[2:], strict=True)
        yield tap, tuple(slice(t * d, t * d + (p - 1) * s + 1, s) for t, d, s, p in axes)


def _spec_of_arrays(arrays: Sequence[Array], a: _Attributes) -> ConvSpec:
    """Return the geometry; references add up in float64, whatever the model asks for."""
    return spec_of_local(
        [TensorType(v.shape, "float64") for v in arrays], replace(a, accumulate="")
    )


def _grouped(x: Array, spec: ConvSpec) -> Array:
    """Return the data padded, channels as (group, C/group)."""
    n = spec.rank
    padded = np.pad(x, [(0, 0), (0, 0), *zip(spec.pads[:n], spec.pads[n:], strict=True)])
    return padded.reshape(spec.data[0], spec.group, -1, *padded.shape[2:])


def _split(spec: ConvSpec, array: Array, axis: int) -> Array:
    """Return an array with its axis of K output channels as (group, K/group)."""
    shape = array.shape
    return array.reshape(*shape[:axis], spec.group, -1, *shape[axis + 1 :])


def _forward(arrays: Sequence[Array], a: LocalAttributes) -> Array:
    x, w = arrays
    spec = _spec_of_arrays(arrays, a)
    padded, filters = _grouped(x, spec), _split(spec, w, 0)
    y = np.zeros(_split(spec, np.empty(spec.output), 1).shape, np.result_type(x, w))
    for tap, box in _taps(spec):
        y += np.einsum("ngc...,gk...c->ngk...", padded[(..., *box)], filters[(..., *tap)])
    return y.reshape(spec.output)


def _data_grad(arrays: Sequence[Array], a: LocalDataGradAttributes) -> Array:
    dy, w = arrays
    spec = _spec_of_arrays(arrays, a)
    gradients, filters = _split(spec, dy, 1), _split(spec, w, 0)
    dx = _grouped(np.zeros(spec.data, np.result_type(dy, w)), spec)
    for tap, box in _taps(spec):
        dx[(..., *box)] += np.einsum("ngk...,gk...c->ngc...", gradients, filters[(..., *tap)])
    inside = tuple(slice(b, b + e) for b, e in zip(spec.pads, spec.data[2:], strict=False))
    return dx[(..., *inside)].reshape(spec.data)


def _weight_grad(arrays: Sequence[Array], a: LocalWeightGradAttributes) -> Array:
    x, dy = arrays
    spec = _spec_of_arrays(arrays, a)
    padded, gradients = _grouped(x, spec), _split(spec, dy, 1)
    dw = np.zeros(_split(spec, np.empty(local_weight(spec)), 0).shape, np.result_type(x, dy))
    for tap, box in _taps(spec):
        dw[(..., *tap)] = np.einsum("ngc...,ngk...->gk...c", padded[(..., *box)], gradients)
    return dw.reshape(local_weight(spec))


def _infer_forward(types: Sequence[TensorType], a: LocalAttributes) -> TensorType:
    spec = spec_of_local(types, a)
    return TensorType(spec.output, spec.dtype)


def _infer_data_grad(types: Sequence[TensorType], a: LocalDataGradAttributes) -> TensorType:
    spec = spec_of_local(types, a)
    return TensorType(spec.data, spec.dtype)


def _infer_weight_grad(types: Sequence[TensorType], a: LocalWeightGradAttributes) -> TensorType:
    spec = spec_of_local(types, a)
    return TensorType(local_weight(spec), spec.dtype)


ROWS: Final = (
    OpDef("conv_local", LocalAttributes, (2, 2), _infer_forward, _forward, floats=Floats.PRODUCT),
    OpDef(
        "conv_local_data_grad",
        LocalDataGradAttributes,
        (2, 2),
        _infer_data_grad,
        _data_grad,
        floats=Floats.PRODUCT,
    ),
    OpDef(
        "conv_local_weight_grad",
        LocalWeightGradAttributes,
        (2, 2),
        _infer_weight_grad,
        _weight_grad,
        floats=Floats.PRODUCT,
    ),
)
