"""Filters of `fft` at compile time: cut into parts and transformed, in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from convc.ir.spec import ConvSpec
from convc.schedules.overlap_save import Tiling

__all__ = ["filter_parts", "is_depthwise", "spectrum"]


def is_depthwise(spec: ConvSpec) -> bool:
    """Whether every channel has one filter of its own."""
    return 1 < spec.group == spec.in_channels == spec.out_channels


def spectrum(weight: np.ndarray, tiling: Tiling) -> tuple[np.ndarray, np.ndarray]:
    """Return (re, im) of U = conj(F w) / (t_h t_w / 2), filters (..., R, S) to bins (..., t_w/2, t_h), in float64."""
    t_h, t_w = tiling.high.t, tiling.wide.t
    half_bin = np.exp(-1j * math.pi / t_w * np.arange(weight.shape[-1]))
    rows = np.fft.fft(weight.astype(np.float64) * half_bin, t_w)[..., ::2]
    bins = np.fft.fft(rows, t_h, axis=-2).swapaxes(-1, -2)
    scale = t_h * tiling.bins
    return np.real(bins) / scale, -np.imag(bins) / scale


def filter_parts(weight: np.ndarray, tiling: Tiling) -> Iterator[np.ndarray]:
    """Yield the parts of filters (..., R, S), the last ones of a row or column shorter."""
    high, wide = tiling.high, tiling.wide
    for g, h in np.ndindex(high.parts, wide.parts):
        rows, cols = g * high.taps, h * wide.taps
        yield weight[..., rows : rows + high.taps, cols : cols + wide.taps]
