"""How far a module of half-width floats, or one that quantises floats, may be from float64: as far as rounding alone puts it.

A bound for the worst case grows with every layer, by the sum of a filter's magnitudes, and says nothing of a deep network: 1e30 for a
ResNet-50. So the graph as it was compiled is run in float64 with each half-width value rounded, on the same inputs: the same errors, of
the same size and in the same places, but for their signs. The module may be four times as far off; and twice the rounding of one
value, for outputs of a few elements that happen to be right.

Where floats are rounded to bytes, float32 alone is enough: a value beside the middle of two steps falls to the other one, and layers behind
carry that on. Then float32's values are rounded, too, and a step of 255 is the rounding of one value. A U-Net of bytes with transposed
convolutions in floats: 0.055 from float64; so is ONNX Runtime without its optimisations from itself with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from convc.deviation import compare
from convc.ir.batch import with_batch
from convc.ir.graph import Graph
from convc.ir.passes import run_passes
from convc.ir.passes.convert_floats import convert_floats
from convc.ir.reference import interpret
from convc.ir.types import HALVES
from convc.schedules.error_bound import result_rounding

__all__ = ["TOLERANCE", "Tolerance", "tolerance_of"]

Arrays = Mapping[str, np.ndarray]

# (inputs, expected outputs) -> greatest max |error| / max |reference| that passes.
Tolerance = Callable[[Arrays, Arrays], float]

# Of a module that computes in float32.
TOLERANCE: Final = 1e-4

_FACTOR: Final = 4

# Of the greatest element, whatever the rounded run says: 0.125 in bfloat16, where a ResNet-50 is 0.006 off; 0.016 in float16, where
# it is 0.0005.
_MOST_ROUNDINGS: Final = 32

_TO_BYTES: Final = ("quantize", "conv_quantized")

# Of the range of bytes, which the greatest element may be as far from zero as.
_STEP: Final = 1 / 255


def tolerance_of(graph: Graph, dtype: str | None, given: float | None = None) -> Tolerance:
    """Return how much error passes, for given inputs and what the reference makes of them.

    Args:
        graph: the source graph.
        dtype: the element type it was compiled for, as `compile`.
        given: a tolerance that was asked for, which then holds.
    """
    if given is not None:
        return lambda fed, expected: given
    if graph.batch:
        batched = graph

        def sized(fed: Arrays) -> Graph:
            name = next(n.name for n in batched.inputs if n.attributes.batch)  # type: ignore[attr-defined]
            return with_batch(batched, len(fed[name]))

    else:

        def sized(fed: Arrays) -> Graph:
            return graph

    def rounding(fed: Arrays, expected: Arrays) -> float:
        computed = convert_floats(run_passes(sized(fed)), dtype)
        used = {n.type.dtype for n in computed.nodes} & set(HALVES)
        to_bytes = any(n.op in _TO_BYTES for n in computed.nodes)
        if not used and not to_bytes:
            return TOLERANCE
        own = interpret(computed, fed, rounded={*used, "float32"} if to_bytes else used)
        rows = [compare(name, own[name], expected[name], TOLERANCE) for name in expected]
        # What overflows a half in one of the two alone is infinitely wrong; the module is held to what the others say.
        errors = [r.max_relative_error for r in rows if np.isfinite(r.max_relative_error)]
        units = [result_rounding(dtype) for dtype in used]
        one = max([*units, _STEP] if to_bytes else units)
        # What is run here went through the passes and the conversion that made the module: a fault of theirs must not excuse itself.
        return TOLERANCE + min(
            max(_FACTOR * max(errors, default=0.0), 2 * one), _MOST_ROUNDINGS * one
        )

    return rounding
