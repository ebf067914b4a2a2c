"""A transposed convolution of stride 1 is a convolution with its filter flipped: whichever algorithm takes that one, takes both.

Rewrite:
    conv_transpose(x, w) {strides 1, pads p}
    -->
    conv(x, w') {pads dilation (R - 1) - p},   w'[k, c, r] = w[c, k, R - 1 - r]
Unless:
    a pad is wider than the dilated filter less one: the convolution would have to cut its data.

So the gradient of a stride-1 convolution's data is computed by Winograd, FFT or direct like any other layer.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from convc.ir.spec import ConvSpec
from convc.schedules import packing
from convc.schedules.algorithm import Algorithm, Problem
from convc.schedules.backend import backend_of
from convc.schedules.plan import Unsupported
from convc.target import Target

__all__ = ["dual", "dual_weight", "posed", "solved"]


def dual(problem: Problem) -> Problem | None:
    """Return the convolution that a transposed one equals, or None.

    Example:
        >>> spec = ConvSpec.of((1, 8, 5, 5), (8, 4, 3, 3), pads=(1, 1, 0, 2), transposed=True)
        >>> dual(Problem(spec)).spec.key, dual(Problem(spec)).spec.output == spec.output
        ('conv2d-f32-n1c8h5w5-k4r3s3-st1x1-pd1.1.2.0-dl1x1-g1', True)
    """
    spec, n = problem.spec, problem.spec.rank
    if not spec.transposed or max(spec.strides) > 1:
        return None
    reach = [e - 1 for e in spec.effective_kernel]
    begins = [r - p for r, p in zip(reach, spec.pads[:n], strict=True)]
    ends = [
        r - p + extra for r, p, extra in zip(reach, spec.pads[n:], spec.output_padding, strict=True)
    ]
    if min((*begins, *ends)) < 0:
        return None
    forward = ConvSpec.of(
        spec.data,
        (spec.out_channels, spec.in_channels // spec.group, *spec.kernel),
        pads=(*begins, *ends),
        dilations=spec.dilations,
        group=spec.group,
        dtype=spec.dtype,
    )
    return replace(problem, spec=forward, dual=True)


def dual_weight(weight: np.ndarray, group: int) -> np.ndarray:
    """Return a transposed convolution's weight (C, K/group, *kernel) as its dual's, (K, C/group, *kernel), flipped."""
    c, k, *taps = weight.shape
    swapped = weight.reshape(group, c // group, k, *taps).swapaxes(1, 2)
    flipped = np.flip(swapped, tuple(range(3, 3 + len(taps))))
    return np.ascontiguousarray(flipped.reshape(group * k, c // group, *taps))


def posed(problem: Problem, algorithm: Algorithm, target: Target) -> Problem | Unsupported:
    """Return the problem that the algorithm solves for this one, itself or its dual, or why there is none."""
    refusal, found = algorithm.supports(problem, target), problem
    other = dual(problem)
    if refusal is not None and other is not None:
        refusal, found = algorithm.supports(other, target), other
    if refusal is None and not problem.constant_weight:
        refusal = packing.refusal(algorithm.name, found, target)
    if refusal is not None:
        return refusal
    return backend_of(target).computed(found)


def solved(problem: Problem, algorithm: Algorithm, target: Target) -> Problem:
    """Return the problem that an algorithm which takes this one solves for it: itself or its dual."""
    answer = posed(problem, algorithm, target)
    return problem if isinstance(answer, Unsupported) else answer
