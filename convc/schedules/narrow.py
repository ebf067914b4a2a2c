"""What was computed in a wide type, rounded to the one it is stored in."""

from __future__ import annotations

from tvm import te

__all__ = ["narrowed"]


def narrowed(y: te.Tensor, dtype: str, name: str = "narrow") -> te.Tensor:
    """Return a tensor in another element type, as a block called `name`; itself if it has that type."""
    return y if y.dtype == dtype else te.compute(y.shape, lambda *i: y(*i).astype(dtype), name)
