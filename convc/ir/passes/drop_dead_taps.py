"""Drop the taps of a filter that read nothing but padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops.conv import ConvAttributes, conv_spec
from convc.ir.ops.quantized import QuantizedConvAttributes, quantized_spec
from convc.ir.passes.rewrite import Rewriter

__all__ = ["drop_dead_taps"]


@dataclass(frozen=True, slots=True)
class _Axis:
    """The taps that are left along one axis, and the geometry with which they read the same points."""

    taps: slice
    dilation: int
    before: int
    after: int


def _live(
    extent: int, result: int, taps: int, stride: int, dilation: int, pads: Sequence[int]
) -> _Axis | None:
    """Return the taps from the first to the last that reads data; None if nothing does, or it would take a negative pad.

    Padding shrinks by what the filter shrinks, so that the extent of the result follows from that of the data as before; a tap that is
    dead for one extent is dead for all smaller ones.

    Example:
        >>> _live(14, 14, 3, 1, 24, (24, 24))
        _Axis(taps=slice(1, 2, None), dilation=1, before=0, after=0)
        >>> _live(14, 14, 3, 1, 12, (12, 12))
        _Axis(taps=slice(0, 3, None), dilation=12, before=12, after=12)
    """
    last = (result - 1) * stride
    firsts = [tap * dilation - pads[0] for tap in range(taps)]
    reads = [any(0 <= p < extent for p in range(f, f + last + 1, stride)) for f in firsts]
    if not any(reads):
        return None
    begin, end = reads.index(True), taps - reads[::-1].index(True)
    before, after = pads[0] - begin * dilation, pads[1] - (taps - end) * dilation
    if min(before, after) < 0:
        return None
    return _Axis(slice(begin, end), dilation if end - begin > 1 else 1, before, after)


def _write_fewer(
    r: Rewriter, node: Node, a: ConvAttributes | QuantizedConvAttributes
) -> Node | None:
    """Write the layer without its dead taps and return it; None if it has none, or its weights are not constant."""
    data, weight, *others = r.operands(node)
    if weight.op != CONSTANT:
        return None
    if isinstance(a, QuantizedConvAttributes):
        spec = quantized_spec(data.type, weight.type, a)
    else:
        spec = conv_spec(data.type, weight.type, a)
    if spec.transposed:
        return None
    n = spec.rank
    axes = [
        _live(
            spec.data[2 + i],
            spec.output[2 + i],
            spec.kernel[i],
            spec.strides[i],
            spec.dilations[i],
            (spec.pads[i], spec.pads[n + i]),
        )
        for i in range(n)
    ]
    kept = [axis for axis in axes if axis is not None]
    if len(kept) < n or all(
        axis.taps.stop - axis.taps.start == taps
        for axis, taps in zip(kept, spec.kernel, strict=True)
    ):
        return None
    fewer = np.ascontiguousarray(weight.value[(..., *(axis.taps for axis in kept))])
    if isinstance(a, QuantizedConvAttributes):
        bias = others[0]
        if bias.op != CONSTANT:
            return None
        # What the taps read is the zero point.
        dead = _sums(weight.value) - _sums(fewer)
        whole = (bias.value.astype(np.int64) + a.pad * dead).astype(np.int32)
        others[0] = r.constant(f"{bias.name}_live", whole)
    pads = (*(axis.before for axis in kept), *(axis.after for axis in kept))
    dilations = tuple(axis.dilation for axis in kept)
    attributes = replace(
        a,
        pads=pads if any(pads) else (),
        dilations=dilations if set(dilations) != {1} else (),
    )
    return r.add(
        node.name, node.op, [data, r.constant(f"{weight.name}_live", fewer), *others], attributes
    )


def _sums(weight: np.ndarray) -> np.ndarray:
    return weight.reshape(len(weight), -1).sum(1, dtype=np.int64)


def drop_dead_taps(graph: Graph) -> Graph:
    """Return the graph with filters cut to the taps that read data at all.

    A tap whose every read lies in the padding adds zeros. Segmentation heads have such: of 3 x 3 taps 24 apart on 14 x 14 points only
    the middle one reads data, and the layer is a 1 x 1 convolution without padding. Exact for finite weights. In a layer of bytes
    such a tap adds its weight times the zero point, which goes to the bias.

    Rewrite:
        %w = constant dense([1.0, 2.0, 3.0]) : f32[1,1,3,1];  %y = conv(%x, %w) {dilations = [24, 1], pads = [24, 0, 24, 0]}
        -->
        %w_live = constant dense([2.0]) : f32[1,1,1,1];  %y = conv(%x, %w_live)
    Unless:
        the weights are not constant, or padding would become negative.
    """
    r = Rewriter(graph)
    for node in graph.nodes:
        a = node.attributes
        layer = isinstance(a, ConvAttributes | QuantizedConvAttributes)
        if not layer or _write_fewer(r, node, a) is None:
            r.keep(node)
    return r.finish()
