"""What a module's libraries did when it was loaded: the plans they made, and how long the first run took."""

from __future__ import annotations

from dataclasses import dataclass

import tvm_ffi

__all__ = ["LibraryPlan", "Preparation", "plans_of"]

_PLANS = "convc_cudnn_plans"


@dataclass(frozen=True, slots=True)
class LibraryPlan:
    """One convolution's plan as cuDNN made it.

    Attributes:
        spec: the convolution.
        engine: cuDNN's number.
        knobs: the engine's settings, "2:1,17:4".
        workspace: bytes.
        seconds: to make it; the first one of a process opens cuDNN's libraries.
    """

    spec: str
    engine: int
    knobs: str
    workspace: int
    seconds: float

    @staticmethod
    def parse(line: str) -> LibraryPlan:
        """Return the plan that a line of the shim describes.

        Example:
            >>> LibraryPlan.parse("engine=28;knobs=2:1;workspace=64;microseconds=210;spec=conv2d-f32")
            LibraryPlan(spec='conv2d-f32', engine=28, knobs='2:1', workspace=64, seconds=0.00021)
        """
        head, _, spec = line.partition(";spec=")
        fields = {key: value for key, _, value in (p.partition("=") for p in head.split(";"))}
        seconds = int(fields["microseconds"]) / 1e6
        return LibraryPlan(spec, int(fields["engine"]), fields["knobs"], int(fields["workspace"]), seconds)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Preparation:
    """What loading did so that the first run need not.

    Attributes:
        seconds: of a run on zeros: libraries opened, plans made, kernels loaded.
        plans: made so far by the module's file in this process.
    """

    seconds: float
    plans: tuple[LibraryPlan, ...]


def plans_of(library: tvm_ffi.Module) -> tuple[LibraryPlan, ...]:
    """Return the plans that a loaded file with cuDNN in it has made in this process."""
    text = str(library.get_function(_PLANS)())
    return tuple(map(LibraryPlan.parse, text.splitlines()))
