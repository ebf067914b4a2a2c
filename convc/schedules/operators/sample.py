"""Reading an image between its points."""

from __future__ import annotations

import itertools
import math
from typing import Any, Final

from tvm import te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T  # noqa: N812  # TVM's own name for it

from convc.ir.graph import Node
from convc.schedules import grid_points
from convc.schedules.extreme import lowest
from convc.schedules.interpolation import clamped, grid_taps, taps
from convc.schedules.operators.operator import OpAlgorithm, Operator, Tensors, Types, is_image
from convc.schedules.plan import Knobs, Unsupported
from convc.target import Target

__all__ = ["ROWS"]

# Taps written out; more of them (an antialiased shrinking by 8: 34) run as a loop.
_WRITTEN_TAPS: Final = 8
_PARALLEL_ELEMENTS: Final = 16 << 10


def _resample(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    axis: int = node.attributes.axis  # type: ignore[attr-defined]
    x, places, weights = tensors
    count, last = types[1].shape[1], types[0].shape[axis] - 1
    # An axis of the plane is where it is in blocks, too.
    shape = (*x.shape[:axis], node.type.shape[axis], *x.shape[axis + 1 :])

    def tap(i: Any, t: Any) -> Any:
        place = tirx.max(tirx.min(places(i[axis], t), last), 0)
        return x(*i[:axis], place, *i[axis + 1 :]) * weights(i[axis], t)

    if count > _WRITTEN_TAPS:
        t = te.reduce_axis((0, count), "tap")
        return te.compute(shape, lambda *i: te.sum(tap(i, t), axis=t), name="resample")

    def value(*i: Any) -> Any:
        total = tap(i, 0)
        for t in range(1, count):
            total = total + tap(i, t)
        return total

    return te.compute(shape, value, name="resample")


def _resamples_in_plane(node: Node, types: Types, block: int) -> bool:
    return is_image(types) and node.attributes.axis >= 2  # type: ignore[attr-defined]


def _grid_sample(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    x, grid = tensors
    a: Any = node.attributes

    def value(batch: Any, channel: Any, *at: Any) -> Any:
        total: Any = None
        for choice in grid_taps(grid, (batch, *at), types[0].shape[2:], a):
            part = x(batch, channel, *(place for place, _ in choice))
            for _, weight in choice:
                part = part * weight
            total = part if total is None else total + part
        return total

    return te.compute(node.type.shape, value, name="grid_sample")


def _by_points(tensors: Tensors, node: Node, types: Types, block: int, target: Target) -> te.Tensor:
    x, grid = tensors
    a: Any = node.attributes
    return grid_points.compute(x, grid, node.type.shape, a)


def _points_knobs(node: Node, types: Types, target: Target) -> Knobs:
    return {"parallel": int(node.type.size >= _PARALLEL_ELEMENTS)}


def _no_points(node: Node, types: Types) -> Unsupported | None:
    a: Any = node.attributes
    return grid_points.refusal(types[0], node.type, a)


def _held(value: Any) -> Any:
    """Return a value that is computed once: TVM writes out what has a name wherever that stands, but not what lies in memory."""
    cell = T.buffer_proxy(T.alloc_buffer((1,), str(value.ty.dtype), scope="local"))
    cell[0] = value
    return cell[0]


def _roi_align(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    """Return RoiAlign as loops: how many samples a box takes is known only when it is there."""
    a: Any = node.attributes
    dtype, (batches, channels, *extents) = types[0].dtype, types[0].shape
    (rois, _, *output), plane = node.type.shape, math.prod(types[0].shape[2:])

    def c(value: float) -> Any:
        return tirx.const(value, dtype)

    def span(low: Any, high: Any, axis: int) -> tuple[Any, Any, Any]:
        """Return begin, step and samples of a box on one axis."""
        offset = 0.5 if a.half_pixel else 0.0
        begin, end = low * c(a.scale) - c(offset), high * c(a.scale) - c(offset)
        begin, end = _held(begin), _held(end)
        size = end - begin if a.half_pixel else tirx.max(end - begin, c(1))
        step = _held(size / c(output[axis]))
        samples = a.sampling or _held(tirx.max(tirx.ceil(step).astype("int32"), 0))
        return begin, step, samples

    def corners(begin: Any, step: Any, samples: Any, p: Any, s: Any, axis: int) -> tuple[Any, ...]:
        """Return (left, right, weight left, weight right) of one sample."""
        count = c(samples) if isinstance(samples, int) else samples.astype(dtype)
        at = _held(begin + p.astype(dtype) * step + (s.astype(dtype) + c(0.5)) * step / count)
        extent = extents[axis]
        inside = tirx.all(at >= c(-1), at <= c(extent))
        at = _held(tirx.max(at, c(0)))
        left = _held(clamped(tirx.floor(at), extent, dtype))
        right = _held(tirx.min(left + 1, extent - 1))
        f = _held(tirx.Select(left < extent - 1, at - left.astype(dtype), c(0)))
        shares = tirx.Select(inside, c(1) - f, c(0)), tirx.Select(inside, f, c(0))
        return left, right, _held(shares[0]), _held(shares[1])

    def loops(data: Any, boxes: Any, images: Any, result: Any) -> Any:
        with IRBuilder() as builder:
            with T.serial(
                0, 1
            ):  # several statements need one around them; T.seq_scope makes LLVM warn
                x, box, image, y = map(T.buffer_proxy, (data, boxes, images, result))
                total = T.buffer_proxy(T.alloc_buffer((1,), dtype, scope="local"))
                with T.serial(0, rois) as r:
                    which = tirx.max(tirx.min(image[r].astype("int64"), batches - 1), 0)
                    tall = span(box[r * 4 + 1], box[r * 4 + 3], 0)
                    wide = span(box[r * 4], box[r * 4 + 2], 1)
                    with T.grid(channels, *output) as (ch, p, q):
                        base = _held((which * channels + ch) * plane)
                        total[0] = c(0) if a.mode == "avg" else lowest(dtype)
                        with T.serial(0, tall[2]) as i, T.serial(0, wide[2]) as j:
                            top, bottom, wt, wb = corners(*tall, p, i, 0)
                            left, right, wl, wr = corners(*wide, q, j, 1)
                            row, under = base + top * extents[1], base + bottom * extents[1]
                            parts = (
                                x[row + left] * (wt * wl),
                                x[row + right] * (wt * wr),
                                x[under + left] * (wb * wl),
                                x[under + right] * (wb * wr),
                            )
                            if a.mode == "avg":
                                total[0] = total[0] + (parts[0] + parts[1] + parts[2] + parts[3])
                            else:
                                greatest = tirx.max(
                                    tirx.max(parts[0], parts[1]), tirx.max(parts[2], parts[3])
                                )
                                total[0] = tirx.max(total[0], greatest)
                        count = tall[2] * wide[2]
                        found = total[0]
                        if a.mode == "avg":
                            many = c(count) if isinstance(count, int) else count.astype(dtype)
                            found = found / tirx.max(many, c(1))
                        empty = tirx.const(0, "bool") if isinstance(count, int) else count == 0
                        y[((r * channels + ch) * output[0] + p) * output[1] + q] = tirx.Select(
                            empty, c(0), found
                        )
            return builder.get()

    buffer = tirx.decl_buffer(node.type.shape, dtype, "pooled")
    return te.extern(
        [node.type.shape],
        list(tensors),
        lambda ins, outs: loops(ins[0], ins[1], ins[2], outs[0]),
        dtype=dtype,
        out_buffers=[buffer],
        name="roi_align",
    )


def _deform_columns(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    a: Any = node.attributes
    x, offset, *mask = tensors
    dtype, (_, channels, h, w), (r, s) = types[0].dtype, types[0].shape, a.kernel
    per_group = channels // a.groups

    def c(value: float) -> Any:
        return tirx.const(value, dtype)

    def value(n: Any, row: Any, p: Any, q: Any) -> Any:
        channel, tap = row // (r * s), row % (r * s)
        first = (channel // per_group) * (r * s) + tap
        begin = (
            p * a.strides[0] - a.pads[0] + (tap // s) * a.dilations[0],
            q * a.strides[1] - a.pads[1] + (tap % s) * a.dilations[1],
        )
        axes = []
        for axis, extent in enumerate((h, w)):
            position = begin[axis].astype(dtype) + offset(n, first * 2 + axis, p, q)
            axes.append(
                [
                    (
                        clamped(place, extent, dtype),
                        tirx.Select(tirx.all(place >= c(0), place < c(extent)), weight, c(0)),
                    )
                    for place, weight in taps(position, "linear", dtype)
                ]
            )
        total: Any = c(0)
        for (top, wv), (left, wu) in itertools.product(*axes):
            total = total + x(n, channel, top, left) * (wv * wu)
        return total * mask[0](n, first, p, q) if mask else total

    return te.compute(node.type.shape, value, name="deform_columns")


_POINTS: Final = OpAlgorithm("points", "grid_points", _by_points, _points_knobs, _no_points)

ROWS: Final[dict[str, Operator]] = {
    "resample": Operator(_resample, _resamples_in_plane, tables=1),
    "grid_sample": Operator(_grid_sample, algorithms=(_POINTS,)),
    "roi_align": Operator(_roi_align),
    "deform_columns": Operator(_deform_columns),
}
