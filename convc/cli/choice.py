"""The flags that say how algorithms are chosen, shared by the verbs that choose."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convc.cli.parameters import parse_bytes

if TYPE_CHECKING:
    from convc.schedules.policy import Policy

__all__ = [
    "AlgosOption",
    "CudnnOption",
    "CudnnUse",
    "DeterministicOption",
    "FallbackOption",
    "LogOption",
    "MaxErrorOption",
    "PolicyOption",
    "PreferOption",
    "RequireOption",
    "WhenOption",
    "WorkspaceOption",
    "parse_policy",
]

AlgosOption = Annotated[str, typer.Option("--algos", metavar="+A,-B", help="Algorithms to choose among: `-fft` leaves one out, `direct,winograd` are the only ones.")]  # fmt: skip
PolicyOption = Annotated[str, typer.Option("--policy", metavar="time|heuristic", help="Choose by tuned records where there are any, or by the cost model alone.")]  # fmt: skip
WhenOption = Annotated[str, typer.Option("--when", metavar="once|per_shape", help="Whether a record of a like shape counts, or this very shape's alone.")]  # fmt: skip
RequireOption = Annotated[list[str] | None, typer.Option("--require", metavar="ALGO", help="Use it wherever it applies; repeatable.", show_default=False)]  # fmt: skip
PreferOption = Annotated[list[str] | None, typer.Option("--prefer", metavar="ALGO", help="Use it where it is at most 10 % slower than the fastest; repeatable.", show_default=False)]  # fmt: skip
FallbackOption = Annotated[bool, typer.Option("--fallback/--no-fallback", help="Beside cuDNN's calls put convc's own kernel, which runs where a device's cuDNN is missing or refuses the layer; not where a pin, --algo or --cudnn require asks for cuDNN. Costs the layer's weights a second time where they are packed otherwise, and some of the arena.")]  # fmt: skip
DeterministicOption = Annotated[bool, typer.Option("--deterministic", help="Only algorithms that give the same bits at every run.")]  # fmt: skip
WorkspaceOption = Annotated[str | None, typer.Option("--workspace-limit", metavar="256M", help="What a layer may need beyond data, weights and result.", show_default=False)]  # fmt: skip
MaxErrorOption = Annotated[float | None, typer.Option("--max-error", min=0, help="Greatest expected |error| / greatest |result| of a layer.", show_default=False)]  # fmt: skip
LogOption = Annotated[list[Path] | None, typer.Option("--log", metavar="FILE.jsonl", help="Tuning log to choose by, instead of this device's own; repeatable.", show_default=False)]  # fmt: skip


class CudnnUse(StrEnum):
    """Typer shows an enum's values as the flag's choices."""

    AUTO = "auto"
    OFF = "off"
    PREFER = "prefer"
    REQUIRE = "require"


CudnnOption = Annotated[CudnnUse, typer.Option("--cudnn", help="cuDNN on CUDA targets: nowhere; for convolutions, pools and softmax wherever it applies; or for every convolution, or an error, and for the others where it applies; auto: where a tuned record, a pin or the policy asks for it.")]  # fmt: skip


def parse_policy(
    algos: str = "",
    policy: str = "time",
    when: str = "once",
    require: list[str] | None = None,
    prefer: list[str] | None = None,
    deterministic: bool = False,
    workspace_limit: str | None = None,
    max_error: float | None = None,
    fallback: bool = True,
) -> Policy:
    """Return the policy that the flags make.

    Raises:
        InvalidKnobsError: for a value that a policy cannot have.
    """
    from convc.schedules.policy import Policy

    return Policy(
        by=policy,  # type: ignore[arg-type]
        when=when,  # type: ignore[arg-type]
        deterministic=deterministic,
        workspace_limit=None if workspace_limit is None else parse_bytes(workspace_limit),
        max_error=max_error,
        require=tuple(require or ()),
        prefer=tuple(prefer or ()),
        fallback=fallback,
    ).with_algorithms(algos)
