"""Comparisons, logic, bits, choice and casts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tvm import te, tirx

from convc.ir.graph import Node
from convc.ir.types import FLOATS, numpy_dtype
from convc.schedules.operators.operator import Operator, Tensors, Types, is_image
from convc.schedules.scalar import factor, map_elements
from convc.schedules.scalar_pairs import is_nan

__all__ = ["ROWS"]


def _elements(function: Callable[..., Any]) -> Operator:
    """Return the operator that is a function of one element of each operand, which broadcast."""

    def compute(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
        def value(*index: Any) -> Any:
            elements = []
            for x in tensors:
                # A constant written into the code has been given extents of 1, as many as there are axes.
                own = index[len(index) - len(x.shape) :]
                at = [
                    tirx.const(0, "int32") if int(n) == 1 else i
                    for n, i in zip(x.shape, own, strict=True)
                ]
                elements.append(x(*at))
            return function(node, *elements)

        return te.compute(node.type.shape, value, name=node.op)

    return Operator(compute)


def _shift(left: bool) -> Callable[..., Any]:
    """Return a shift whose distance, negative or not below the width, shifts every bit out."""

    def function(node: Node, a: Any, b: Any) -> Any:
        dtype = node.type.dtype
        signed = not dtype.startswith("u")
        zero = tirx.const(0, dtype)
        # In int64: TVM's simplifier fails on differences of unsigned constants; a huge uint64 becomes negative, as far outside.
        far = b.astype("int64")
        inside = tirx.all(far >= 0, far < 8 * numpy_dtype(dtype).itemsize)
        distance = tirx.Select(inside, far, tirx.const(0, "int64")).astype(dtype)
        if left:
            return tirx.Select(inside, tirx.shift_left(a, distance), zero)
        out = tirx.Select(a < zero, tirx.const(-1, dtype), zero) if signed else zero
        return tirx.Select(inside, tirx.shift_right(a, distance), out)

    return function


def _differ(a: Any, b: Any) -> Any:
    """Return whether two bools differ; TVM compares bools as if they were floats."""
    return tirx.any(tirx.all(a, tirx.Not(b)), tirx.all(tirx.Not(a), b))


def _guarded(node: Node, a: Any, b: Any, function: Callable[[Any, Any], Any]) -> Any:
    """Return a remainder that is 0 where the divisor is 0 or -1: the processor stops a program that divides by 0."""
    dtype = node.type.dtype
    zero, one = tirx.const(0, dtype), tirx.const(1, dtype)
    trivial = b == zero
    if not dtype.startswith("u"):
        trivial = tirx.any(trivial, b == tirx.const(-1, dtype))
    return tirx.Select(trivial, zero, function(a, tirx.Select(trivial, one, b)))


def _float_rest(node: Node, a: Any, b: Any) -> Any:
    """Return C's fmod; narrow types go through float32."""
    dtype = node.type.dtype
    if dtype == "float64":
        return tirx.call_pure_extern(dtype, "fmod", a, b)
    wide = [v if dtype == "float32" else v.astype("float32") for v in (a, b)]
    rest = tirx.call_pure_extern("float32", "fmodf", *wide)
    return rest if dtype == "float32" else rest.astype(dtype)


def _mod(node: Node, a: Any, b: Any) -> Any:
    if node.type.dtype in FLOATS:
        rest = _float_rest(node, a, b)
        zero = tirx.const(0, node.type.dtype)
        fix = tirx.all(rest != zero, _differ(rest < zero, b < zero))
        return tirx.Select(fix, rest + b, rest)
    return _guarded(node, a, b, tirx.floormod)


def _fmod(node: Node, a: Any, b: Any) -> Any:
    return (
        _float_rest(node, a, b)
        if node.type.dtype in FLOATS
        else _guarded(node, a, b, tirx.truncmod)
    )


def _where(node: Node, condition: Any, a: Any, b: Any) -> Any:
    if node.type.dtype != "bfloat16":
        return tirx.Select(condition, a, b)
    # TVM stores a bfloat16 sum or product, but no choice. Through float32 and back, every value stays what it is.
    return tirx.Select(condition, *(v.astype("float32") for v in (a, b))).astype("bfloat16")


def _cast_element(v: Any, source: str, wanted: str) -> Any:
    if source == wanted:
        return v
    if wanted == "bool":
        return v != tirx.const(0, source)
    if source == "bool":
        return tirx.Select(v, tirx.const(1, wanted), tirx.const(0, wanted))
    if source in FLOATS and wanted not in FLOATS:
        # A negative float has no unsigned neighbour: go through the widest integer.
        return v.astype("int64").astype(wanted)
    return v.astype(wanted)


def _cast(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    source, wanted = types[0].dtype, node.type.dtype
    return map_elements(tensors[0], lambda v: _cast_element(v, source, wanted))


def _between_floats(node: Node, types: Types, block: int) -> bool:
    return is_image(types) and types[0].is_float and node.type.is_float


def _compare(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Return a comparison that holds with NaN.

    TVM takes floats for ordered: x == x is true to it, not (a < b) is b <= a, one of which always holds. It sees neither through the
    choice nor that b - 0.0 is b; LLVM removes both.
    """

    def compared(node: Node, a: Any, b: Any) -> Any:
        dtype = str(b.ty.dtype)
        if dtype not in FLOATS:
            return function(a, b)
        holds = function(a, b + factor(-0.0, dtype))
        return tirx.Select(holds, tirx.const(1, "bool"), tirx.const(0, "bool"))

    return compared


_same = _compare(lambda a, b: a == b)


def _equal(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    bools = types[0].dtype == "bool"
    same = _elements(lambda node, a, b: tirx.Not(_differ(a, b)) if bools else _same(node, a, b))
    return same.compute(tensors, node, types, block)


def _is_nan(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    return map_elements(tensors[0], lambda v: is_nan(v, types[0].dtype))


def _is_inf(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    a: Any = node.attributes
    limit = tirx.const(float("inf"), types[0].dtype)

    def infinite(x: Any) -> Any:
        found: list[Any] = [x == limit] if a.positive else []
        found += [x == -limit] if a.negative else []
        return tirx.any(*found) if found else tirx.const(0, "bool")

    return map_elements(tensors[0], infinite)


def _choice() -> Operator:
    """Return `where`, which works in blocks, too: a condition of one channel lies in the first lane of its one block."""
    plain = _elements(_where)

    def compute(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
        if not block:
            return plain.compute(tensors, node, types, block)
        shape = next(
            x.shape for x, t in zip(tensors, types, strict=True) if t.shape == node.type.shape
        )
        narrow = [t.rank == node.type.rank and t.shape[1] < node.type.shape[1] for t in types]

        def value(*index: Any) -> Any:
            elements = []
            for x, one in zip(tensors, narrow, strict=True):
                at = [
                    tirx.const(0, "int32") if int(n) == 1 else i
                    for n, i in zip(x.shape, index, strict=True)
                ]
                elements.append(x(*at[:-1], 0) if one else x(*at))
            return _where(node, *elements)

        return te.compute(shape, value, name="where")

    def follows(node: Node, types: Types, block: int) -> bool:
        return is_image([node.type]) and any(t.shape == node.type.shape for t in types[1:]) and all(
            t.rank == node.type.rank and t.shape[1] in (1, node.type.shape[1]) for t in types
        )  # fmt: skip

    return Operator(compute, follows)


ROWS: Final[dict[str, Operator]] = {
    "equal": Operator(_equal),
    "less": _elements(_compare(lambda a, b: a < b)),
    "less_equal": _elements(_compare(lambda a, b: a <= b)),
    "greater": _elements(_compare(lambda a, b: a > b)),
    "greater_equal": _elements(_compare(lambda a, b: a >= b)),
    "logical_and": _elements(lambda node, a, b: tirx.all(a, b)),
    "logical_or": _elements(lambda node, a, b: tirx.any(a, b)),
    "logical_xor": _elements(lambda node, a, b: _differ(a, b)),
    "logical_not": _elements(lambda node, a: tirx.Not(a)),
    "bit_and": _elements(lambda node, a, b: tirx.bitwise_and(a, b)),
    "bit_or": _elements(lambda node, a, b: tirx.bitwise_or(a, b)),
    "bit_xor": _elements(lambda node, a, b: tirx.bitwise_xor(a, b)),
    "bit_not": _elements(lambda node, a: tirx.bitwise_not(a)),
    "shift_left": _elements(_shift(True)),
    "shift_right": _elements(_shift(False)),
    "mod": _elements(_mod),
    "fmod": _elements(_fmod),
    "where": _choice(),
    "cast": Operator(_cast, _between_floats),
    "bit_cast": _elements(lambda node, x: tirx.reinterpret(node.type.dtype, x)),
    "is_nan": Operator(_is_nan),
    "is_inf": Operator(_is_inf),
}
