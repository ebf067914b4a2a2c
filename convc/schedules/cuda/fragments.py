"""THE ALGORITHM of products on tensor cores: those of `schedules.implicit_gemm`, in the order in which a warp's registers hold them.

An instruction multiplies 16 channels x 8 words of the sum by 8 words x 8 pixels; a word is 32 bits: one float32, or two half-precision
numbers that follow each other in the sum. Of its 32 lanes (PTX ISA, "Matrix Fragments for mma.m16n8k8" and "... k16")

    lane 4 a + b holds weights      [channel a + 8 r][word b + 4 h]         r, h = 0, 1
                       patches      [word b + 4 h][pixel a]                 h = 0, 1
                       sums         [channel a + 8 r][pixel 2 b + p]        r, p = 0, 1

so that packed weights are [z][8 words][16 channels][lane][2 h + r][element]: a lane's four words are one load of 16 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import te

from convc.ir.types import Shape, numpy_dtype
from convc.schedules.implicit_gemm import Lookup, Product
from convc.schedules.matrices import Matrices

__all__ = [
    "CHANNELS",
    "PIXELS",
    "WORDS",
    "elements_of",
    "packed",
    "packed_at",
    "product",
    "shape",
]

# Of one instruction.
CHANNELS, PIXELS, WORDS = 16, 8, 8


def elements_of(dtype: str) -> int:
    """Return how many elements a word of 32 bits holds.

    Example:
        >>> elements_of("float32"), elements_of("bfloat16")
        (1, 2)
    """
    return 4 // numpy_dtype(dtype).itemsize


def shape(m: Matrices, dtype: str) -> Shape:
    """Return the shape of the packed weights of products of padded extents."""
    e = elements_of(dtype)
    return (m.products, m.padded_depth // (WORDS * e), m.padded_channels // CHANNELS, 32, 4, e)


def packed(weight: np.ndarray) -> np.ndarray:
    """Return weights [z][depth][channels], both in whole instructions, as lanes load them.

    Example:
        >>> packed(np.arange(128, dtype=np.float32).reshape(1, 8, 16))[0, 0, 0, 4]  # channels 1 and 9 of terms 0 and 4
        array([[ 1.],
               [ 9.],
               [65.],
               [73.]], dtype=float32)
    """
    z, depth, channels = weight.shape
    e = elements_of(weight.dtype.name)
    parts = weight.reshape(z, depth // (WORDS * e), 2, 4, e, channels // CHANNELS, 2, 8)
    # z, instruction, h, b, element, tile, r, a -> z, instruction, tile, a, b, h, r, element
    lanes = parts.transpose(0, 1, 5, 7, 3, 2, 6, 4)
    return np.ascontiguousarray(lanes).reshape(
        z, depth // (WORDS * e), channels // CHANNELS, 32, 4, e
    )


def packed_at(dtype: str, element: Callable[[Any, Any, Any], Any]) -> Callable[..., Any]:
    """Return the element at an index of what `packed` makes, of weights (z, depth, channel) that are computed at run time."""
    e = elements_of(dtype)

    def at(z: Any, instruction: Any, tile: Any, lane: Any, word: Any, j: Any) -> Any:
        depth = ((instruction * 2 + word // 2) * 4 + lane % 4) * e + j
        return element(z, depth, tile * CHANNELS + word % 2 * 8 + lane // 4)

    return at


def product(
    m: Matrices,
    element: Lookup,
    dtype: str,
    accumulator: str,
    left: Callable[[Any, Any, Any], Any] | None = None,
) -> Product:
    """Return weights and products as `implicit_gemm.product` does; blocks `patch` in words, `acc` in fragments, `flat`.

    Args:
        m: the products' extents.
        element: of the right side.
        dtype: of the operands.
        accumulator: type of the sums.
        left: (z, depth, channel) -> element of a left side that is looked up, too: block `weight`; None: packed weights are given.
    """
    e = elements_of(dtype)
    steps, together = m.padded_depth // m.step, m.step // (WORDS * e)
    if left is None:
        w = te.placeholder(shape(m, dtype), dtype, name="weight")
    else:
        w = te.compute(shape(m, dtype), packed_at(dtype, left), name="weight")
    patch = te.compute(
        (m.products, steps, m.step // e, m.padded_pixels, e),
        lambda z, s, i, p, j: element(z, s * m.step, i * e + j, p),
        name="patch",
    )
    extents = (("s", steps), ("t", together), ("h", 2), ("b", 4), ("e", e))
    axes = [te.reduce_axis((0, n), name) for name, n in extents]

    def term(z: Any, k: Any, a: Any, p: Any, b: Any, pair: Any) -> Any:
        step, t, h, word, j = axes
        left = w[z, step * together + t, k // 2, a * 4 + word, h * 2 + k % 2, j]
        right = patch[z, step, t * WORDS + h * 4 + word, p * PIXELS + b * 2 + pair, j]
        return te.sum(left.astype(accumulator) * right.astype(accumulator), axis=axes)

    fragments = (m.products, m.padded_channels // 8, 8, m.padded_pixels // PIXELS, 4, 2)
    acc = te.compute(fragments, term, name="acc")
    flat = te.compute(
        (m.products, m.padded_channels, m.padded_pixels),
        lambda z, k, p: acc[z, k // 8, k % 8, p // PIXELS, p % PIXELS // 2, p % 2],
        name="flat",
    )
    return w, flat
