"""Tensor: a value of the graph to be, with operators; and how an op is applied to such values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Final, ParamSpec, Protocol, TypeAlias, TypeVar, Union

import numpy as np
from numpy.typing import DTypeLike

from convc.errors import ConvcError, DTypeError, ShapeError
from convc.frontend.dsl.arguments import as_array, is_whole, whole_numbers
from convc.frontend.dsl.geometry import extents_of
from convc.frontend.dsl.indexing import Index, resolve_index
from convc.ir.graph import Node, placeholder
from convc.ir.graph import constant as constant_node
from convc.ir.ops import Attributes
from convc.ir.ops.definition import Array
from convc.ir.ops.shape import ReshapeAttributes, TransposeAttributes
from convc.ir.types import FLOATS, Shape, TensorType, dtype_name

__all__ = [
    "Binary",
    "Operand",
    "Tensor",
    "apply",
    "as_tensor",
    "binary",
    "building",
    "constant",
    "input",
    "parameter",
    "reshape",
    "transpose",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")
Operand: TypeAlias = Union["Tensor", Array, float]


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One value: the node that computes it and the tensors it reads. Compared by identity; made by this package's functions.

    Attributes:
        node: its definition, without inputs; its name is empty where `graph` is to choose one.
        producers: the operands.
    """

    node: Node
    producers: tuple[Tensor, ...] = ()

    # NumPy must leave `array + tensor` to Tensor.__radd__ instead of adding element by element.
    __array_ufunc__ = None
    # Python would iterate by indexing: a loop over a tensor is a mistake.
    __iter__ = None

    def __repr__(self) -> str:
        return f"Tensor({self.node.name or self.node.op}: {self.node.type})"

    @property
    def shape(self) -> Shape:
        return self.node.type.shape

    @property
    def dtype(self) -> str:
        """Element type's name, as NumPy's."""
        return self.node.type.dtype

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """Return the elements in another shape; one extent may be -1, for what is left."""
        return reshape(self, _flat(shape))

    def transpose(self, *perm: int | Sequence[int]) -> Tensor:
        """Return the tensor with result axis i being axis perm[i]; without arguments, axes reversed."""
        return transpose(self, _flat(perm) if perm else None)

    def __getitem__(self, index: Index | tuple[Index, ...]) -> Tensor:
        """Return a box of the tensor: integers (which drop their axis), slices with positive steps, one ellipsis."""
        return _box(self, index if isinstance(index, tuple) else (index,))

    def __add__(self, other: Operand) -> Tensor:
        return _OPERATORS["add"](self, other)

    def __radd__(self, other: Operand) -> Tensor:
        return _OPERATORS["add"](other, self)

    def __sub__(self, other: Operand) -> Tensor:
        return _OPERATORS["sub"](self, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return _OPERATORS["sub"](other, self)

    def __mul__(self, other: Operand) -> Tensor:
        return _OPERATORS["mul"](self, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return _OPERATORS["mul"](other, self)

    def __truediv__(self, other: Operand) -> Tensor:
        return _OPERATORS["div"](self, other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return _OPERATORS["div"](other, self)

    def __pow__(self, other: Operand) -> Tensor:
        return _OPERATORS["pow"](self, other)

    def __rpow__(self, other: Operand) -> Tensor:
        return _OPERATORS["pow"](other, self)

    def __neg__(self) -> Tensor:
        return apply("neg", [self])


class Binary(Protocol):
    """A function of two tensors that broadcast; both have one element type."""

    def __call__(self, a: Operand, b: Operand, *, name: str | None = None) -> Tensor: ...


def building(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return `function` with a note on every error it raises: which call it was, and for which name."""

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        name = kwargs.get("name")
        try:
            if not isinstance(name, str | None):
                raise DTypeError(f"name must be a string; got {name!r}.")
            return function(*args, **kwargs)
        except ConvcError as error:
            named = f" '{name}'" if isinstance(name, str) and name else ""
            error.add_note(f"while building {function.__name__}{named}")
            raise

    return call


@building
def input(name: str, shape: Sequence[int | str], dtype: DTypeLike = "float32") -> Tensor:
    """Return a graph input.

    Args:
        name: unique in the graph.
        shape: its extents. The leading one may be a name instead, which makes it a symbolic batch: the network is written for
            one sample (its extent counts as 1 here), the module takes any number of them. One name per graph.
        dtype: element type.

    Raises:
        DTypeError: for a name that is no string, and extents or an element type that are none.
        ShapeError: for a negative extent, or a name that is not the leading extent.

    Example:
        >>> input("x", (1, 3, 8, 8))
        Tensor(x: f32[1,3,8,8])
        >>> input("x", ("N", 3, 8, 8)).shape
        (1, 3, 8, 8)
    """
    if not isinstance(name, str):
        raise DTypeError(f"input must have a string for its name; got {name!r}.")
    if not name:
        raise ShapeError(f"input must have a name; got '{name}'.")
    symbol, extents = extents_of(name, shape)
    if min(extents, default=0) < 0:
        raise ShapeError(f"input '{name}' must have extents >= 0; got {extents}.")
    return Tensor(placeholder(name, TensorType(extents, dtype_name(dtype)), symbol))


@building
def parameter(name: str, shape: Sequence[int], dtype: DTypeLike = "float32") -> Tensor:
    """Return a graph input for a weight that is set later: `module.set_params({name: array})` gives it to all calls after it.

    Weights that are known when the graph is built are better given as arrays: those are packed once, at compile time.

    Example:
        >>> parameter("w", (8, 3, 3, 3))
        Tensor(w: f32[8,3,3,3])
    """
    return input(name, shape, dtype)


@building
def constant(
    value: Array | Sequence[float] | float,
    *,
    dtype: DTypeLike | None = None,
    name: str | None = None,
) -> Tensor:
    """Return a constant with a copy of `value`: what happens to the array afterwards does not change the graph.

    Example:
        >>> constant([1.0, 2.0], dtype="float32")
        Tensor(constant: f32[2])
    """
    return Tensor(constant_node(name or "", as_array(value, dtype)))


def as_tensor(operand: Operand, like: str | None = None) -> Tensor:
    """Return a tensor, or the constant that an array or number stands for.

    Args:
        operand: a Python number takes the element type `like`; so does a float array if `like` is a float type, since NumPy's
            arrays are float64 where nobody said otherwise; other arrays keep their type.
        like: element type of the tensor it meets; None is float32.

    Raises:
        DTypeError: for a number that `like` cannot hold, such as 0.5 as an integer.
    """
    if isinstance(operand, Tensor):
        return operand
    wanted = like or "float32"
    if isinstance(operand, int | float) and not isinstance(operand, np.generic):
        if wanted not in FLOATS and (isinstance(operand, float) or wanted == "bool"):
            raise DTypeError(f"number must be whole beside a tensor of {wanted}; got {operand!r}.")
        return constant(operand, dtype=wanted)
    array = as_array(operand)
    adapts = dtype_name(array.dtype) in FLOATS and wanted in FLOATS
    return constant(array, dtype=wanted if adapts else None)


def apply(
    op: str,
    operands: Sequence[Operand],
    attributes: Attributes | None = None,
    *,
    name: str | None = None,
) -> Tensor:
    """Return the result of one op; arrays and numbers take the element type of the first tensor.

    Args:
        op: a row of `ir.ops.OPS`.
        operands: in the op's order.
        attributes: the op's defaults if left out.
        name: of the value; unique in the graph.

    Raises:
        ShapeError, DTypeError: if the op does not take these operands.
    """
    like = next((o.dtype for o in operands if isinstance(o, Tensor)), None)
    producers = tuple(as_tensor(o, like) for o in operands)
    typed = [(p.node.name, p.node.type) for p in producers]
    return Tensor(replace(Node.of(name or "", op, typed, attributes), inputs=()), producers)


def binary(op: str) -> Binary:
    """Return the function of one binary op."""

    def function(a: Operand, b: Operand, *, name: str | None = None) -> Tensor:
        return apply(op, [a, b], name=name)

    function.__name__ = function.__qualname__ = op
    function.__doc__ = f"Return {op}(a, b), element by element, broadcast as NumPy does."
    return building(function)


_OPERATORS: Final = {op: binary(op) for op in ("add", "sub", "mul", "div", "pow")}


def _flat(arguments: Sequence[int | Sequence[int]]) -> Sequence[int]:
    """Return the numbers of f(1, 2) and of f((1, 2)) alike."""
    alone = len(arguments) == 1 and not is_whole(arguments[0])
    return arguments[0] if alone else arguments  # type: ignore[return-value]


@building
def reshape(x: Operand, shape: Sequence[int], *, name: str | None = None) -> Tensor:
    """Return the elements in another shape; one extent may be -1, for what is left."""
    x = as_tensor(x)
    extents = [*whole_numbers("shape", shape)]
    known = math.prod(n for n in extents if n != -1)
    if extents.count(-1) == 1 and known > 0 and x.node.type.size % known == 0:
        extents[extents.index(-1)] = x.node.type.size // known
    return apply("reshape", [x], ReshapeAttributes(tuple(extents)), name=name)


@building
def transpose(x: Operand, perm: Sequence[int] | None = None, *, name: str | None = None) -> Tensor:
    """Return the tensor with result axis i being axis perm[i]; without `perm`, axes reversed."""
    x = as_tensor(x)
    rank = len(x.shape)
    axes = tuple(reversed(range(rank))) if perm is None else whole_numbers("perm", perm)
    return apply("transpose", [x], TransposeAttributes(axes), name=name)


def _slice(x: Tensor, index: tuple[Index, ...]) -> Tensor:
    attributes, shape = resolve_index(index, x.node.type)
    box = apply("slice", [x], attributes)
    return box if box.shape == shape else apply("reshape", [box], ReshapeAttributes(shape))


_slice.__name__ = "slice"
_box = building(_slice)
