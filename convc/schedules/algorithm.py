"""What an algorithm for convolutions is, and the problem it is asked to solve."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from convc.ir.epilogue import Step
from convc.ir.ops.conv import accumulator
from convc.ir.spec import ConvSpec
from convc.ir.types import HALVES
from convc.schedules.layout import Halo, Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.target import Target

if TYPE_CHECKING:
    from tvm import te

__all__ = [
    "KIND",
    "SEPARATOR",
    "Algorithm",
    "Operands",
    "Problem",
    "channel_block",
    "channel_blocks",
    "gathered_halo",
    "knob_space",
    "row_chunks",
    "row_shares",
    "two_panels_fit",
]


# Between the keys of problems that one kernel solves together.
SEPARATOR: Final = " > "

# In the key of a problem on a convolution's geometry that is no convolution, behind its kind: "weight_gradient:conv2d-f32-...".
KIND: Final = ":"


@dataclass(frozen=True, slots=True)
class Problem:
    """One convolution with its epilogue.

    Attributes:
        spec: its geometry.
        epilogue: what follows each sum.
        constant_weight: whether weights can be packed at compile time.
        accumulate: element type of the sums, as in `ConvAttributes`.
        dual: whether the weight given is that of the transposed convolution that this one stands for, see `dual`.
        stored: the half-width type that operands and result have in memory, where `spec` has the type they are computed in.
    """

    spec: ConvSpec
    epilogue: tuple[Step, ...] = ()
    constant_weight: bool = True
    accumulate: str = ""
    dual: bool = False
    stored: str = ""

    @property
    def key(self) -> str:
        """Canonical name, the key of tuning records: the convolution's, its epilogue's steps, and whether weights come at run time.

        Example:
            >>> spec = ConvSpec.of((1, 8, 5, 5), (4, 8, 3, 3))
            >>> Problem(spec, (Step("bias"), Step("clip", (0.0, 6.0)))).key
            'conv2d-f32-n1c8h5w5-k4r3s3-st1x1-pd0.0.0.0-dl1x1-g1+bias+clip(0.0,6.0)'
        """
        steps = "".join(f"+{step}".replace(" ", "") for step in self.epilogue)
        marks = (
            "" if self.constant_weight else "@weights",
            self.accumulate and f"@{self.accumulate}",
        )
        return "".join((self.spec.key, steps, *marks))

    @staticmethod
    def parse(key: str) -> Problem:
        """Return the problem that `key` names.

        Raises:
            ShapeError: if it is not a problem's canonical name.
        """
        text, *marks = key.split("@")
        spec, *steps = re.split(r"\+(?=[a-z])", text)
        sums = "".join(m for m in marks if m != "weights")
        parsed = tuple(map(Step.parse, steps))
        return Problem(ConvSpec.parse(spec), parsed, "weights" not in marks, sums)

    @property
    def widened(self) -> Problem:
        """The same convolution on operands widened to the type of its sums, where they are stored in half the width.

        Example:
            >>> spec = ConvSpec.of((1, 8, 5, 5), (4, 8, 3, 3), dtype="bfloat16")
            >>> Problem(spec).widened.spec.dtype, Problem(spec, accumulate="bfloat16").widened.spec.dtype
            ('float32', 'bfloat16')
        """
        if self.spec.dtype not in HALVES or self.accumulator != "float32":
            return self
        wide = replace(self.spec, dtype="float32")
        return replace(self, spec=wide, stored=self.spec.dtype)

    @property
    def stored_spec(self) -> ConvSpec:
        """The geometry with the element type that operands and result have in memory."""
        return replace(self.spec, dtype=self.stored) if self.stored else self.spec

    @property
    def accumulator(self) -> str:
        """Element type of the sums."""
        return accumulator(self.spec.dtype, self.accumulate)


@dataclass(frozen=True, slots=True)
class Operands:
    """How an algorithm wants its data and leaves its result.

    Attributes:
        data: block of the data's layout; its halo is at least `border`.
        border: the part of the halo that the kernel's view of the data includes.
        result: layout of the result and of a residual.
        split: factors by which the kernel splits the spatial axes of result and residual, see `View.split`; None if it does not.
    """

    data: Layout
    border: Halo
    result: Layout
    split: tuple[int, ...] | None = None


class Algorithm(Protocol):
    """A way to compute a convolution. THE ALGORITHM is here; THE SCHEDULE is in the target's folder under the same name."""

    name: str

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        ...

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return the knobs that the analytic model thinks best."""
        ...

    def space(self, problem: Problem, target: Target) -> Iterable[Knobs]:
        """Return the settings worth measuring: right in any case, within registers and caches, little waste at the edges.

        Tens to a few hundred, not the product of everything: what a hard constraint can refuse is never built. Best read through
        `knob_space`, which puts `knobs` first and drops what comes twice.
        """
        ...

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return the estimated cycles on one core."""
        ...

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return the layouts."""
        ...

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return the weights as the kernel reads them; done at compile time."""
        ...

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> Sequence[te.Tensor]:
        """Return the tensor expressions: data, weight, extras..., result."""
        ...


def channel_block(channels: int, target: Target) -> int:
    """Return whole vectors or half ones, by the cycles and then the padding of their products.

    On Zen 4 two 256-bit FMAs a cycle equal one 512-bit FMA, so a half-wide block costs nothing: 24 channels are 3 blocks of 8,
    not 2 of 16. Where two 512-bit FMAs issue a cycle, they are 2 of 16; up to 8 are one of 8.
    """
    lanes = target.lanes
    if lanes < 16:
        return lanes

    def cost(block: int) -> tuple[float, int, int]:
        vectors = -(-channels // block)
        return vectors / target.core.fmas_of(lanes, block), vectors * block, -block

    return min(lanes, lanes // 2, key=cost)


def channel_blocks(channels: int, target: Target) -> tuple[int, ...]:
    """Return the blocks to try: `channel_block`'s, and whole vectors, which win where two 512-bit FMAs issue a cycle.

    Example:
        >>> zen4 = Target("llvm", "x86_64-linux-gnu", "znver4", (), 16, 32)
        >>> channel_blocks(24, zen4), channel_blocks(64, zen4)
        ((8, 16), (16,))
    """
    best = channel_block(channels, target)
    return (best,) if best == target.lanes else (best, target.lanes)


def row_shares(target: Target, tile_rows: int, rows: int) -> tuple[int, ...]:
    """Return the possible values of the knob `chunks`: 1, and one part a thread where the rows divide evenly."""
    even = target.cores > 1 and rows % (tile_rows * target.cores) == 0
    return (1, target.cores) if even else (1,)


def knob_space(algorithm: Algorithm, problem: Problem, target: Target) -> tuple[Knobs, ...]:
    """Return the settings of an algorithm that applies, the analytic choice first and each once."""
    settings = (algorithm.knobs(problem, target), *algorithm.space(problem, target))
    return tuple({tuple(sorted(knobs.items())): knobs for knobs in settings}.values())


def row_chunks(spec: ConvSpec, target: Target, tile_rows: int, rows: int) -> int:
    """Return into how many parts the threads share out the rows: one each, or 1 to share out channels instead.

    Rows, when they divide evenly and the weights, which every thread then reads whole, are the smaller part of what is read; or of
    what is read and written, if they stay in L2. Of a result shared out by channels every thread of the next layer reads the other
    thread's half: depthwise 3x3, 384 channels at 14 x 14, behind such a layer took 19 us on two threads against 12 us on one.
    """
    if rows % (tile_rows * target.cores):
        return 1
    weights, data, result = (math.prod(s) for s in (spec.weight, spec.data, spec.output))
    stay = 4 * weights <= target.l2_bytes / 2
    return target.cores if weights < data + (result if stay else 0) else 1


def two_panels_fit(nbytes: int, target: Target) -> bool:
    """Whether L2 holds two panels of weights of so many bytes beside the data: one that is read, and the next one on its way."""
    return nbytes <= target.l2_bytes / 3


def gathered_halo(spec: ConvSpec) -> Halo:
    """Return the border that a convolution reads around its data."""
    begins, ends = spec.pads[: spec.rank], []
    for axis, begin in enumerate(begins):
        reach = (spec.output[2 + axis] - 1) * spec.strides[axis] + spec.effective_kernel[axis]
        ends.append(max(0, reach - spec.data[2 + axis] - begin))
    return Halo.of(begins, ends)
