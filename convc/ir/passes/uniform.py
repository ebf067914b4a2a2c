"""Constants with one value in all elements, kept as broadcast scalars so that they take no memory."""

from __future__ import annotations

import numpy as np

from convc.ir.graph import CONSTANT, ConstantAttributes, Node
from convc.ir.ops.definition import Array
from convc.ir.types import Shape

__all__ = ["is_uniform", "splat", "stored_bytes", "uniform_element"]

# Below this a look at all elements costs less than the call around it (4096 float32: 16 KiB, within L1).
_LOOK = 4096


def splat(element: Array, shape: Shape) -> Array:
    """Return a read-only array of that shape which stores one element.

    Example:
        >>> splat(np.array(2.0), (3, 4)).strides
        (0, 0)
    """
    return np.broadcast_to(np.reshape(element, ()), shape)


def uniform_element(node: Node) -> Array | None:
    """Return the one element (0-d) of a constant that is a splat, or small and equal throughout; else None."""
    attributes = node.attributes
    if not isinstance(attributes, ConstantAttributes) or not node.type.size:
        return None
    first = attributes.value[(0,) * node.type.rank]
    if attributes.is_splat or (node.type.size <= _LOOK and bool(np.all(attributes.value == first))):
        return np.asarray(first)
    return None


def is_uniform(node: Node, value: float) -> bool:
    """Whether a node is a constant with `value` in every element.

    Example:
        >>> from convc.ir.graph import constant
        >>> is_uniform(constant("c", np.ones(3)), 1.0)
        True
    """
    if node.op != CONSTANT:
        return False
    element = uniform_element(node)
    return element is not None and bool(element == value)


def stored_bytes(node: Node) -> int:
    """Return the memory that a node's constant takes."""
    attributes = node.attributes
    is_splat = isinstance(attributes, ConstantAttributes) and attributes.is_splat
    return node.value.itemsize if is_splat else node.type.nbytes
