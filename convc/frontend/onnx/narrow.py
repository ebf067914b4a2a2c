"""Element types of 8 bits and less that the IR lacks: float8, float4, int4, int2. Their values travel in an 8-bit integer, the carrier.

A float travels as its bits, in uint8; an integer as its value, sign-extended, in int8 or uint8. So a graph whose input is float8_e4m3fn
takes uint8. Only the converters that say so (`Converter.narrow`) take such values, since to all others the carrier is a plain integer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import ml_dtypes
import numpy as np
from onnx import helper

from convc.ir.ops.definition import Array

__all__ = [
    "NARROW",
    "NarrowValue",
    "carried",
    "carrier",
    "decoded",
    "narrow_name",
    "natural",
    "thresholds",
]

# name -> (NumPy's type, the carrier)
NARROW: Final[Mapping[str, tuple[np.dtype, str]]] = {
    name: (np.dtype(type), carrier)
    for name, type, carrier in (
        ("float8_e4m3fn", ml_dtypes.float8_e4m3fn, "uint8"),
        ("float8_e4m3fnuz", ml_dtypes.float8_e4m3fnuz, "uint8"),
        ("float8_e5m2", ml_dtypes.float8_e5m2, "uint8"),
        ("float8_e5m2fnuz", ml_dtypes.float8_e5m2fnuz, "uint8"),
        ("float8_e8m0fnu", ml_dtypes.float8_e8m0fnu, "uint8"),
        ("float4_e2m1fn", ml_dtypes.float4_e2m1fn, "uint8"),
        ("int4", ml_dtypes.int4, "int8"),
        ("uint4", ml_dtypes.uint4, "uint8"),
        ("int2", ml_dtypes.int2, "int8"),
        ("uint2", ml_dtypes.uint2, "uint8"),
    )
}

_BY_CODE: Final = {int(helper.np_dtype_to_tensor_dtype(t)): n for n, (t, _) in NARROW.items()}


class NarrowValue(NamedTuple):
    """A value of the graph that carries a narrow type: what a converter answers."""

    value: str
    dtype: str


def narrow_name(code: int) -> str:
    """Return the name of ONNX's element type if it is a narrow one, else "".

    Example:
        >>> import onnx
        >>> narrow_name(onnx.TensorProto.INT4), narrow_name(onnx.TensorProto.INT8)
        ('int4', '')
    """
    return _BY_CODE.get(int(code), "")


def carrier(name: str) -> str:
    """Return the element type in which a narrow type travels.

    Example:
        >>> carrier("float8_e5m2"), carrier("int4")
        ('uint8', 'int8')
    """
    return NARROW[name][1]


def carried(array: Array) -> Array:
    """Return an array of a narrow type as its carrier.

    Example:
        >>> carried(np.array([-1, 3], ml_dtypes.int4)), carried(np.array([1.0], ml_dtypes.float8_e4m3fn))
        (array([-1,  3], dtype=int8), array([56], dtype=uint8))
    """
    kind = carrier(array.dtype.name)
    if array.dtype.name.startswith("float"):
        return np.ascontiguousarray(array).view(kind).reshape(array.shape)
    return array.astype(kind)


def natural(array: Array, name: str) -> Array:
    """Return an array of the narrow type from its carrier: the inverse of `carried`."""
    dtype = NARROW[name][0]
    return array.view(dtype) if name.startswith("float") else array.astype(dtype)


def decoded(name: str) -> Array:
    """Return the float32 that every code of a narrow float stands for."""
    bits = 4 if name.startswith("float4") else 8
    codes = np.arange(2**bits, dtype=np.uint8)
    with np.errstate(all="ignore"):  # NaN is among them
        return codes.view(NARROW[name][0]).astype(np.float32)


def _greatest(name: str) -> int:
    """Return the code of the largest finite value."""
    values = decoded(name)
    return int(np.argmax(np.where(np.isfinite(values), values, -np.inf)))


def thresholds(name: str, *, saturate: bool, mode: str, dtype: str) -> Array:
    """Return, ascending, the values that a magnitude must exceed to have code 1, 2 ...: codes grow with the values they stand for.

    A tie goes to the even code: above an even one the midpoint itself stays below, above an odd one it does not. Without
    `saturate` one more threshold leads to the code after the largest finite value, which is infinity or NaN in every format.

    Args:
        name: the narrow float.
        saturate: whether what is too large becomes the largest finite value.
        mode: nearest; up or down for float8_e8m0fnu.
        dtype: the element type of the magnitudes.

    Example:
        >>> thresholds("float4_e2m1fn", saturate=True, mode="nearest", dtype="float32").round(3).tolist()
        [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0]
    """
    top = _greatest(name)
    values = decoded(name)[: top + 1].astype(dtype)
    if not saturate:
        values = np.append(values, 2 * values[-1] - values[-2])
    below, above = values[:-1], values[1:]
    if mode == "up":
        return below
    if mode == "down":
        return np.nextafter(above, np.asarray(0, dtype))
    middle = (below + above) / 2
    even = np.arange(len(middle)) % 2 == 0
    return np.where(even, middle, np.nextafter(middle, np.asarray(0, dtype))).astype(dtype)
