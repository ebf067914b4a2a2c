"""Rank lifting: a 1-D convolution is a 2-D one of height 1 on the same bytes, so that every 2-D algorithm takes it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from convc.ir.spec import ConvSpec

__all__ = ["raised", "raised_weight"]


def raised(spec: ConvSpec) -> ConvSpec:
    """Return the convolution with at least two spatial axes: 1-D data (N, C, W) as (N, C, 1, W).

    Kernels see the operands accordingly, see `View.raised`.

    Example:
        >>> raised(ConvSpec.of((1, 8, 40), (16, 8, 3), strides=(2,), pads=(1, 1))).key
        'conv2d-f32-n1c8h1w40-k16r1s3-st1x2-pd0.1.0.1-dl1x1-g1'
    """
    if spec.rank > 1:
        return spec
    before, after = spec.pads
    return replace(
        spec,
        data=_raised(spec.data),
        weight=_raised(spec.weight),
        strides=(1, *spec.strides),
        pads=(0, before, 0, after),
        dilations=(1, *spec.dilations),
        output_padding=(0, *spec.output_padding) if spec.transposed else (),
    )


def raised_weight(weight: np.ndarray) -> np.ndarray:
    """Return a filter (K, C, S) as (K, C, 1, S); others as they are."""
    return weight.reshape(_raised(weight.shape)) if weight.ndim == 3 else weight


def _raised(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:2], 1, *shape[2:])
