"""A job: one module of convolutions or of a network, with what is needed to judge and time it. Plain data, written beside the module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import msgspec
import numpy as np

from convc.ir import ConvSpec
from convc.ir.types import numpy_dtype
from convc.schedules.error_bound import result_rounding

__all__ = ["STARTED", "Case", "Job", "arrays", "beyond_rounding", "jobs_in", "worst_error"]

Part: TypeAlias = Literal[
    "calls", "refusals", "grid", "gradients", "layers", "bytes", "models", "compiled"
]
SUFFIX: Final = ".job.json"
STARTED: Final = ".started"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One convolution by one algorithm with given knobs.

    Attributes:
        key: the convolution's, as `ConvSpec.parse` reads it.
        algorithm, knobs: how.
        step: symbol of its kernel, which the module's manifest lists.
        estimate: the analytic model's, in seconds.
        default: whether it is what convc takes without measurements.
        fed: whether the weights are an input of the module, as a training step's are, and packed on the device.
    """

    key: str
    algorithm: str
    knobs: dict[str, int]
    step: str = ""
    estimate: float = 0.0
    default: bool = False
    fed: bool = False

    @property
    def spec(self) -> ConvSpec:
        return ConvSpec.parse(self.key)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One module and its cases.

    Attributes:
        name: also its files' stem.
        part: what is asked: calls of an external library, what is done where it refuses, right results, weight gradients, times of a
            layer, of a layer of bytes, a whole network, the same by torch.compile, which has no module.
        cases: in the order of the module's outputs y0, y1, ...; none for a network.
        model: the zoo's name of a network.
        batch, dtype: of the network; "float32" or "float16".
        library: of a network, that computes what it applies to; of a refusal, what convc does about it; of
            a network by torch.compile, what that may do; "" otherwise.
        tolerance: of a network's greatest error, by its greatest result.
        sm: what the module was built for.
        turn: jobs with less run first.
    """

    name: str
    part: Part
    cases: tuple[Case, ...] = ()
    model: str = ""
    batch: int = 1
    dtype: str = "float32"
    library: str = ""
    tolerance: float = 0.0
    sm: str = ""
    turn: int = 0

    def module(self, folder: Path) -> Path:
        """Return the module's file."""
        return folder / f"{self.name}.so"

    def expected(self, folder: Path) -> Path:
        """Return the file with a network's input and its float64 result."""
        return folder / f"{self.name}.npz"

    def mark(self, folder: Path) -> Path:
        """Return the file that is there while the job runs; as old as what counts towards the job's limit."""
        return folder / "results" / f"{self.name}{STARTED}"

    def write(self, folder: Path) -> None:
        """Write the job, last of its files: a job that is there is complete."""
        text = msgspec.json.format(msgspec.json.encode(self), indent=1)
        (folder / f"{self.name}{SUFFIX}").write_bytes(text)


def jobs_in(folder: Path) -> Iterator[Job]:
    """Yield the jobs of a folder in their turn: right results first, then layers, then networks."""
    jobs = [
        msgspec.json.decode(p.read_bytes(), type=Job) for p in sorted(folder.glob(f"*{SUFFIX}"))
    ]
    yield from sorted(jobs, key=lambda job: (job.turn, get_args(Part).index(job.part)))


def arrays(case: Case, index: int, exact: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return data and weights of a case: small whole numbers, or normal ones; the weights are the same in both.

    Weights are whole numbers, so that builder and device make them from the same seed without a file.
    """
    spec = case.spec
    rng = np.random.default_rng(index)
    dtype = numpy_dtype(spec.dtype)
    weight = rng.integers(-4, 5, spec.weight).astype(dtype)
    data = rng.integers(-4, 5, spec.data) if exact else rng.standard_normal(spec.data)
    return data.astype(dtype), weight


def beyond_rounding(error: np.ndarray, expected: np.ndarray, dtype: str) -> float:
    """Return the greatest error by the greatest result, as tuning records have it: what the type's last rounding accounts for is none.

    Example:
        >>> beyond_rounding(np.array([2.0**-12, 3 * 2.0**-12]), np.array([1.0, 1.0]), "float16") == 2.0**-12
        True
    """
    more = np.maximum(error - result_rounding(dtype) * np.abs(expected), 0.0)
    return float(more.max(initial=0.0) / max(np.abs(expected).max(initial=0.0), 1e-30))


def worst_error(results: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the greatest error of pairs of a result and what it must be, each by its greatest value; NaN if one is NaN.

    Python's `max` would pass over a NaN: every comparison with it is false.
    """
    errors = [np.max(np.abs(found - wanted)) / np.max(np.abs(wanted)) for found, wanted in results]
    return float(np.max(errors))
