"""Transposed convolution on a device by phases: each residue of the result's position is a product of its own, no zero inserted."""

from __future__ import annotations

from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import Problem
from convc.schedules.cuda.direct import Direct
from convc.schedules.plan import Unsupported
from convc.target import Target

__all__ = ["ALGORITHM", "Subpixel"]


class Subpixel(Direct):
    """See the module's text."""

    name = "subpixel"
    transposed = True

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        return super().supports(problem, target) or self.refusal(problem.spec)

    @staticmethod
    def refusal(spec: ConvSpec) -> Unsupported | None:
        """Return why a transposed convolution has no phases of one form, or None."""
        if max(spec.dilations) > 1:
            return Unsupported(f"dilations must be all 1; got {spec.dilations}")
        if any(p % s for p, s in zip(spec.output[2:], spec.strides, strict=True)):
            return Unsupported(
                f"output {spec.output[2:]} must be a multiple of the strides {spec.strides}"
            )
        return None


ALGORITHM = Subpixel()
