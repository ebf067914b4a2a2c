"""Which pools join the convolution before them, in what strips, and how long both take together and apart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from convc.ir.ops.pool import AveragePoolAttributes
from convc.schedules.algorithm import Algorithm
from convc.schedules.direct import shared_units
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.pooled import Pooled, computed_rows, padded, strips, taps
from convc.schedules.properties import Properties, properties_of
from convc.schedules.requirements import float32_throughout
from convc.schedules.sharing import turns
from convc.schedules.winograd import ALGORITHM as WINOGRAD
from convc.target import Target

__all__ = ["cut", "cycles", "cycles_apart", "options", "pool_cycles", "properties", "supports"]

# A strip's rows of the convolution may take so much of L2; weights, data and transforms need the rest.
_L2_SHARE: Final = 0.45

# The result of a convolution up to which the pool behind it finds it in L2.
_IN_L2: Final = 0.35

# A float32 mean of more elements is added up axis by axis, see `operators.reduction`, which a strip is not.
_MOST_TERMS: Final = 1023

# Cycles of one vector of the pool's result beside its loads: the maximum's latency, the store.
_STORE: Final = 4.0

# The highest blocks of tile rows of `winograd` that are considered beside its own.
_TILE_ROWS: Final = 10


def supports(pooled: Pooled, algorithm: Algorithm) -> Unsupported | None:
    """Return why the pool cannot join the convolution that this algorithm computes, or None."""
    refusal = float32_throughout(pooled.layer)
    if refusal is not None:
        return refusal
    spec = pooled.layer.spec
    if spec.rank != 2 or spec.transposed:
        return Unsupported("the convolution must be 2-D and not transposed")
    if algorithm.name not in ("direct", WINOGRAD.name):
        return Unsupported(f"only direct and winograd compute strips of rows; not {algorithm.name}")
    if isinstance(pooled.window, AveragePoolAttributes) and taps(pooled) > _MOST_TERMS:
        return Unsupported(f"a mean must be of at most {_MOST_TERMS} elements; got {taps(pooled)}")
    if algorithm.name == WINOGRAD.name and max(spec.dilations) > 1:
        return Unsupported("winograd's tiles of a dilated filter are no rows")
    return None


def options(
    pooled: Pooled, algorithm: Algorithm, own: Knobs, target: Target, *, others: bool
) -> Iterator[Knobs]:
    """Yield the settings that fit: the convolution's knobs with `strip`, the rows of the pool that are computed together.

    Args:
        pooled: the two.
        algorithm: one that `supports` them.
        own: its knobs of the convolution alone.
        target: the machine.
        others: whether other tiles of `winograd` than its own are yielded, too.
    """
    if algorithm.name == WINOGRAD.name:
        found = _tiles(pooled, own, target, others=others)
    else:
        rows = pooled.result[2]
        heights = dict.fromkeys(-(-rows // count) for count in range(1, rows + 1))
        found = [{**own, "strip": height} for height in heights]
    for knobs in found:
        if _strip_bytes(pooled, knobs) <= _L2_SHARE * target.l2_bytes and cut(pooled, knobs):
            yield knobs


def cut(pooled: Pooled, knobs: Knobs) -> bool:
    """Whether there can be these strips: of `winograd` whole rows of tiles, and such as TVM 0.27 schedules.

    Not several that leave rows out between them: its vectorize wants all of an axis in a block's loops. And it crashes where it splits a
    tail off rows of a strip whose taps are skipped by tests, see `clipping`. Sums in parts of the channels are of all rows.
    """
    whole = _strip_of(pooled, knobs) if "m" in knobs else min(knobs["strip"], pooled.result[2])
    if knobs["strip"] < 1 or knobs["strip"] != whole or knobs.get("parts", 1) > 1:
        return False
    if strips(pooled, knobs) == 1:
        return True
    tails = knobs.get("clip") and pooled.rows(knobs["strip"]) % knobs["rows"]
    return pooled.reach >= pooled.window.strides[0] and not tails


def _tiles(pooled: Pooled, own: Knobs, target: Target, *, others: bool) -> list[Knobs]:
    """Return settings of `winograd` whose blocks of tile rows are whole rows of the pool, or all rows."""
    spec = pooled.layer.spec
    planes = (0, 1) if pooled.layer.constant_weight else (0,)
    settings = [own]
    for m in WINOGRAD.sizes(spec) if others else ():
        whole = -(-pooled.rows(pooled.result[2]) // m)
        for blocks in dict.fromkeys((*range(1, min(_TILE_ROWS, whole) + 1), whole)):
            settings += [WINOGRAD.with_tile(spec, target, m, blocks, planes=p) for p in planes]
    made = ({**knobs, "strip": _strip_of(pooled, knobs)} for knobs in settings)
    return [knobs for knobs in made if knobs["strip"]]


def _strip_of(pooled: Pooled, knobs: Knobs) -> int:
    """Return the rows of the pool that a block of tile rows of `winograd` is; 0 if these are no whole ones."""
    rows, step, height = pooled.result[2], pooled.window.strides[0], knobs["rows"] * knobs["m"]
    if height >= pooled.rows(rows) > height - knobs["m"]:
        return rows
    return height // step if height % step == 0 and not pooled.overlaps else 0


def _units(pooled: Pooled, knobs: Knobs) -> int:
    """Return how many equal parts `direct` shares out: parts of the strips, or strips of groups."""
    images, count, chunks = pooled.layer.spec.data[0], strips(pooled, knobs), knobs.get("chunks", 1)
    if chunks > 1 and count % chunks == 0:
        return images * chunks
    groups = -(-pooled.layer.spec.out_channels // (knobs["vectors"] * knobs["block"]))
    return images * count * groups


def properties(pooled: Pooled, algorithm: Algorithm, target: Target, knobs: Knobs) -> Properties:
    """Return the convolution's properties, a strip's rows of it counted as workspace; apart its result is a value of the plan."""
    facts = properties_of(algorithm, padded(pooled, knobs), target, knobs)
    rows = _strip_bytes(pooled, knobs) if knobs["strip"] else 0
    return replace(facts, workspace=facts.workspace + rows)


def _strip_bytes(pooled: Pooled, knobs: Knobs) -> int:
    """Return the bytes of a strip's rows of the convolution, which each thread has for itself."""
    spec = pooled.layer.spec
    rows = knobs["rows"] * knobs["m"] if "m" in knobs else pooled.rows(knobs["strip"])
    vectors = min(knobs["vectors"], -(-spec.out_channels // knobs["block"]))
    return 4 * vectors * knobs["block"] * rows * spec.output[3]


def cycles(pooled: Pooled, algorithm: Algorithm, target: Target, knobs: Knobs) -> float:
    """Return the cycles of the convolution's strips and of the pool on them; of both apart, where `strip` is 0."""
    if not knobs["strip"]:
        return cycles_apart(pooled, algorithm, target, knobs)
    problem = padded(pooled, knobs)
    if algorithm.name != WINOGRAD.name:
        # Not the layer's own parts are shared out, but strips.
        evenly = turns(shared_units(problem.spec, knobs), target)
        work = algorithm.cycles(problem, target, knobs) / evenly
        work *= strips(pooled, knobs) * computed_rows(pooled, knobs) / problem.spec.output[2]
        work *= turns(_units(pooled, knobs), target)
    else:
        work = algorithm.cycles(problem, target, knobs) - _unstored(pooled, target)
    return work + _reduced(pooled, target, knobs) + _scratch(pooled, target, knobs)


def cycles_apart(pooled: Pooled, algorithm: Algorithm, target: Target, own: Knobs) -> float:
    """Return the cycles of the convolution with its own knobs, and of the pool as a kernel of its own."""
    return algorithm.cycles(pooled.layer, target, own) + pool_cycles(pooled, target, own["block"])


def pool_cycles(pooled: Pooled, target: Target, block: int) -> float:
    """Return the cycles of the pool as a kernel of its own, data and result from where they lie, half of the shorter hidden.

    Beyond L2 it waits for its data as if they came from memory. Measured on one core of an Intel Xeon (Emerald Rapids), in two runs, and
    by this, in us: 2x2 on 64 channels of 224 x 224 1218 and 1129, 1009; on 128 of 112 x 112 582 and 493, 505; 3x3 with stride 2 on 64 of
    112 x 112 250 and 170, 258.
    """
    nbytes = 4 * (math.prod(pooled.layer.spec.output) + math.prod(pooled.result))
    core = target.core
    moved = nbytes / (target.memory_bytes if nbytes > _IN_L2 * target.l2_bytes else core.l2)
    work = _reduced(pooled, target, {"block": block})
    return max(work, moved) + min(work, moved) / 2


def _reduced(pooled: Pooled, target: Target, knobs: Knobs) -> float:
    """Return the cycles of the pool's loads and stores as such."""
    n, k, *points = pooled.result
    block = knobs["block"]
    loads = taps(pooled) / target.core.loads_of(target.lanes, block)
    return n * -(-k // block) * math.prod(points) * (loads + _STORE)


def _scratch(pooled: Pooled, target: Target, knobs: Knobs) -> float:
    """Return the cycles of a strip's way to L2 and back, where L1 does not hold it."""
    if _strip_bytes(pooled, knobs) <= target.l1_bytes / 2:
        return 0.0
    return 2 * 4 * math.prod(pooled.layer.spec.output) / target.core.l2


def _unstored(pooled: Pooled, target: Target) -> float:
    """Return the cycles of `winograd` that it does not take where its result stays in L2; `direct` hides its stores behind FMAs.

    64 channels of 224 x 224, same core: 12.8 MB that are not written are 0.8 ms less, of 9.4. At one core's share of the memory's speed
    however many there are, as the estimate has it from which this is taken: at less, 64 cores would need less than no time.
    """
    written = 4 * math.prod(pooled.layer.spec.output)
    return written / target.core.memory if written > _IN_L2 * target.l2_bytes else 0.0
