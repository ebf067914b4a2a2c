"""Pooled: a convolution and the pool behind it as one kernel, in strips of rows, so that the convolution's result is never in memory.

THE ALGORITHM   y = epilogue(w * x)                   of one group of output channels and the rows that a strip of the pool reads
                z = pool(y)                           greatest, or mean, over windows of those rows
                y is computed by the algorithm that the convolution has been given, its tensor expressions and its register tile.
                Rows that the pool pads are rows of a convolution with more padding, and overwritten with what never wins (max) or
                adds nothing (mean): no strip is shorter than another.
WHEN            2-D images, float32 (halves stored); `direct` and `winograd` without dilations, whose strips are whole rows of tiles,
                so that its windows must not overlap, or there is one strip; nobody else reads y
COST            the convolution's, and rows of y that two strips read once more. A rolling buffer would keep them, but strips are of one
                group of channels and so are high: ResNet's first layer, 64 channels of 112 x 112 in groups of 32, has 4 of 29 rows, of
                which 3 in 113 are computed twice: 38 us, of the 170 to 250 that the pool takes by itself.
ACCURACY        the convolution's; a greatest element is exact, a mean a chain of at most 1023 additions
SOURCE          Alwani et al., MICRO'16 (fused layers)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from tvm import te, tirx

from convc.ir.graph import Graph, Node
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.pool import AveragePoolAttributes, MaxPoolAttributes, infer_pool
from convc.ir.types import Shape, TensorType
from convc.schedules.algorithm import SEPARATOR, Algorithm, Operands, Problem
from convc.schedules.extreme import greatest, lowest
from convc.schedules.layout import Halo
from convc.schedules.operators.window import mean_of, window
from convc.schedules.plan import Knobs
from convc.target import Target

__all__ = ["NAME", "Pooled", "Window", "compute", "computed_rows", "operands", "padded", "residual_border", "strips", "taps", "window_of"]  # fmt: skip

NAME: Final = "pooled"

Window: TypeAlias = MaxPoolAttributes | AveragePoolAttributes


@dataclass(frozen=True, slots=True)
class Pooled:
    """A convolution and the pool behind it.

    Attributes:
        layer: the convolution, with its epilogue.
        window: the pool, its strides, pads and dilations written out.

    Example:
        >>> from convc.ir.spec import ConvSpec
        >>> layer = Problem(ConvSpec.of((1, 3, 224, 224), (64, 3, 7, 7), strides=(2, 2), pads=(3,) * 4))
        >>> pool = Pooled(layer, MaxPoolAttributes((3, 3), (2, 2), (1,) * 4, (1, 1)))
        >>> pool.result, pool.reach, pool.key.split(SEPARATOR)[1]
        ((1, 64, 56, 56), 3, 'max_pool-k3x3-st2x2-pd1.1.1.1-dl1x1')
    """

    layer: Problem
    window: Window

    @property
    def key(self) -> str:
        """Canonical name: the convolution's and the pool's, joined; of the type that operands have in memory."""
        a = self.window
        greatest = isinstance(a, MaxPoolAttributes)
        text = "x".join(map(str, a.kernel)), "x".join(map(str, a.strides)), ".".join(map(str, a.pads)), "x".join(map(str, a.dilations))  # fmt: skip
        marks = "-ceil" * a.ceil_mode + "-counted" * (not greatest and a.count_include_pad)  # type: ignore[union-attr]
        kind = "max_pool" if greatest else "average_pool"
        stored = replace(self.layer, spec=self.layer.stored_spec)
        return (
            f"{stored.key}{SEPARATOR}{kind}-k{text[0]}-st{text[1]}-pd{text[2]}-dl{text[3]}{marks}"
        )

    @property
    def result(self) -> Shape:
        """Shape of the pool's result."""
        return infer_pool([TensorType(self.layer.spec.output)], self.window).shape

    @property
    def reach(self) -> int:
        """Rows of the convolution that a row of the pool reads, and those between them."""
        return (self.window.kernel[0] - 1) * self.window.dilations[0] + 1

    @property
    def overlaps(self) -> bool:
        """Whether rows of the pool share rows of the convolution."""
        return self.reach > self.window.strides[0]

    @property
    def residual(self) -> bool:
        """Whether the convolution adds a value of its result's shape."""
        return any(s.takes_operand and s.name != "bias" for s in self.layer.epilogue)

    def rows(self, strip: int) -> int:
        """Return the rows of the convolution that a strip of so many rows of the pool reads."""
        return (strip - 1) * self.window.strides[0] + self.reach


def window_of(graph: Graph, node: Node) -> Window | None:
    """Return the pool that a node is, everything written out; a mean or greatest element of whole planes, too.

    Example:
        >>> from convc.ir.text import parse
        >>> g = parse("graph @g { %x = input : f32[1,2,4,6]  %y = reduce_mean(%x) {axes = [2, 3]}  return %y }")
        >>> window_of(g, g["y"]).kernel
        (4, 6)
    """
    if not node.inputs:
        return None
    a, data = node.attributes, graph[node.inputs[0]].type
    n = data.rank - 2
    if isinstance(a, ReduceAttributes) and node.op in ("reduce_mean", "reduce_max"):
        if n < 1 or sorted(a.axes) != list(range(2, data.rank)) or not a.keepdims:
            return None
        kind = AveragePoolAttributes if node.op == "reduce_mean" else MaxPoolAttributes
        return kind(data.shape[2:], (1,) * n, (0,) * (2 * n), (1,) * n)
    if not isinstance(a, MaxPoolAttributes | AveragePoolAttributes):
        return None
    return replace(
        a,
        strides=a.strides or (1,) * n,
        pads=a.pads or (0,) * (2 * n),
        dilations=a.dilations or (1,) * n,
    )


def computed_rows(pooled: Pooled, knobs: Knobs) -> int:
    """Return the rows of the convolution that a strip computes: all that the pool reads, of several in whole register tiles."""
    rows = pooled.rows(knobs["strip"] or pooled.result[2])
    tile = 1 if "m" in knobs or strips(pooled, knobs) == 1 else knobs["rows"]
    return -(-rows // tile) * tile


def strips(pooled: Pooled, knobs: Knobs) -> int:
    """Return how many strips there are; the last one may be higher than what is left."""
    return -(-pooled.result[2] // knobs["strip"]) if knobs["strip"] else 1


def padded(pooled: Pooled, knobs: Knobs) -> Problem:
    """Return the convolution with the rows that all strips read: the pool's padding, and what fills the last strip.

    Args:
        pooled: the two.
        knobs: `strip`, rows of the pool that are computed together; 0: all, behind the whole convolution, which is as it is.
    """
    if not knobs["strip"]:
        return pooled.layer
    spec, a = pooled.layer.spec, pooled.window
    top, count, step = a.pads[0], strips(pooled, knobs), knobs["strip"] * a.strides[0]
    computed = computed_rows(pooled, knobs)
    # Strips of winograd are tiles of it one behind the other, also where the pool leaves rows out.
    rows = (count - 1) * step + (computed if count == 1 else max(computed, step))
    if pooled.residual:
        # A residual is read where it lies, and has all its rows.
        rows = max(rows, top + spec.output[2])
    before = spec.pads[0] + top * spec.strides[0]
    reads = (rows - 1) * spec.strides[0] + spec.effective_kernel[0]
    after = max(0, reads - spec.data[2] - before)
    pads = (before, spec.pads[1], after, spec.pads[3])
    return replace(pooled.layer, spec=replace(spec, pads=pads))


def operands(pooled: Pooled, algorithm: Algorithm, target: Target, knobs: Knobs) -> Operands:
    """Return the layouts of data and result, and the border that the kernel reads around the data."""
    return algorithm.operands(padded(pooled, knobs), target, knobs)


def residual_border(pooled: Pooled, knobs: Knobs) -> Halo:
    """Return the rows around a residual that the kernel reads and does not need."""
    if not knobs["strip"]:
        return Halo()
    top, rows = pooled.window.pads[0], padded(pooled, knobs).spec.output[2]
    return Halo.of((top, 0), (rows - top - pooled.layer.spec.output[2], 0))


def compute(pooled: Pooled, algorithm: Algorithm, target: Target, knobs: Knobs) -> list[te.Tensor]:
    """Return data, weight, extras..., the pool's result; the convolution's blocks, `Y`, `window` and the last one.

    Y is the convolution's result, of strips with the rows that the pool pads.
    """
    problem = padded(pooled, knobs)
    *arguments, y = algorithm.compute(problem, target, knobs)
    a, spec, dtype = pooled.window, pooled.layer.spec, str(y.dtype)
    largest = isinstance(a, MaxPoolAttributes)
    outside = lowest(dtype) if largest else tirx.const(0, dtype)
    top, rows = a.pads[0], spec.output[2]

    def row(n, k, h, *at):
        if not knobs["strip"] or (not top and problem.spec.output[2] <= rows):
            return y(n, k, h, *at)
        inside = tirx.all(h >= top, h < top + rows)
        return tirx.Select(inside, y(n, k, h, *at), outside)

    Y = te.compute(y.shape, row, name="Y")
    result = TensorType(pooled.result, dtype)
    beside = replace(a, pads=(0, a.pads[1], 0, a.pads[3])) if knobs["strip"] else a
    if largest:
        total = window(Y, beside, result, outside, greatest)
        return [*arguments, te.compute(total.shape, lambda *i: total(*i), name="pool")]
    total = window(Y, beside, result, outside, te.sum)
    return [*arguments, mean_of(total, a, spec.output[2:], result)]


def taps(pooled: Pooled) -> int:
    """Return the elements under a window."""
    return math.prod(pooled.window.kernel)
