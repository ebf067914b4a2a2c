"""The oracle's oracle: convolution and pooling as nested loops over every index, in plain Python arithmetic.

Independent of `ir.reference`: no windows, no matrix products, no shared geometry; extents are the textbook's formulas.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np


def _points(extents: Sequence[int]):
    return itertools.product(*map(range, extents))


def naive_conv(x, w, strides, pads, dilations, group):
    """Seven loops for two spatial axes: n, k, p, q, c, r, s."""
    n_axes = x.ndim - 2
    batch, channels = x.shape[:2]
    filters, per_group = w.shape[:2]
    assert per_group * group == channels
    out = [
        (x.shape[2 + i] + pads[i] + pads[n_axes + i] - dilations[i] * (w.shape[2 + i] - 1) - 1)
        // strides[i]
        + 1
        for i in range(n_axes)
    ]
    y = np.zeros((batch, filters, *out))
    for n, k in _points((batch, filters)):
        first = (k // (filters // group)) * per_group
        for p in _points(out):
            total = 0.0
            for c in range(per_group):
                for r in _points(w.shape[2:]):
                    at = [p[i] * strides[i] + r[i] * dilations[i] - pads[i] for i in range(n_axes)]
                    if all(0 <= a < e for a, e in zip(at, x.shape[2:], strict=True)):
                        total += float(x[(n, first + c, *at)]) * float(w[(k, c, *r)])
            y[(n, k, *p)] = total
    return y


def naive_conv_transpose(x, w, strides, pads, dilations, group, output_padding):
    """Every input point adds its scaled filter to the output."""
    n_axes = x.ndim - 2
    batch, channels = x.shape[:2]
    per_group = w.shape[1]
    out = [
        strides[i] * (x.shape[2 + i] - 1)
        + output_padding[i]
        + dilations[i] * (w.shape[2 + i] - 1)
        + 1
        - pads[i]
        - pads[n_axes + i]
        for i in range(n_axes)
    ]
    y = np.zeros((batch, per_group * group, *out))
    for n, c in _points((batch, channels)):
        first = (c // (channels // group)) * per_group
        for h in _points(x.shape[2:]):
            for k in range(per_group):
                for r in _points(w.shape[2:]):
                    at = [h[i] * strides[i] + r[i] * dilations[i] - pads[i] for i in range(n_axes)]
                    if all(0 <= a < e for a, e in zip(at, out, strict=True)):
                        y[(n, first + k, *at)] += float(x[(n, c, *h)]) * float(w[(c, k, *r)])
    return y


def naive_pool(kind, x, kernel, strides, pads, dilations, *, ceil_mode, count_include_pad):
    """Each window by itself: a list of the data points under it and a count of the padding points."""
    n_axes = x.ndim - 2
    out = []
    for i in range(n_axes):
        padded = x.shape[2 + i] + pads[i] + pads[n_axes + i]
        covered = dilations[i] * (kernel[i] - 1) + 1
        starts = [s for s in range(0, padded, strides[i]) if s + covered <= padded]
        if ceil_mode:
            # One more window if points are left over, unless it would start beyond data and begin padding.
            following = len(starts) * strides[i]
            left_over = not starts or starts[-1] + covered < padded
            if left_over and following < x.shape[2 + i] + pads[i]:
                starts.append(following)
        out.append(len(starts))
    y = np.zeros((*x.shape[:2], *out))
    for n, c in _points(x.shape[:2]):
        for p in _points(out):
            values, padding = [], 0
            for r in _points(kernel):
                at = [p[i] * strides[i] + r[i] * dilations[i] - pads[i] for i in range(n_axes)]
                if all(0 <= a < e for a, e in zip(at, x.shape[2:], strict=True)):
                    values.append(float(x[(n, c, *at)]))
                elif all(
                    -pads[i] <= a < x.shape[2 + i] + pads[n_axes + i] for i, a in enumerate(at)
                ):
                    padding += 1
            if kind == "max":
                y[(n, c, *p)] = max(values)
            else:
                count = len(values) + (padding if count_include_pad else 0)
                y[(n, c, *p)] = sum(values) / count
    return y
