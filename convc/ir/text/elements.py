"""One array element as text: the shortest decimal that reads back as the same bits."""

from __future__ import annotations

import numpy as np

from convc.errors import TextError
from convc.ir.ops.definition import Array
from convc.ir.types import FLOATS, SHORT_NAMES, dtype_name, numpy_dtype

__all__ = ["parse_element", "print_element"]


def _bits(element: Array) -> str:
    """Return the element's bits as hexadecimal digits, most significant first."""
    return element.tobytes()[::-1].hex()


def print_element(element: Array) -> str:
    """Return the text of a 0-d array.

    Example:
        >>> print_element(np.array(0.1, "float32")), print_element(np.array(True))
        ('0.1', 'true')
    """
    dtype = dtype_name(element.dtype)
    if dtype == "bool":
        return "true" if element else "false"
    if dtype not in FLOATS:
        return str(int(element))
    # The type's own shortest form may round twice on its way back through a double: then the exact one is printed.
    for text in (repr(float(str(element[()]))), repr(float(element))):
        if _bits(parse_element(text, dtype)) == _bits(element):
            return text
    return f"nan(0x{_bits(element)})"


def parse_element(text: str, dtype: str) -> Array:
    """Return the 0-d array that `print_element` printed as `text`.

    Raises:
        TextError: if `text` is no value of the element type.
    """
    wanted = numpy_dtype(dtype)
    short = SHORT_NAMES[dtype]
    if dtype == "bool":
        if text not in ("true", "false"):
            raise TextError(f"element of {short} must be true or false; got {text}.")
        return np.array(text == "true")
    try:
        if dtype not in FLOATS:
            limits, number = np.iinfo(wanted), int(text, 0)
            if not limits.min <= number <= limits.max:
                raise TextError(
                    f"element of {short} must be in [{limits.min}, {limits.max}]; got {text}."
                )
            return np.array(number, wanted)
        if text.startswith("nan("):
            bits = bytes.fromhex(text[4:-1].removeprefix("0x"))
            element = np.frombuffer(bits[::-1], wanted, 1)[0]
            if not np.isnan(element):
                raise TextError(f"nan(...) must hold the bits of a NaN of {short}; got {text}.")
            return np.array(element, wanted)
        number = float(text)
    except ValueError as error:
        if isinstance(error, TextError):
            raise
        raise TextError(f"element of {short} must be a number of that type; got {text}.") from None
    with np.errstate(over="ignore"):
        element = np.array(number, np.float64).astype(wanted)
    if np.isinf(element) and not np.isinf(number):
        raise TextError(f"element of {short} must be finite in that type; got {text}.")
    return element
