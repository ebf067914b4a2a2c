"""Convolution on tensor cores, float32 operands rounded to 11 bits, for those who ask for it by name: `tensor_core` but for that."""

from __future__ import annotations

from convc.schedules.cuda.tensor_core import TensorCore

__all__ = ["ALGORITHM", "Tf32"]


class Tf32(TensorCore):
    """See the module's text."""

    name = "tf32"
    types = ("float32",)
    by_record = False
    on_request = "operands are rounded to 11 bits: name tf32 in the policy or pin it"

    def products(self, dtype: str) -> int:
        """Return 1."""
        return 1


ALGORITHM = Tf32()
