"""Merge zero padding into the convolution or pooling that reads it."""

from __future__ import annotations

from dataclasses import replace

from convc.ir.graph import Graph, Node
from convc.ir.ops import Attributes
from convc.ir.ops.conv import ConvAttributes
from convc.ir.ops.pool import AveragePoolAttributes
from convc.ir.ops.shape import PadAttributes
from convc.ir.passes.rewrite import Rewriter
from convc.ir.spec import pooled_extent
from convc.ir.types import Shape

__all__ = ["merge_pads"]


def _spatial(pad: Node) -> Shape | None:
    """Return the pads of the spatial axes, if these are padded alone and with zeros."""
    a = pad.attributes
    if not isinstance(a, PadAttributes) or a.value != 0 or pad.type.rank < 3:
        return None
    n = pad.type.rank
    begins, ends = a.pads[:n], a.pads[n:]
    return None if any(begins[:2] + ends[:2]) else begins[2:] + ends[2:]


def _average_pool(
    a: AveragePoolAttributes, pads: Shape, node: Node, extents: Shape
) -> Attributes | None:
    n = len(a.kernel)
    strides, own = a.strides or (1,) * n, a.pads or (0,) * (2 * n)
    dilations = a.dilations or (1,) * n
    # The padding counts as data for the pool, so the pool's own padding must count, too, or there must be none.
    if any(own) and not a.count_include_pad:
        return None
    total = tuple(p + q for p, q in zip(own, pads, strict=True))
    for axis in range(n):
        both = (total[axis], total[n + axis])
        if max(both) > dilations[axis] * (a.kernel[axis] - 1):
            return None  # a window must not lie in the padding alone
        count = pooled_extent(
            extents[axis],
            a.kernel[axis],
            strides[axis],
            both,
            dilations[axis],
            ceil_mode=a.ceil_mode,
        )
        if count != node.type.shape[2 + axis]:
            return None  # ceil_mode lets the last window start in the pad op's end, but not in the pool's
    return replace(a, pads=total, count_include_pad=True)


def _merged(node: Node, pads: Shape, extents: Shape) -> Attributes | None:
    match node.attributes:
        case ConvAttributes() as a:
            own = a.pads or (0,) * len(pads)
            return replace(a, pads=tuple(p + q for p, q in zip(own, pads, strict=True)))
        case AveragePoolAttributes() as a:
            return _average_pool(a, pads, node, extents)
    return None


def merge_pads(graph: Graph) -> Graph:
    """Return the graph with zero padding of spatial axes done by the conv or average_pool that reads it.

    An average pool then counts its padding: the zeros were data to it. The pad stays for its other users.

    Rewrite:
        %p = pad(%x) {pads = [0, 0, 1, 1, 0, 0, 1, 1]};  %y = conv(%p, %w)
        -->
        %y = conv(%x, %w) {pads = [1, 1, 1, 1]}
    Unless:
        the padding is not zero, or touches batch or channels; for a pool: it has padding of its own that it does not count, or
        the padding is as wide as the window, or ceil_mode would give another extent.
    """
    r = Rewriter(graph)
    for node in graph.nodes:
        kept = r.keep(node)
        while kept.op in ("conv", "average_pool"):
            pad, *others = (r.written[i] for i in kept.inputs)
            pads = _spatial(pad) if pad.op == "pad" else None
            if pads is None:
                break
            data = r.written[pad.inputs[0]]
            attributes = _merged(kept, pads, data.type.shape[2:])
            if attributes is None:
                break
            kept = r.add(node.name, node.op, [data, *others], attributes)
    return r.finish()
