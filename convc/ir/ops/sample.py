"""Ops that read an image between its points: sample at a grid, in boxes, or at a filter's shifted taps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from convc.errors import DTypeError, ShapeError
from convc.ir.ops.definition import Array, Attributes, OpDef
from convc.ir.types import TensorType

__all__ = [
    "CUBIC",
    "ROWS",
    "DeformAttributes",
    "GridAttributes",
    "RoiAttributes",
    "grid_taps",
]

# The cubic convolution kernel's parameter that PyTorch and ONNX's GridSample use (Keys 1981, a = -3/4).
CUBIC: Final = -0.75


@dataclass(frozen=True, slots=True)
class GridAttributes(Attributes):
    """ONNX GridSample-22: mode nearest, linear or cubic; padding zeros, border or reflection."""

    mode: str = "linear"
    padding: str = "zeros"
    align_corners: bool = False


@dataclass(frozen=True, slots=True)
class RoiAttributes(Attributes):
    """ONNX RoiAlign-16; `half_pixel` moves boxes by half a point; a `sampling` of 0 takes ceil(box / output) samples."""

    output: tuple[int, ...]
    scale: float = 1.0
    sampling: int = 0
    mode: str = "avg"
    half_pixel: bool = True


@dataclass(frozen=True, slots=True)
class DeformAttributes(Attributes):
    """ONNX DeformConv-19 without its products: a filter's geometry, and how many groups of channels share offsets."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int = 1


# ---- grid -----------------------------------------------------------------------------------------------------------


def _infer_grid(types: Sequence[TensorType], a: GridAttributes) -> TensorType:
    data, grid = types
    n = data.rank - 2
    if n < 1 or grid.rank != n + 2 or grid.shape[0] != data.shape[0] or grid.shape[-1] != n:
        raise ShapeError(
            f"grid_sample grid must be (N, ..., {n}) for data (N, C, ...) of rank {data.rank}; got {grid} and {data}."
        )
    if not data.is_float or grid.dtype != data.dtype:
        raise DTypeError(f"grid_sample data and grid must have one float type; got {data}, {grid}.")
    if a.mode not in ("nearest", "linear", "cubic") or a.padding not in (
        "zeros",
        "border",
        "reflection",
    ):
        raise ShapeError(
            f"grid_sample must have a known mode and padding; got {a.mode}, {a.padding}."
        )
    return TensorType((*data.shape[:2], *grid.shape[1:-1]), data.dtype)


def grid_taps(position: Array, mode: str) -> list[tuple[Array, Array]]:
    """Return (place, weight) of the points that one coordinate is interpolated from."""
    if mode == "nearest":
        return [(np.rint(position), np.ones_like(position))]
    first = np.floor(position)
    f = position - first
    if mode == "linear":
        return [(first, 1 - f), (first + 1, f)]
    near = lambda d: ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1  # noqa: E731
    far = lambda d: ((CUBIC * d - 5 * CUBIC) * d + 8 * CUBIC) * d - 4 * CUBIC  # noqa: E731
    weights = (far(1 + f), near(f), near(1 - f), far(2 - f))
    return [(first + i - 1, w) for i, w in enumerate(weights)]


def _reflected(place: Array, extent: int, align_corners: bool) -> Array:
    """Return integer places mirrored at the first and last point, or half a point beyond them."""
    period = 2 * (extent - 1) if align_corners else 2 * extent
    if period == 0:
        return np.zeros_like(place)
    p = np.mod(place, period)
    return np.minimum(p, (period if align_corners else period - 1) - p)


@np.errstate(invalid="ignore")  # infinity has no share of a point and is reflected to no number
def _grid_sample(arrays: Sequence[Array], a: GridAttributes) -> Array:
    x, grid = arrays
    n = x.ndim - 2
    axes = []
    for axis in range(n):
        g, extent = grid[..., n - 1 - axis], x.shape[2 + axis]
        position = (g + 1) / 2 * (extent - 1) if a.align_corners else ((g + 1) * extent - 1) / 2
        taps = []
        for place, weight in grid_taps(position, a.mode):
            if a.padding == "reflection":
                place = _reflected(place, extent, a.align_corners)
            if a.padding == "zeros":
                weight = np.where((place >= 0) & (place < extent), weight, 0)
            # A place that is no number, as infinity reflected, is the first one, as in compiled code.
            inside = np.where(place >= 0, np.minimum(place, extent - 1), 0)
            taps.append((inside.astype(np.int64), weight))
        axes.append(taps)
    batch = np.arange(x.shape[0]).reshape(-1, *(1,) * n)
    y = np.zeros((*x.shape[:1], *grid.shape[1:-1], x.shape[1]), x.dtype)
    for choice in itertools.product(*axes):
        weight = np.prod([w for _, w in choice], 0)
        y += x[(batch, slice(None), *(p for p, _ in choice))] * weight[..., None]
    return np.moveaxis(y, -1, 1)


# ---- boxes ----------------------------------------------------------------------------------------------------------


def _infer_roi(types: Sequence[TensorType], a: RoiAttributes) -> TensorType:
    data, rois, batch = types
    if data.rank != 4 or rois.rank != 2 or rois.shape[1] != 4 or batch.shape != rois.shape[:1]:
        raise ShapeError(
            f"roi_align must have data (N, C, H, W), boxes (R, 4) and batch indices (R,); got {data}, {rois}, {batch}."
        )
    if not data.is_float or rois.dtype != data.dtype or batch.dtype not in ("int32", "int64"):
        raise DTypeError(
            f"roi_align data and boxes must have one float type; got {data}, {rois}, {batch}."
        )
    if len(a.output) != 2 or min(a.output) < 1 or a.sampling < 0 or a.mode not in ("avg", "max"):
        raise ShapeError(f"roi_align must have a positive output and mode avg or max; got {a}.")
    return TensorType((rois.shape[0], data.shape[1], *a.output), data.dtype)


def _roi_axis(
    low: float, high: float, count: int, extent: int, a: RoiAttributes
) -> list[list[tuple[int, int, float, float]]]:
    """Return, for each output on one axis, (left, right, weight left, weight right) of its samples."""
    offset = 0.5 if a.half_pixel else 0.0
    begin, end = low * a.scale - offset, high * a.scale - offset
    size = end - begin if a.half_pixel else max(end - begin, 1.0)
    step = size / count
    samples = a.sampling or max(0, int(np.ceil(size / count)))
    rows = []
    for p in range(count):
        row = []
        for s in range(samples):
            at = begin + p * step + (s + 0.5) * step / samples
            if at < -1 or at > extent:
                row.append((0, 0, 0.0, 0.0))
                continue
            at = max(at, 0.0)
            left = min(int(at), extent - 1)
            right = min(left + 1, extent - 1)
            f = at - left if left < extent - 1 else 0.0
            row.append((left, right, 1 - f, f))
        rows.append(row)
    return rows


def _roi_align(arrays: Sequence[Array], a: RoiAttributes) -> Array:
    x, rois, batch = arrays
    y = np.zeros((rois.shape[0], x.shape[1], *a.output), x.dtype)
    for r, (x1, y1, x2, y2) in enumerate(rois):
        image = x[int(np.clip(batch[r], 0, x.shape[0] - 1))]
        tall = _roi_axis(y1, y2, a.output[0], x.shape[2], a)
        wide = _roi_axis(x1, x2, a.output[1], x.shape[3], a)
        for p, q in np.ndindex(*a.output):
            parts = [
                (image[:, t, u] * (wt * wu), image[:, t, v] * (wt * wv), image[:, b, u] * (wb * wu), image[:, b, v] * (wb * wv))
                for t, b, wt, wb in tall[p]
                for u, v, wu, wv in wide[q]
            ]  # fmt: skip
            if not parts:
                continue
            if a.mode == "avg":
                y[r, :, p, q] = np.sum(parts, (0, 1)) / len(parts)
            else:  # ONNX takes the greatest of the four weighted corners, not of the interpolated values
                y[r, :, p, q] = np.max(parts, (0, 1))
    return y


# ---- shifted taps ---------------------------------------------------------------------------------------------------


def _infer_deform(types: Sequence[TensorType], a: DeformAttributes) -> TensorType:
    data, offset, *mask = types
    n = len(a.kernel)
    if n != 2 or data.rank != 4 or not len(a.strides) == len(a.dilations) == len(a.pads) // 2 == n:
        raise ShapeError(
            f"deform_columns must have data (N, C, H, W) and two-dimensional geometry; got {data}, {a}."
        )
    taps = a.kernel[0] * a.kernel[1]
    extents = [
        (e + a.pads[i] + a.pads[n + i] - a.dilations[i] * (a.kernel[i] - 1) - 1) // a.strides[i] + 1
        for i, e in enumerate(data.shape[2:])
    ]
    wanted = (data.shape[0], 2 * a.groups * taps, *extents)
    if a.groups < 1 or data.shape[1] % a.groups or offset.shape != wanted:
        raise ShapeError(
            f"deform_columns offsets must have shape {wanted} and groups divide the channels; got {offset}, {a.groups} for {data}."
        )
    if mask and mask[0].shape != (data.shape[0], a.groups * taps, *extents):
        raise ShapeError(
            f"deform_columns mask must have one value per offset pair; got {mask[0]} for {offset}."
        )
    if not data.is_float or any(t.dtype != data.dtype for t in types):
        raise DTypeError(
            f"deform_columns operands must have one float type; got {', '.join(map(str, types))}."
        )
    return TensorType((data.shape[0], data.shape[1] * taps, *extents), data.dtype)


def _deform(arrays: Sequence[Array], a: DeformAttributes) -> Array:
    x, offset, *mask = arrays
    n, c, h, w = x.shape
    r, s = a.kernel
    p, q = offset.shape[2:]
    offset = offset.reshape(n, a.groups, r, s, 2, p, q)
    rows, cols = np.arange(p) * a.strides[0] - a.pads[0], np.arange(q) * a.strides[1] - a.pads[1]
    y = np.zeros((n, c, r, s, p, q), x.dtype)
    image, per_group = np.arange(n), c // a.groups
    for g, i, j in np.ndindex(a.groups, r, s):
        top = rows[:, None] + i * a.dilations[0] + offset[:, g, i, j, 0]
        left = cols + j * a.dilations[1] + offset[:, g, i, j, 1]
        channels = slice(g * per_group, (g + 1) * per_group)
        for (v, wv), (u, wu) in itertools.product(
            grid_taps(top, "linear"), grid_taps(left, "linear")
        ):
            inside = (v >= 0) & (v < h) & (u >= 0) & (u < w)
            at = (np.clip(v, 0, h - 1).astype(int), np.clip(u, 0, w - 1).astype(int))
            part = x[image[:, None, None], channels, at[0], at[1]] * (wv * wu * inside)[..., None]
            y[:, channels, i, j] += np.moveaxis(part, -1, 1)
    if mask:
        m = mask[0].reshape(n, a.groups, 1, r, s, p, q)
        y = (y.reshape(n, a.groups, per_group, r, s, p, q) * m).reshape(y.shape)
    return y.reshape(n, c * r * s, p, q)


ROWS: Final = (
    OpDef("grid_sample", GridAttributes, (2, 2), _infer_grid, _grid_sample),
    OpDef("roi_align", RoiAttributes, (3, 3), _infer_roi, _roi_align),
    OpDef("deform_columns", DeformAttributes, (2, 3), _infer_deform, _deform),
)
