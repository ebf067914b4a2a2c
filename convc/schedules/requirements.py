"""What several algorithms require of a convolution, said once and in one order."""

from __future__ import annotations

from convc.schedules.algorithm import Problem
from convc.schedules.plan import Unsupported

__all__ = ["float32_throughout", "packed_images"]


def float32_throughout(problem: Problem) -> Unsupported | None:
    """Return why operands and sums are not all float32, halves that are read as such included, or None."""
    if problem.widened.spec.dtype != "float32":
        return Unsupported(
            f"element type must be float32, or a half stored; got {problem.spec.dtype}"
        )
    if problem.accumulator != "float32":
        return Unsupported(f"accumulate must be float32; got {problem.accumulator}")
    return None


def packed_images(
    problem: Problem,
    *,
    transposed: bool = False,
    unit_strides: bool = False,
    unit_dilations: bool = False,
    one_group: bool = False,
    most_axes: int = 2,
) -> Unsupported | None:
    """Return why a problem is not a float32 convolution with these properties, or None.

    Every algorithm of 2-D convolution takes 1-D ones, see `rank.raised`; `most_axes` is the most spatial axes it takes.

    Example:
        >>> from convc.ir.spec import ConvSpec
        >>> packed_images(Problem(ConvSpec.of((1, 4, 9, 9, 9), (4, 4, 3, 3, 3))))
        Unsupported(reason='data must have at most 2 spatial dimensions; got 3')
    """
    spec = problem.spec
    if spec.transposed != transposed:
        return Unsupported(f"convolution must {'' if transposed else 'not '}be transposed")
    if spec.rank > most_axes:
        return Unsupported(
            f"data must have at most {most_axes} spatial dimensions; got {spec.rank}"
        )
    if unit_strides and max(spec.strides) > 1:
        return Unsupported(f"strides must be 1; got {spec.strides}")
    if unit_dilations and max(spec.dilations) > 1:
        return Unsupported(f"dilations must be 1; got {spec.dilations}")
    if one_group and spec.group > 1:
        return Unsupported(f"group must be 1; got {spec.group}")
    return float32_throughout(problem)
