"""Element types and tensor types.

One table holds every element type convc knows; all spellings (text form, NumPy, ONNX by name) come from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

from convc.errors import DTypeError

__all__ = [
    "FLOATS",
    "HALVES",
    "SHORT_NAMES",
    "Shape",
    "TensorType",
    "dtype_name",
    "greatest_finite",
    "numpy_dtype",
]

Shape: TypeAlias = tuple[int, ...]

# name (NumPy's) -> the text form's short name. bfloat16 is ml_dtypes', NumPy has none.
SHORT_NAMES: Final[dict[str, str]] = {
    "float64": "f64",
    "float32": "f32",
    "float16": "f16",
    "bfloat16": "bf16",
    "int64": "i64",
    "int32": "i32",
    "int16": "i16",
    "int8": "i8",
    "uint64": "u64",
    "uint32": "u32",
    "uint16": "u16",
    "uint8": "u8",
    "bool": "i1",
}
FLOATS: Final = ("float64", "float32", "float16", "bfloat16")
HALVES: Final = ("float16", "bfloat16")


def numpy_dtype(name: str) -> np.dtype:
    """Return the NumPy dtype called `name`.

    Raises:
        DTypeError: if convc has no such element type.

    Example:
        >>> numpy_dtype("bfloat16").itemsize
        2
    """
    if name not in SHORT_NAMES:
        raise DTypeError(f"element type must be one of {', '.join(SHORT_NAMES)}; got '{name}'.")
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def dtype_name(dtype: DTypeLike) -> str:
    """Return convc's name of a NumPy dtype, the inverse of `numpy_dtype`.

    Raises:
        DTypeError: for what is none, or one that convc has not.
    """
    try:
        # NumPy takes None for float64.
        name = "None" if dtype is None else np.dtype(dtype).name
    except (TypeError, ValueError):
        name = str(dtype)
    if name not in SHORT_NAMES:
        raise DTypeError(f"element type must be one of {', '.join(SHORT_NAMES)}; got '{name}'.")
    return name


def greatest_finite(name: str) -> float:
    """Return the greatest finite value of a float type.

    Example:
        >>> greatest_finite("float16")
        65504.0
    """
    return float(ml_dtypes.finfo(numpy_dtype(name)).max)


@dataclass(frozen=True, slots=True)
class TensorType:
    """Shape and element type of a value.

    Example:
        >>> print(TensorType((1, 3, 224, 224), "float32"))
        f32[1,3,224,224]
    """

    shape: Shape
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{SHORT_NAMES[self.dtype]}[{','.join(map(str, self.shape))}]"

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * numpy_dtype(self.dtype).itemsize

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    @property
    def is_image(self) -> bool:
        """Whether it has a batch, channels and 1 to 3 spatial axes, as the data of a convolution."""
        return self.rank in (3, 4, 5)
