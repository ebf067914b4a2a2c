"""What a setting costs beside time: the arithmetic it really does, memory of its own, accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Protocol, cast, runtime_checkable

from convc.schedules import packing
from convc.schedules.algorithm import Algorithm, Problem
from convc.schedules.plan import Knobs
from convc.schedules.policy import Policy
from convc.target import Target

__all__ = ["Properties", "Transforming", "breach", "direct_error", "properties_of", "sum_error"]

# One chain of 2304 products (C = 256, 3 x 3), normal data: greatest |error| / greatest |result|, measured; 2.9e-7 for 72 products.
# It grows with the square root of their number, as rounding errors of random sign do.
_DIRECT_ERROR, _DIRECT_PRODUCTS = 1.9e-6, 2304


@dataclass(frozen=True, slots=True)
class Properties:
    """Facts about one setting of an algorithm.

    Attributes:
        flops: what it really computes; a multiply-add counts as two.
        workspace: bytes beyond data, weights and result: transformed weights' growth, all of weights packed at run time, panels, transforms
            in flight, parts of sums.
        error: expected greatest |error| over greatest |result|, normal data.
        deterministic: whether every run gives the same bits.
        at_most: whether `workspace` is only the limit that a library keeps to.
        taken: what it was seen to take of that where its choice was measured; None where nobody knows.
    """

    flops: float
    workspace: int
    error: float
    deterministic: bool = True
    at_most: bool = False
    taken: int | None = None

    @property
    def known_workspace(self) -> tuple[int, bool]:
        """What a report says of the workspace: bytes, and whether they are only a limit.

        Example:
            >>> Properties(1e6, 1 << 20, 1e-7, at_most=True, taken=512).known_workspace, Properties(1e6, 0, 1e-7).known_workspace
            ((512, False), (0, False))
        """
        return (self.workspace, self.at_most) if self.taken is None else (self.taken, False)


@runtime_checkable
class Transforming(Protocol):
    """An algorithm whose properties are not the direct method's."""

    def properties(self, problem: Problem, target: Target, knobs: Knobs) -> Properties:
        """Return them."""
        ...


def direct_error(problem: Problem) -> float:
    """Return the expected error of a chain of multiply-adds."""
    return sum_error(math.prod(problem.spec.weight[1:]))


def sum_error(length: float) -> float:
    """Return the expected error of a chain of so many multiply-adds; of a sum in parts, of their chain behind that of one of them.

    The parts' errors are independent, so that what they make together is, relative to the sum, what one makes.

    Example:
        >>> sum_error(2304), f"{sum_error(160 + 2500):.1e}"
        (1.9e-06, '2.0e-06')
    """
    return _DIRECT_ERROR * math.sqrt(length / _DIRECT_PRODUCTS)


def properties_of(
    algorithm: Algorithm, problem: Problem, target: Target, knobs: Knobs
) -> Properties:
    """Return the properties of a setting: the direct method's, unless the algorithm has others.

    Example:
        >>> from convc.ir.spec import ConvSpec
        >>> from convc.schedules.direct import ALGORITHM
        >>> zen4 = Target("llvm", "x86_64-linux-gnu", "znver4", (), 16, 32)
        >>> problem = Problem(ConvSpec.of((1, 256, 14, 14), (256, 256, 3, 3)))
        >>> properties_of(ALGORITHM, problem, zen4, ALGORITHM.knobs(problem, zen4))
        Properties(flops=169869312, workspace=0, error=1.9e-06, deterministic=True, at_most=False, taken=None)
    """
    if _transforms(type(algorithm)):
        return cast(Transforming, algorithm).properties(problem, target, knobs)
    own = packing.nbytes(algorithm.name, problem, target, knobs)
    return Properties(problem.spec.flops, own, direct_error(problem))


@cache
def _transforms(kind: type) -> bool:
    # Once a class: a protocol takes long to answer, and ranking a network's settings asks 16 000 times.
    return issubclass(kind, Transforming)


def breach(facts: Properties, policy: Policy, *, measured: bool = False) -> str:
    """Return which limit of a policy a setting breaks; "" if none.

    Args:
        facts: of the setting.
        policy: what the choice may be of.
        measured: whether the setting has a record, which was already judged by its measured error.

    Example:
        >>> breach(Properties(1e6, 4096, 2e-6), Policy(workspace_limit=1024))
        'workspace must be at most 1024 bytes; got 4096'
    """
    if policy.deterministic and not facts.deterministic:
        return "not deterministic"
    limit = policy.workspace_limit
    if limit is not None and facts.workspace > limit:
        return f"workspace must be at most {limit} bytes; got {facts.workspace}"
    if policy.max_error is not None and not measured and facts.error > policy.max_error:
        return f"expected error must be at most {policy.max_error:g}; got {facts.error:.1e}"
    return ""
