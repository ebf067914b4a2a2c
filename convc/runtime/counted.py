"""Outputs of which the data says how large they are: a kernel fills room for the most there can be, and an output of its own says how much.

    boxes: float32 (300, 4), of axis 0 as much as 'boxes.count' says;  boxes.count: int64 ()

`Module` returns what is there, under the model's own names; in C both are outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from numpy.typing import NDArray

if TYPE_CHECKING:
    from convc.runtime.manifest import Tensor

__all__ = ["Counts"]


class Counts:
    """Which outputs count others, and how the others are cut.

    Example:
        >>> import numpy as np
        >>> from convc.runtime.manifest import Tensor
        >>> boxes = Tensor("boxes", (5, 4), "float32", count="boxes.count")
        >>> counts = Counts((boxes, Tensor("boxes.count", (), "int64")))
        >>> {name: x.shape for name, x in counts.cut([np.zeros((5, 4)), np.array(2)]).items()}
        {'boxes': (2, 4)}
    """

    def __init__(self, outputs: Sequence[Tensor]) -> None:
        places = {tensor.name: place for place, tensor in enumerate(outputs)}
        counting = {tensor.count for tensor in outputs}
        # (place, name, (place of the count, axis)) of what a caller sees
        self._shown: Final = tuple(
            (places[t.name], t.name, (places[t.count], t.axis) if t.count else None)
            for t in outputs
            if t.name not in counting
        )
        self.any: Final = len(self._shown) < len(outputs)

    def cut(self, arrays: Sequence[NDArray]) -> dict[str, NDArray]:
        """Return what is there of the outputs, by name; views of the arrays."""
        shown = {}
        for place, name, counted in self._shown:
            array = arrays[place]
            if counted is not None:
                count, axis = int(arrays[counted[0]]), counted[1]
                array = array[(slice(None),) * axis + (slice(count),)]
            shown[name] = array
        return shown
