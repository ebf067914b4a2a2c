"""What a device's kernels can index: TVM counts a tensor's elements in an int32, and nothing says so where that overflows."""

from __future__ import annotations

import math
from typing import Final

from convc.ir.spec import ConvSpec
from convc.schedules.plan import Unsupported

__all__ = ["INDICES", "indexed"]

# Elements of a buffer whose index is an int32.
INDICES: Final = 2**31


def indexed(spec: ConvSpec, block: int = 1) -> Unsupported | None:
    """Return why kernels cannot index a convolution's tensors in int32, or None.

    Args:
        spec: the convolution.
        block: channels of images come in whole blocks of so many.

    Example:
        >>> indexed(ConvSpec.of((64, 64, 1024, 1024), (16, 64, 1, 1)))
        Unsupported(reason='a tensor must have fewer than 2147483648 elements; got 4294967296')
        >>> image = ConvSpec.of((32, 3, 4096, 4096), (64, 3, 8, 8), strides=(8, 8), dtype="float16")
        >>> indexed(image), indexed(image, 8)
        (None, Unsupported(reason='a tensor must have fewer than 2147483648 elements; got 4294967296'))
    """
    images = ((n, -(-c // block) * block, *extents) for n, c, *extents in (spec.data, spec.output))
    most = max(map(math.prod, (*images, spec.weight)))
    if most < INDICES:
        return None
    return Unsupported(f"a tensor must have fewer than {INDICES} elements; got {most}")
