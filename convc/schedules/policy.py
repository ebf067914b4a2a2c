"""Policy: by what, and among what, algorithms are chosen. One value for what other tools spread over a dozen flags.

policy                                      Theano, cuDNN
Policy(by="heuristic")                      guess_once, guess_on_shape_change
Policy(by="time", when="once")              time_once: a record of a like shape counts
Policy(by="time", when="per_shape")         time_on_shape_change: records of exactly this shape only
Policy(deterministic=True)                  deterministic
Policy(workspace_limit=0), None             none, large
Policy(include=..., exclude=...)            optimizer_including, optimizer_excluding
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Final, Literal

from convc.errors import InvalidKnobsError, unknown_name

__all__ = ["RECORD_ERROR", "THE_POLICY", "Policy"]

# Of the layer's greatest result. F(5, 3) is below it up to 512 channels, F(6, 3) up to 64; both measured at C = 8, 64, 256.
RECORD_ERROR: Final = 1e-5

# Who asks, in reasons.
THE_POLICY: Final = "the policy"

# A preferred algorithm is taken if it is at most this much slower than the fastest.
PREFERENCE: Final = 1.1


@dataclass(frozen=True, slots=True)
class Policy:
    """How the choice is made.

    Attributes:
        by: "time": measured records first, then tuned neighbours, then the cost model; "heuristic": the cost model alone.
        when: "once": a record of a like shape stands for this one; "per_shape": only this very shape's do.
        deterministic: only algorithms that give the same bits at every run.
        workspace_limit: bytes that an algorithm may need beyond data, weights and result; None: any number.
        max_error: greatest expected |error| / greatest |result| of a layer; None: what the default choice has, see `RECORD_ERROR`.
        include: only these algorithms; empty: all.
        exclude: not these.
        require: these, wherever one of them applies.
        prefer: these, where one is at most 10 % slower than the fastest.
        fallback: whether convc's own kernel stands beside each call of a library (cuDNN) that nobody has pinned, for devices whose library
            refuses it; it costs the layer's weights once more where they are packed otherwise, room in the arena for what the kernel
            converts, and the time to compile it.

    Raises:
        InvalidKnobsError: for a value outside its range, or an algorithm that is both included and excluded.

    Example:
        >>> Policy(by="heuristic", exclude=("fft",)).allows("fft")
        False
    """

    by: Literal["heuristic", "time"] = "time"
    when: Literal["once", "per_shape"] = "once"
    deterministic: bool = False
    workspace_limit: int | None = None
    max_error: float | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    fallback: bool = True

    def __post_init__(self) -> None:
        if self.by not in ("heuristic", "time"):
            raise InvalidKnobsError(f"policy must be 'heuristic' or 'time'; got '{self.by}'.")
        if self.when not in ("once", "per_shape"):
            raise InvalidKnobsError(
                f"policy `when` must be 'once' or 'per_shape'; got '{self.when}'."
            )
        if self.workspace_limit is not None and self.workspace_limit < 0:
            raise InvalidKnobsError(
                f"workspace_limit must not be negative; got {self.workspace_limit}."
            )
        if self.max_error is not None and not self.max_error > 0:
            raise InvalidKnobsError(f"max_error must be positive; got {self.max_error}.")
        for wanted in ("include", "require", "prefer"):
            both = sorted(set(getattr(self, wanted)) & set(self.exclude))
            if both:
                raise InvalidKnobsError(
                    f"an algorithm must not be in both {wanted} and exclude; got {', '.join(both)}."
                )

    @property
    def record_error(self) -> float:
        """The greatest measured error that a record may have to be chosen."""
        return RECORD_ERROR if self.max_error is None else self.max_error

    @property
    def names(self) -> tuple[str, ...]:
        """Every algorithm that the policy names."""
        return (*self.include, *self.exclude, *self.require, *self.prefer)

    def allows(self, algorithm: str) -> bool:
        """Whether the algorithm may be chosen at all."""
        return algorithm not in self.exclude and (not self.include or algorithm in self.include)

    def check(self, known: Sequence[str]) -> None:
        """Raise UnknownNameError if it names an algorithm that nobody knows."""
        for name in self.names:
            if name not in known:
                raise unknown_name("algorithm", name, known)

    def with_algorithms(self, text: str) -> Policy:
        """Return the policy with a list such as `+winograd,-fft` or `direct,winograd` applied.

        A bare name means only the bare names; `+` adds one that is left out otherwise; `-` removes one.

        Raises:
            InvalidKnobsError: for an empty name.

        Example:
            >>> Policy().with_algorithms("-fft,-im2col").exclude
            ('fft', 'im2col')
            >>> Policy().with_algorithms("direct,winograd").include
            ('direct', 'winograd')
        """
        only: list[str] = list(self.include)
        without = list(self.exclude)
        for word in filter(None, (w.strip() for w in text.split(","))):
            sign, name = (word[0], word[1:]) if word[0] in "+-" else ("", word)
            if not name:
                raise InvalidKnobsError(
                    f"algorithms must look like '+winograd,-fft'; got '{text}'."
                )
            if sign == "-":
                without.append(name)
                only = [n for n in only if n != name]
            elif sign == "" or only:
                only.append(name)
            if sign != "-":
                without = [n for n in without if n != name]
        return replace(self, include=tuple(only), exclude=tuple(without))

    def document(self) -> dict[str, str]:
        """Return what is not default, as text: for manifests and lock files."""
        default = Policy()
        changed = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            name: ",".join(value) if isinstance(value, tuple) else str(value)
            for name, value in changed.items()
            if value != getattr(default, name)
        }
