"""What a module's libraries did when it was loaded: the plans they made, what they refused, and how long the first run took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import tvm_ffi

from convc.runtime.manifest import Step

__all__ = ["Fallback", "LibraryPlan", "Preparation", "calls_cudnn", "share", "together", "watch", "watched"]  # fmt: skip

# Functions of the shim, see its native/shim.cc. A module that an older convc made lacks them, and then nothing is told.
_WATCH, _WATCHED, _USERS = "convc_cudnn_watch", "convc_cudnn_watched", "convc_cudnn_users"
_LIBRARY = "cudnn"
_REFUSED = "refused="


@dataclass(frozen=True, slots=True)
class LibraryPlan:
    """One layer's plan as cuDNN made it.

    Attributes:
        layer: the convolution's name.
        spec: the convolution.
        engine: cuDNN's number.
        knobs: the engine's settings, "2:1,17:4".
        workspace: bytes.
        seconds: to make it, 0 where another layer's serves; the first one of a process opens cuDNN's libraries.
        compiled: whether cuDNN has compiled the engine for that.
    """

    layer: str
    spec: str
    engine: int
    knobs: str
    workspace: int
    seconds: float
    compiled: bool = False

    @staticmethod
    def parse(layer: str, line: str) -> LibraryPlan:
        """Return the plan that a line of the shim describes.

        Example:
            >>> LibraryPlan.parse("stem", "engine=28;knobs=2:1;workspace=64;microseconds=210;spec=conv2d-f32")
            LibraryPlan(layer='stem', spec='conv2d-f32', engine=28, knobs='2:1', workspace=64, seconds=0.00021, compiled=False)
        """
        head, _, spec = line.partition(";spec=")
        fields = {key: value for key, _, value in (p.partition("=") for p in head.split(";"))}
        seconds = int(fields["microseconds"]) / 1e6
        return LibraryPlan(layer, spec, int(fields["engine"]), fields["knobs"], int(fields["workspace"]), seconds, "compiled" in fields)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fallback:
    """A layer that convc's own kernel computes, as the library it was compiled for has refused it here.

    Attributes:
        layer: its name.
        algorithm: convc's, that runs.
        reason: the library's own words.
    """

    layer: str
    algorithm: str
    reason: str

    def __str__(self) -> str:
        return f"layer '{self.layer}' runs convc's own '{self.algorithm}' in place of cuDNN: {self.reason}"


@dataclass(frozen=True, slots=True)
class Preparation:
    """What loading did so that the first run need not.

    Attributes:
        seconds: of a run on zeros: libraries opened, plans made, kernels loaded.
        plans: of the module's convolutions that cuDNN computes, in order.
        fallbacks: the layers that it refused, in order.
    """

    seconds: float
    plans: tuple[LibraryPlan, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()

    @staticmethod
    def of(seconds: float, calls: Sequence[Step], lines: Sequence[str]) -> Preparation:
        """Return what the calls of a run were given; a line each, in their order."""
        pairs = list(zip(calls, lines, strict=False))
        return Preparation(
            seconds,
            tuple(LibraryPlan.parse(c.node, line) for c, line in pairs if line.startswith("engine=")),
            tuple(
                Fallback(c.node, _own(c).algorithm, line.removeprefix(_REFUSED))
                for c, line in pairs
                if line.startswith(_REFUSED)
            ),
        )  # fmt: skip

    def steps(self, every: Iterable[Step]) -> tuple[Step, ...]:
        """Return the steps that run: for what was refused those in its place."""
        reasons = {f.layer: f.reason for f in self.fallbacks}
        taken: list[Step] = []
        for step in every:
            if not calls_cudnn(step) or step.node not in reasons:
                taken.append(step)
                continue
            said = f"in place of cuDNN: {reasons[step.node]}"
            taken += (msgspec.structs.replace(s, reason=said) for s in step.otherwise)
        return tuple(taken)


def _own(call: Step) -> Step:
    """Return the step that computes what a refused one would; others move its operands."""
    return max(call.otherwise, key=lambda step: (step.flops, bool(step.algorithm)))


def together(made: Sequence[Preparation]) -> Preparation | None:
    """Return the preparation of a module of several parts; what all of them say stands once."""
    if not made:
        return None
    return Preparation(
        sum(p.seconds for p in made),
        tuple(dict.fromkeys(plan for p in made for plan in p.plans)),
        tuple(dict.fromkeys(fallback for p in made for fallback in p.fallbacks)),
    )


def calls_cudnn(step: Step) -> bool:
    """Whether a step is cuDNN's."""
    return step.algorithm == _LIBRARY


def watch(library: tvm_ffi.Module) -> None:
    """Let the calls of this thread be written down until `watched`."""
    if library.implements_function(_WATCH):
        library.get_function(_WATCH)()


def watched(library: tvm_ffi.Module) -> list[str]:
    """Return a line for each call since `watch`."""
    if not library.implements_function(_WATCHED):
        return []
    return str(library.get_function(_WATCHED)()).splitlines()


def share(library: tvm_ffi.Module, more: int) -> None:
    """Say that one more uses a loaded file with cuDNN in it (1), or one less (-1): cuDNN's contexts go with the last."""
    if library.implements_function(_USERS):
        library.get_function(_USERS)(more)
