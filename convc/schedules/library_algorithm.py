"""What an algorithm that is a library's says of itself beside what all do; choosing, lowering and tuning ask for it by these names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from convc.errors import unknown_name
from convc.schedules.backend import Backend
from convc.schedules.plan import Knobs
from convc.schedules.policy import Policy
from convc.target import Target

__all__ = ["NarrowBias", "OnRequest", "OptionalKnobs", "Refusable", "Settles", "Ways", "are_knobs_of", "check_name", "completed", "optional_knobs", "way_of"]  # fmt: skip

# Of an algorithm for convolutions a `Problem`, of one for weight gradients the geometry.
_P = TypeVar("_P", contravariant=True)


@runtime_checkable
class OnRequest(Protocol):
    """An algorithm that an estimate alone does not choose, as what a module then needs where it runs is not for an estimate to decide.

    Attributes:
        on_request: what is said where nobody has asked for it.
        by_record: whether a record of it is request enough; not where its results are less accurate.
    """

    on_request: str
    by_record: bool


@runtime_checkable
class Refusable(Protocol):
    """An algorithm that a device may refuse where a module runs: a library's, which is another version there.

    Attributes:
        refusable: True.
    """

    refusable: bool


@runtime_checkable
class Ways(Protocol):
    """An algorithm of a library's that chooses among its own in several ways, asked for behind a colon: "cudnn:winograd".

    Attributes:
        ways: their names.
    """

    ways: tuple[str, ...]

    def in_way(self, knobs: Knobs, way: str) -> Knobs:
        """Return the knobs that choose in one of the ways."""
        ...


def way_of(name: str) -> tuple[str, str]:
    """Return an algorithm's own name, and the way that is asked for.

    Example:
        >>> way_of("cudnn:winograd"), way_of("direct")
        (('cudnn', 'winograd'), ('direct', ''))
    """
    own, _, way = name.partition(":")
    return own, way


def check_name(name: str, backend: Backend) -> None:
    """Check that a backend has an algorithm, and that it has the way that is asked for.

    Raises:
        UnknownNameError: if not; says what there is.
    """
    own, way = way_of(name)
    row = backend.algorithm(own)
    if way and not isinstance(row, Ways):
        raise unknown_name("algorithm", name, [r.name for r in backend.algorithms])
    if isinstance(row, Ways) and way and way not in row.ways:
        raise unknown_name(f"way of {own}", way, row.ways)


@runtime_checkable
class OptionalKnobs(Protocol):
    """An algorithm of whose settings some have knobs that others lack: without one a setting is what it was before there was the knob.

    Attributes:
        optional_knobs: their names.
    """

    optional_knobs: frozenset[str]


@runtime_checkable
class NarrowBias(Protocol):
    """An algorithm that adds a bias in the layer's own type alone: one in float32 is rounded before it.

    Attributes:
        narrow_bias: what the plan then says, {} for the type.
    """

    narrow_bias: str


@runtime_checkable
class Settles(Protocol[_P]):
    """An algorithm of a library that decides more where it runs than its knobs say, and that can be asked what it took.

    Attributes:
        before: knobs that records and locks from before there was a choice lack, as they were then.
    """

    @property
    def before(self) -> Knobs: ...

    def question(
        self, problem: _P, knobs: Knobs, arguments: Sequence[Any], /
    ) -> tuple[str, list[Any]]:
        """Return the function of a loaded module to ask, and its arguments; `arguments` are those of a kernel that has run."""
        ...

    def settled(self, knobs: Knobs, words: str) -> Knobs:
        """Return the knobs that say what the answer says, so that nothing is decided anew where a module runs."""
        ...

    def searches(self, problem: _P, target: Target, policy: Policy, /) -> Sequence[Knobs]:
        """Return settings by which the library itself looks for the fastest of what a policy allows.

        The tuner measures them whatever an estimate says: what a library takes is not known before.
        """
        ...

    def is_setting(self, name: str) -> bool:
        """Whether a knob of this name is the library's own, of which settled knobs have any number."""
        ...


def optional_knobs(algorithm: object) -> frozenset[str]:
    """Return the knobs that only some of an algorithm's settings have."""
    return algorithm.optional_knobs if isinstance(algorithm, OptionalKnobs) else frozenset()


def are_knobs_of(algorithm: object, names: Iterable[str], knobs: Iterable[str]) -> bool:
    """Whether knobs are those of an algorithm, `names`, and besides only optional ones, or what a library's have when they are settled."""
    own, given = set(names), set(knobs)
    more = given - own - optional_knobs(algorithm)
    return own <= given and (not more or (isinstance(algorithm, Settles) and all(map(algorithm.is_setting, more))))  # fmt: skip


def completed(algorithm: object, knobs: Knobs) -> Knobs:
    """Return the knobs of a record or a lock with those that a library's algorithm has got since, as they were before."""
    return {**algorithm.before, **knobs} if isinstance(algorithm, Settles) else knobs
