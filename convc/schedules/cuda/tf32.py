"""Convolution on tensor cores, float32 operands rounded to 11 bits, for those who ask for it by name: `tensor_core` but for that."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from convc.schedules.algorithm import Problem
from convc.schedules.cuda.tensor_core import TensorCore
from convc.schedules.plan import Knobs
from convc.schedules.properties import Properties
from convc.target import Target

__all__ = ["ALGORITHM", "ROUNDING", "Tf32"]

# Half of the last of TF32's 11 bits.
ROUNDING: Final = 2.0**-11


class Tf32(TensorCore):
    """See the module's text."""

    name = "tf32"
    types = ("float32",)
    by_record = False
    on_request = "operands are rounded to 11 bits: name tf32 in the policy or pin it"

    def products(self, dtype: str) -> int:
        """Return 1."""
        return 1

    def properties(self, problem: Problem, target: Target, knobs: Knobs) -> Properties:
        """Return `tensor_core`'s with the error of operands that are rounded to 11 bits: half a last place, normal data."""
        facts = super().properties(problem, target, knobs)
        return replace(facts, error=ROUNDING + facts.error)


ALGORITHM = Tf32()
