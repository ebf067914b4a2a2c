"""`implicit_gemm` on vectors of channels: what lies together in memory is looked up, copied and multiplied together.

THE ALGORITHM   acc[z, m, k] = sum over i, e of patch[z, i, m, e] w[z, i, k, e]     e: channel in a block, as many as 16 bytes hold
                patch and i as in `implicit_gemm`, with blocks of channels in place of channels
                y[n, k, p...] = epilogue(acc)                                       on data and result as NC/e[...]e
WHEN            as `implicit_gemm`, if groups are whole blocks
COST            as `implicit_gemm`, channels rounded up to whole blocks
ACCURACY        as `implicit_gemm`
SOURCE          Chetlur et al., arXiv:1410.0759 (implicit GEMM); CUTLASS, "Implicit GEMM Convolution" (channels innermost, 16 bytes a load)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
from tvm import te, tirx

from convc.ir.spec import ConvSpec
from convc.ir.types import numpy_dtype
from convc.schedules import implicit_gemm
from convc.schedules.algorithm import Problem
from convc.schedules.blocked_epilogue import blocked_extras, blocked_result
from convc.schedules.matrices import Matrices, gather, point
from convc.schedules.packing import Read, within
from convc.schedules.plan import Knobs
from convc.schedules.rank import raised, raised_weight
from convc.schedules.scalar import apply_steps, cast

__all__ = ["CACHED", "Element", "Product", "Products", "Sums", "compute", "lanes", "matrices", "pack", "packed_at", "weight_type"]  # fmt: skip

Expr = Any  # TVM's scalar expressions have no common public class in 0.27
# (product, where a step of the sum begins, block in the step, pixel, channel in the block) -> element
Element: TypeAlias = Callable[[Expr, Expr, Expr, Expr, Expr], Expr]
# (extents, elements of patches, their type, the sums' type) -> products
Product: TypeAlias = Callable[[Matrices, Element, str, str], "Sums"]
# (extents, the parts of sums) -> the sums
Meeting: TypeAlias = Callable[[Matrices, "Sums"], "Sums"]


@dataclass(frozen=True, slots=True)
class Sums:
    """Products, in whatever order their schedule wants them.

    Attributes:
        weight: packed.
        acc: the sums.
        index: product, channel, pixel -> index of their sum.
        whose: index of a sum -> product, channel, pixel.
    """

    weight: te.Tensor
    acc: te.Tensor
    index: Callable[[Expr, Expr, Expr], tuple[Expr, ...]]
    whose: Callable[..., tuple[Expr, Expr, Expr]]


_BYTES = 16

# What the name of data ends in that are copied through a cache; a device's code generator reads it off there.
CACHED: Final = "_cached"


def lanes(dtype: str) -> int:
    """Return the channels of a block.

    Example:
        >>> lanes("float16"), lanes("float32"), lanes("uint8")
        (8, 4, 16)
    """
    return _BYTES // numpy_dtype(dtype).itemsize


def weight_type(dtype: str) -> str:
    """Return the element type of weights by which data are multiplied.

    Example:
        >>> weight_type("float16"), weight_type("uint8")
        ('float16', 'int8')
    """
    return "int8" if dtype == "uint8" else dtype


def matrices(spec: ConvSpec, knobs: Knobs) -> Matrices:
    """Return the products' extents, `depth`, `step` and their like in blocks of channels.

    Example:
        >>> spec = ConvSpec.of((2, 64, 14, 14), (96, 64, 3, 3), pads=(1, 1, 1, 1), dtype="float16")
        >>> m = matrices(spec, {"pixels": 64, "channels": 64, "step": 32, "split": 1})
        >>> m.depth, m.step
        (72, 4)
    """
    return Matrices.of(_of_blocks(spec), _in_blocks(spec, knobs))


def _of_blocks(spec: ConvSpec) -> ConvSpec:
    """Return the convolution, of two axes at least, with blocks of input channels in place of channels."""
    spec = raised(spec)
    n, c, *extents = spec.data
    e = lanes(spec.dtype)
    if spec.transposed:
        return replace(spec, data=(n, -(-c // e), *extents), weight=(-(-c // e), *spec.weight[1:]))
    k, per_group, *taps = spec.weight
    return replace(spec, data=(n, -(-c // e), *extents), weight=(k, -(-per_group // e), *taps))


def _in_blocks(spec: ConvSpec, knobs: Knobs) -> Knobs:
    return {**knobs, "step": knobs["step"] // lanes(spec.dtype)}


def pack(weight: np.ndarray, spec: ConvSpec, knobs: Knobs) -> np.ndarray:
    """Return weights as [product][depth in blocks][channels][channel in the block], padded with zeros."""
    e, axis = lanes(spec.dtype), 0 if spec.transposed else 1
    whole = [(0, -extent % e if i == axis else 0) for i, extent in enumerate(weight.shape)]
    padded = raised_weight(np.pad(weight, whole))
    shape = padded.shape
    blocks = padded.reshape(*shape[:axis], shape[axis] // e, e, *shape[axis + 1 :])
    apart = [np.take(blocks, lane, axis=axis + 1) for lane in range(e)]
    packed = [implicit_gemm.pack(w, _of_blocks(spec), _in_blocks(spec, knobs)) for w in apart]
    return np.ascontiguousarray(np.stack(packed, axis=-1))


def packed_at(spec: ConvSpec, knobs: Knobs, read: Read) -> Callable[[Expr, Expr, Expr, Expr], Expr]:
    """Return the element (product, block of depth, channel, channel in the block) of what `pack` makes, of weights read at run time."""
    e, blocks = lanes(spec.dtype), _of_blocks(spec)
    axis = 0 if spec.transposed else 1
    extent, count = spec.weight[axis], blocks.weight[axis]

    def element(z: Expr, i: Expr, k: Expr, lane: Expr) -> Expr:
        def of_block(first: Expr, second: Expr, taps: Sequence[Expr]) -> Expr:
            channel = (second if axis else first) * e + lane
            element = read(first, channel, taps) if axis else read(channel, second, taps)
            return within([(channel, extent, count * e)], element, spec.dtype)

        return implicit_gemm.packed_at(blocks, _in_blocks(spec, knobs), of_block)(z, i, k)

    return element


@dataclass(frozen=True, slots=True)
class Products:
    """The products of a convolution on blocks of channels, and the order of its result.

    Attributes:
        spec: of two axes at least.
        m: the products' extents.
        data: in blocks of channels.
        sums: the products.
    """

    spec: ConvSpec
    m: Matrices
    data: te.Tensor
    sums: Sums

    @staticmethod
    def of(
        spec: ConvSpec,
        knobs: Knobs,
        multiply: Product,
        accumulator: str,
        data: te.Tensor | None = None,
        fill: int = 0,
    ) -> Products:
        """Return the products of a convolution.

        Args:
            spec: the convolution.
            knobs: the products' tile.
            multiply: makes them.
            accumulator: type of the sums.
            data: in blocks of channels, where it is computed.
            fill: what lies outside of the data.
        """
        # A kernel sees blocks of a line as an image of height 1, see `View.raised`.
        spec, e = raised(spec), lanes(spec.dtype)
        blocks, m = _of_blocks(spec), matrices(spec, knobs)
        name = f"data{CACHED if knobs.get('cached') else ''}"
        x = te.placeholder((*blocks.data, e), spec.dtype, name=name) if data is None else data

        def element(z: Expr, start: Expr, place: Expr, pixel: Expr, lane: Expr) -> Expr:
            step = _in_blocks(spec, knobs)
            return implicit_gemm.lookup(blocks, m, step, lambda *at: x(*at, lane), fill)(z, start, place, pixel)  # fmt: skip

        return Products(spec, m, x, multiply(m, element, spec.dtype, accumulator))

    def met(self, meet: Meeting) -> Products:
        """Return the products whose parts are added up in their own kernel."""
        return replace(self, sums=meet(self.m, self.sums), m=replace(self.m, split=1))

    @property
    def block(self) -> int:
        """Channels of a block."""
        return lanes(self.spec.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """The result's shape in memory."""
        n, k, *points = self.spec.output
        return (n, -(-k // self.block), *points, self.block)

    def gathered(self, values: te.Tensor) -> te.Tensor:
        """Return values that are ordered as sums in the result's order; block `flat` [product][pixel][channel] comes between."""
        m, sums, e = self.m, self.sums, self.block
        flat = te.compute(
            (m.products, m.padded_pixels, m.padded_channels),
            lambda z, p, k: values(*sums.index(z, k, p)),
            name="flat",
        )

        def logical(n: Expr, k: Expr, *at: Expr) -> tuple[Expr, Expr, tuple[Expr, ...]]:
            return n, k * e + at[-1], at[:-1]

        return gather(self.spec, m, self.shape, logical, lambda z, k, p: flat(z, p, k))

    def _place(self, *index: Expr) -> tuple[list[Expr], Expr, list[Expr]]:
        """Return conditions for being a result at all, its channel, and its index without the channel."""
        m = self.m
        z, _, pixel = self.sums.whose(*index)
        inside, channel = self.channel(*index)
        if m.padded_pixels != m.pixels:
            inside = [pixel < m.pixels, *inside]
        return inside, channel, point(self.spec, m, z, pixel)

    def channel(self, *index: Expr) -> tuple[list[Expr], Expr]:
        """Return conditions for the channel of a sum being in a block that there is, and the channel."""
        m, e, blocks = self.m, self.block, self.shape[1]
        z, k, _ = self.sums.whose(*index)
        inside = [k // e < blocks] if m.padded_channels > blocks * e else []
        return inside, z % m.groups * m.channels + k

    def owned(self, extra: te.Tensor, name: str) -> te.Tensor:
        """Return an operand of the epilogue in the order of the sums: block `own_<name>`; of two axes it is one of channels."""
        e, by_channel = self.block, len(extra.shape) == 2

        def read(*index: Expr) -> Expr:
            inside, k, (n, *p) = self._place(*index)
            value = extra[k // e, k % e] if by_channel else extra(n, k // e, *p, k % e)
            if not inside:
                return value
            return tirx.if_then_else(tirx.all(*inside), value, tirx.const(0, extra.dtype))

        return te.compute(self.sums.acc.shape, read, name=f"own_{name}")

    def own(self, value: Callable[..., Expr]) -> te.Tensor:
        """Return results in the order of the sums, whose owners compute them, zeros beyond the last channel: block `own`."""
        channels = self.spec.out_channels

        def kept(*index: Expr) -> Expr:
            y = value(*index)
            if channels % self.block == 0:
                return y
            _, k = self.channel(*index)
            return tirx.Select(k < channels, y, tirx.const(0, str(y.ty.dtype)))

        return te.compute(self.sums.acc.shape, kept, name="own")


def compute(
    problem: Problem,
    knobs: Knobs,
    multiply: Product,
    data: te.Tensor | None = None,
    meet: Meeting | None = None,
) -> list[te.Tensor]:
    """Return data, weight, extras..., result; `multiply`'s blocks, `flat`, and `own` or, of split sums, `total`.

    Args:
        problem: the convolution.
        knobs: the products' tile.
        multiply: makes them.
        data: in blocks of channels, where it is computed.
        meet: adds up the parts of split sums within the products' kernel; without it another one does.
    """
    products = Products.of(problem.spec, knobs, multiply, problem.accumulator, data)
    if meet is not None:
        products = products.met(meet)
    shape, sums = products.shape, products.sums
    extras = blocked_extras(problem, shape[1], products.block, shape)
    if products.m.split > 1:
        y = blocked_result(products.gathered(sums.acc), problem, extras)
    else:
        y = products.gathered(_finish(problem, products, extras))
    return [products.data, sums.weight, *extras, y]


def _finish(problem: Problem, products: Products, extras: Sequence[te.Tensor]) -> te.Tensor:
    """Return the epilogue in the order of the sums: block `own`, and `own_add` for a residual."""

    def bias(y: te.Tensor, b: te.Tensor) -> te.Tensor:
        return te.compute(y.shape, lambda *i: y(*i) + b(*i), name="bias_add")

    named = [step.name for step in problem.epilogue if step.takes_operand]
    given = (products.owned(x, name) for x, name in zip(extras, named, strict=True))
    own = [cast(x, problem.accumulator) for x in given]
    y = apply_steps(products.sums.acc, problem.epilogue, own, bias)
    return products.own(lambda *index: y(*index).astype(problem.spec.dtype))
