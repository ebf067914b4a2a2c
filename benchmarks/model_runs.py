"""One model with one number of threads: every engine loaded, its outputs compared, then all timed in rotation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec
import numpy as np

from benchmarks.interleave import Contestant, Timing, interleave
from benchmarks.machine_pace import machine_reference
from benchmarks.onnx_file import OnnxFile
from benchmarks.ours import CONVC
from benchmarks.peers import Array, Infer, Peer, peers_named
from convc.errors import ConvcError
from convc.inputs import random_inputs

__all__ = ["ModelResult", "Say", "compare", "largest_error", "ratios"]

Say: TypeAlias = Callable[[str], None]

_REFERENCE: Final = "onnxruntime"
# A wrong conversion is off by the size of the outputs themselves; float32 rounding through fifty layers by 1e-4 of the maximum at most.
_WRONG: Final = 1e-2
_NOISY: Final = 0.05
_SLOW: Final = 1.15


class ModelResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one comparison found; engines by name, "convc" among them.

    Attributes:
        ms: median time of a call, in milliseconds, of every engine that runs, wrong or right; of calls that the machine did not slow
            down, where there are such.
        fastest_ms: of the fastest call; on a busy machine it says more than the median.
        spread: half the distance between the quartiles, relative to the median.
        calls: how many were timed.
        ratio: convc's time / the peer's, where both are right: below 1, convc is faster.
        best_peer: the fastest peer whose outputs are right; None if there is none.
        ratio_to_best: convc's time / the fastest peer's; None if either failed.
        max_error: convc's largest difference from onnxruntime, relative to the output's maximum; None without onnxruntime.
        max_errors: the same for every engine.
        errors: why an engine has no time, or one that does not count.
        warnings: why a time may mislead.
    """

    model: str
    threads: int
    ms: dict[str, float]
    fastest_ms: dict[str, float]
    spread: dict[str, float]
    calls: dict[str, int]
    ratio: dict[str, float]
    best_peer: str | None
    ratio_to_best: float | None
    max_error: float | None
    max_errors: dict[str, float]
    errors: dict[str, str]
    warnings: tuple[str, ...] = ()


def largest_error(outputs: Sequence[Array], reference: Sequence[Array]) -> float:
    """Return the largest difference, relative to the largest value of the output it is in; infinity if sizes differ or a value is NaN.

    Shapes are not compared: an engine without a batch axis returns the same values in another shape.

    Example:
        >>> largest_error([np.array([1.0, 3.0])], [np.array([1.0, 4.0])])
        0.25
    """
    if len(outputs) != len(reference):
        return float("inf")
    worst = 0.0
    for output, expected in zip(outputs, reference, strict=True):
        if output.size != expected.size:
            return float("inf")
        wanted = expected.astype(np.float64).reshape(-1)
        with np.errstate(invalid="ignore"):  # inf - inf is NaN, and counts as infinitely wrong
            error = np.abs(output.astype(np.float64).reshape(-1) - wanted).max(initial=0.0)
        relative = float(error / (np.abs(wanted).max(initial=0.0) or 1.0))
        worst = max(worst, relative if np.isfinite(relative) else float("inf"))
    return worst


def ratios(
    ms: Mapping[str, float], wrong: Collection[str] = ()
) -> tuple[dict[str, float], str | None, float | None]:
    """Return (convc / each peer, the fastest peer, convc / the fastest peer); engines in `wrong` do not count.

    Example:
        >>> ratios({"convc": 6.0, "mnn": 8.0, "ncnn": 12.0})
        ({'mnn': 0.75, 'ncnn': 0.5}, 'mnn', 0.75)
    """
    right = {name: time for name, time in ms.items() if name not in wrong}
    ours = right.pop(CONVC.name, None)
    best = min(right, key=lambda name: right[name], default=None)
    if ours is None:
        return {}, best, None
    ratio = {name: ours / time for name, time in right.items()}
    return ratio, best, None if best is None else ratio[best]


def _open_all(
    model: OnnxFile, engines: Sequence[Peer], threads: int, inputs: Sequence[Array], say: Say
) -> tuple[dict[str, Infer], dict[str, Sequence[Array]], dict[str, str]]:
    """Return what runs, the outputs of the first runs, and why the others do not run."""
    running: dict[str, Infer] = {}
    outputs: dict[str, Sequence[Array]] = {}
    errors: dict[str, str] = {}
    for engine in engines:
        say(f"load {engine.name}")
        try:
            running[engine.name], outputs[engine.name] = engine.open(model, threads, inputs)
        except ConvcError as error:
            errors[engine.name] = "\n".join((str(error), *getattr(error, "__notes__", ())))
    return running, outputs, errors


def _reference(
    model: OnnxFile, outputs: Mapping[str, Sequence[Array]], inputs: Sequence[Array]
) -> Sequence[Array] | None:
    """Return onnxruntime's outputs, also where it is not among those timed; None if it does not run."""
    if _REFERENCE in outputs:
        return outputs[_REFERENCE]
    try:
        return peers_named([_REFERENCE])[0].open(model, 1, inputs)[1]
    except ConvcError:
        return None


def compare(
    model: OnnxFile,
    peers: Sequence[Peer],
    threads: int,
    *,
    rounds: int = 10,
    seed: int = 0,
    say: Say = lambda text: None,
) -> ModelResult:
    """Return how convc and its peers do on one model.

    Args:
        model: the same file for all.
        peers: their rows.
        threads: for every engine.
        rounds: of blocks, see `benchmarks.interleave`.
        seed: of inputs and order.
        say: is told what is being done.
    """
    inputs = list(random_inputs(model.inputs, seed).values())
    running, outputs, errors = _open_all(model, (CONVC, *peers), threads, inputs, say)
    reference = _reference(model, outputs, inputs)
    max_errors: dict[str, float] = {}
    if reference is not None:
        max_errors = {name: largest_error(given, reference) for name, given in outputs.items()}
    wrong = {name: error for name, error in max_errors.items() if error > _WRONG}
    for name, error in wrong.items():
        errors[name] = (
            f"{name} must agree with {_REFERENCE} within {_WRONG:g} of the output's maximum; got {error:.2g}. "
            "Its time is shown but not compared."
        )
    timings = interleave(
        [Contestant(name, lambda infer=infer: infer(inputs)) for name, infer in running.items()],
        rounds,
        seed=seed,
        reference=machine_reference(threads),
        progress=lambda done, total: say(f"round {done + 1} of {total}"),
    )
    ms = {name: 1e3 * timing.median for name, timing in timings.items()}
    ratio, best, ratio_to_best = ratios(ms, wrong)
    return ModelResult(
        model=model.name,
        threads=threads,
        ms=ms,
        fastest_ms={name: 1e3 * min(timing.samples) for name, timing in timings.items()},
        spread={name: timing.spread for name, timing in timings.items()},
        calls={name: len(timing.samples) for name, timing in timings.items()},
        ratio=ratio,
        best_peer=best,
        ratio_to_best=ratio_to_best,
        max_error=max_errors.get(CONVC.name),
        max_errors=max_errors,
        errors=errors,
        warnings=tuple(_warnings(timings.values())),
    )


def _warnings(timings: Iterable[Timing]) -> list[str]:
    """Return why a time may mislead, one sentence each."""
    texts = []
    for timing in timings:
        if timing.spread > _NOISY:
            texts.append(
                f"{timing.name} varies by {100 * timing.spread:.0f} % (half the quartiles' distance); quiet is below {100 * _NOISY:.0f} %."
            )
        if timing.pace > _SLOW:
            texts.append(f"{timing.name} was measured on a machine that was up to {timing.pace:.1f} times slower than at its best.")  # fmt: skip
        if not timing.always_idle:
            texts.append(f"before {timing.name} the process did not become idle; other pools spin.")
    return texts
