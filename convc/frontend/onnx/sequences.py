"""Sequences of tensors: lists during an import, and nothing in the graph.

Exporters write them for Python's own lists of tensors: what a loop appends, `torch.split`, `torch.unbind`. How many there are,
and which one is taken, is known at import.
"""

from __future__ import annotations

from dataclasses import dataclass

from convc.ir.ops.definition import Array

__all__ = ["SequenceValue"]


@dataclass(frozen=True, slots=True)
class SequenceValue:
    """Tensors in order: arrays that are known at import, and values of the graph."""

    elements: tuple[str | Array, ...]
