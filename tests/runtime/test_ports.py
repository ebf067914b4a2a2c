from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from convc.errors import InputError
from convc.runtime import Module, aligned_empty, load
from tests.runtime.runtime_modules import Foreign, placed


@pytest.fixture(scope="module")
def affine(affine_file: Path) -> Module:
    return load(affine_file, threads=1)


@pytest.fixture(scope="module")
def concatenation(concatenation_file: Path) -> Module:
    return load(concatenation_file, threads=1)


class RequiresGradient(Foreign):
    def __dlpack__(self, **options: object) -> object:
        raise BufferError("Can't export tensors that require gradient")


ONES = np.ones((8, 16), np.float32)


@pytest.mark.parametrize(
    ("arrays", "named", "message"),
    [
        ((), {}, "inputs must be exactly 'a', 'b'; got none (missing 'a', 'b')."),
        ((ONES,), {}, "inputs must be exactly 'a', 'b'; got 'a' (missing 'b')."),
        (
            (ONES,),
            {"c": ONES},
            "inputs must be exactly 'a', 'b'; got 'a', 'c' (missing 'b'; unknown 'c').",
        ),
        ((ONES, ONES, ONES), {}, "inputs must be at most 2 ('a', 'b'); got 3."),
        ((ONES, ONES), {"a": ONES}, "inputs must be given once; got 'a' twice."),
    ],
)
def test_names(
    concatenation: Module, arrays: tuple[NDArray, ...], named: dict[str, NDArray], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        concatenation(*arrays, **named)
    assert str(caught.value) == message


X = np.zeros((8, 64), np.float32)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            X.astype(np.float64),
            "input 'x' must have dtype float32; got float64. Convert it with .astype('float32').",
        ),
        (
            X.astype(">f4"),
            "input 'x' must have dtype float32; got >f4. Convert it with .astype('float32').",
        ),
        (X[None], "input 'x' must have shape (8, 64); got (1, 8, 64)."),
        (
            np.zeros((64, 8), np.float32).T,
            "input 'x' must be C-contiguous; got strides (4, 32) in bytes for shape (8, 64). Use np.ascontiguousarray(array).",
        ),
        (
            X.tolist(),
            "input 'x' must be a NumPy array or a CPU tensor with __dlpack__; got list. Convert it with np.asarray(value, 'float32').",
        ),
        (
            None,
            "input 'x' must be a NumPy array or a CPU tensor with __dlpack__; got NoneType. Convert it with np.asarray(value, 'float32').",
        ),
        (
            Foreign(X, device=(2, 1)),
            "input 'x' must be in CPU memory; got a tensor on cuda:1. Copy it to the CPU first.",
        ),
        (
            Foreign(X, device=(99, 0)),
            "input 'x' must be in CPU memory; got a tensor on device type 99:0. Copy it to the CPU first.",
        ),
        (
            RequiresGradient(X),
            "input 'x' must export its memory through DLPack; got Can't export tensors that require gradient.",
        ),
        (
            Foreign(X.astype(np.int32)),
            "input 'x' must have dtype float32; got int32. Convert it to float32 first.",
        ),
        (Foreign(X[:, :32].copy()), "input 'x' must have shape (8, 64); got (8, 32)."),
        (
            Foreign(np.zeros((8, 128), np.float32)[:, ::2]),
            "input 'x' must be C-contiguous; got strides (128, 2) in elements for shape (8, 64). Make it contiguous first.",
        ),
    ],
)
def test_wrong_inputs(affine: Module, value: NDArray, message: str) -> None:
    for use in (affine, lambda x: affine.run({"x": x}), lambda x: affine.profile({"x": x})):
        with pytest.raises(InputError) as caught:
            use(value)
        assert str(caught.value) == message


def test_wrong_outputs(affine: Module, x: NDArray) -> None:
    def message(**outputs: object) -> str:
        with pytest.raises(InputError) as caught:
            affine.run({"x": x}, outputs=outputs)  # pyright: ignore[reportArgumentType]
        return str(caught.value)

    y = aligned_empty((8, 64), np.float32)
    y[...] = 0
    frozen = y[:]
    frozen.flags.writeable = False
    z = x.reshape(-1)[:8]
    hint = "Make it with convc.runtime.aligned_empty(shape, dtype)."
    assert message(w=y) == "outputs must be among 'y', 'z'; got 'w'."
    assert message(y=[1]) == "output 'y' must be a NumPy array; got list."
    assert message(y=y[:4]) == "output 'y' must have shape (8, 64); got (4, 64)."
    assert message(y=y.astype(np.float16)) == "output 'y' must have dtype float32; got float16."
    assert message(y=frozen) == "output 'y' must be writable; got a read-only array."
    assert (
        message(y=placed(X, 16))
        == f"output 'y' must start at a multiple of 64 bytes; got 16 bytes behind one. {hint}"
    )
    assert message(y=x) == "output 'y' must not overlap other arrays; got the memory of input 'x'."
    assert message(z=z) == "output 'z' must not overlap other arrays; got the memory of input 'x'."
    assert (
        message(y=y, z=y.reshape(-1)[:8])
        == "output 'z' must not overlap other arrays; got the memory of output 'y'."
    )
