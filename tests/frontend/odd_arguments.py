"""What arguments are not, and what is wrong with how a call that is given it ends: it must be taken, or refused in the house's form."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import ml_dtypes
import numpy as np

from convc.errors import ConvcError
from convc.frontend import dsl as cc

__all__ = ["ODD", "complaint", "complaints_about"]

X: Final = cc.input("x", (1, 4, 8, 8))

ODD: Final[list[Any]] = [
    None, "abc", "", b"x", 0, -1, 3, 1.5, float("nan"), True, 1j, np.int64(1), np.float32(2.5), np.bool_(True), [], [1], [2.5], [None], ["a"],
    [[1, 2], [3]], {}, {"a": 1}, {1, 2}, object(), int, range(2), slice(None), ..., 10**30, [10**30, 1], (-1,), (0, 0), (-7,), np.zeros((2, 2)),
    np.array(1), np.array(["a"]), np.array([1, 2], object), np.zeros(2, "c8"), np.zeros(2, "M8[D]"), np.zeros((2, 0)), ml_dtypes.bfloat16(1.5),
    cc.input("other", (5,), "int8"), X,
]  # fmt: skip


def complaint(call: Callable[[], object]) -> str:
    """Return what is wrong with how a call ends; "" if nothing is."""
    try:
        call()
    except ConvcError as error:
        words = str(error)
        formed = re.search(r"\b(must|cannot)\b.*\bgot\b|^unknown .*; known: ", words, re.DOTALL)
        return "" if formed else f"refused out of form: {words}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def complaints_about(
    function: Callable[..., object], given: dict[str, Any], argument: str, odd: list[Any]
) -> list[str]:
    """Return what is wrong with the calls in which one argument is replaced."""
    found = [(o, complaint(lambda o=o: function(**{**given, argument: o}))) for o in odd]
    return [f"{argument}={o!r}: {said}" for o, said in found if said]
