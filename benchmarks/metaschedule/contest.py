"""One layer: both tuners have their time, one after the other; then both winners are timed in turns, by the same clock."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import tvm

from benchmarks.layer_list import Layer
from benchmarks.metaschedule.search import DATABASE, PROGRESS, build_like_metaschedule
from benchmarks.metaschedule.workload import Workload
from convc.errors import InputError, TuningError
from convc.tuning.calibration import Calibration
from convc.tuning.kernel import TimedKernel
from convc.tuning.log import Log
from convc.tuning.options import Options
from convc.tuning.place import Launch, LocalPlace, Place, place_of
from convc.tuning.session import Session
from convc.tuning.subjects import Case, subject_of
from convc.tuning.tasks import Task

__all__ = ["Contest", "Side", "best_of_metaschedule", "contest"]

_ROUNDS: Final = 24
_ROUND_SECONDS: Final = 0.003
_WRONG: Final = 1e-3
_START_SECONDS: Final = 180.0
# What MetaSchedule notes of a kernel that failed is 1e10 s.
_FAILED: Final = 1e9
# The three best of its records are timed again, as convc's tuner does with its own.
_RIVALS: Final = 3
_NOTHING: Final = "nothing was measured in its time"


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What one tuner found.

    Attributes:
        seconds: a call of its best kernel, timed in turns with the other's, weights from memory; None if there is none.
        tuning_seconds: what the search took, the start of its processes included for convc and not for MetaSchedule.
        trials, failed: measurements.
        algorithm: of the best.
        error: greatest |error| / greatest |result|.
        progress: (seconds of search, least time that it had measured by then), where known.
        message: why there is no kernel.
    """

    seconds: float | None
    tuning_seconds: float
    trials: int
    failed: int
    algorithm: str
    error: float
    progress: tuple[tuple[float, float], ...] = ()
    message: str = ""


class Contest(msgspec.Struct, frozen=True, kw_only=True):
    """One layer's two sides."""

    layer: str
    kind: str
    key: str
    convc: Side
    metaschedule: Side

    @property
    def speedup(self) -> float | None:
        """MetaSchedule's best time / convc's."""
        ours, theirs = self.convc.seconds, self.metaschedule.seconds
        return theirs / ours if ours and theirs else None

    @property
    def share(self) -> float:
        """The time of convc's tuning / MetaSchedule's."""
        return self.convc.tuning_seconds / self.metaschedule.tuning_seconds


def contest(
    layer: Layer, limits: Calibration, *, threads: int, seconds: float, share: float, batch: int, seed: int,
    progress: Callable[[str], None],
) -> Contest:  # fmt: skip
    """Return what both tuners find for a layer.

    Args:
        layer: which.
        limits: the machine's.
        threads: of kernels, and of MetaSchedule's search.
        seconds: MetaSchedule's time, from when its search begins.
        share: convc's time as a part of that.
        batch: candidates of one round of MetaSchedule's search.
        seed: of both.
        progress: told what is going on.

    Raises:
        InputError: if XGBoost is not installed, which MetaSchedule's cost model is.
    """
    workload = Workload.of(layer.spec.key, threads)
    case = subject_of(workload.problem).case(seed)
    with tempfile.TemporaryDirectory(prefix="convc-metaschedule-") as name:
        folder = Path(name)
        progress(f"{layer.name}: convc")
        session = Session(
            [Task(workload.problem, (layer.name,))],
            workload.target,
            Log(folder / "log.jsonl"),
            limits,
            Options(seconds=seconds * share, jobs=1, seed=seed),
        )
        began = time.monotonic()
        session.run()
        spent = time.monotonic() - began
        progress(f"{layer.name}: MetaSchedule, {seconds:.0f} s")
        searched = _search(workload, folder, threads, seconds, batch, seed)
        ours = _ours(session, case, workload, folder)
        theirs, why = best_of_metaschedule(case, workload, folder)
        place = place_of(workload.target, reference=limits.reference.get(threads, 0.0))
        times = _in_turns([*([ours] if ours else []), *theirs], place)
    failed = session.trials - session.counts.get("ok", 0)
    best = session.layers[0].search.best
    return Contest(
        layer=layer.name,
        kind=layer.kind,
        key=layer.spec.key,
        convc=Side(
            seconds=times.get("convc"),
            tuning_seconds=spent,
            trials=session.trials,
            failed=failed,
            algorithm=best[0].algorithm if best else "",
            error=ours.error if ours else -1.0,
            message="" if ours else "nothing was measured",
        ),
        metaschedule=Side(
            seconds=times.get("metaschedule"),
            tuning_seconds=searched[-1]["seconds_spent"],
            trials=searched[-1]["trials"],
            failed=searched[-1]["failed"],
            algorithm=workload.algorithm.name,
            error=max((k.error for k in theirs), default=-1.0),
            progress=tuple((row["seconds"], row["best"]) for row in searched if row["best"]),
            message=why,
        ),
    )


class _Kernel(msgspec.Struct, frozen=True):
    """A winner, built and checked."""

    name: str
    launch: Any
    error: float


def _search(
    workload: Workload, folder: Path, threads: int, seconds: float, batch: int, seed: int
) -> list[dict[str, Any]]:
    """Run MetaSchedule for its time and return its progress, the last row with the seconds that it had."""
    command = [sys.executable, "-m", "benchmarks.metaschedule.search", workload.problem.spec.key, str(folder),
               "--threads", str(threads), "--batch", str(batch), "--seed", str(seed)]  # fmt: skip
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"TVM_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)])}  # fmt: skip
    log, path = folder / "search.log", folder / PROGRESS
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        try:
            begin = time.monotonic()
            while not path.exists() and process.poll() is None and time.monotonic() - begin < _START_SECONDS:  # fmt: skip
                time.sleep(0.1)
            begin = time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            spent = time.monotonic() - begin
        finally:
            process.kill()
            process.wait()
    text = log.read_text(errors="replace")
    if "No module named 'xgboost'" in text:
        raise InputError("MetaSchedule must have the package 'xgboost', its cost model; got no such module. `pip install convc[metaschedule]`.")  # fmt: skip
    if not path.exists():
        last = text.strip().splitlines()[-1:] or ["no message"]
        raise TuningError(f"MetaSchedule must begin its search; got exit code {process.returncode}: {last[0]}.")  # fmt: skip
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    rows[-1]["seconds_spent"] = spent
    return rows


def _ours(session: Session, case: Case, workload: Workload, folder: Path) -> _Kernel | None:
    best = session.layers[0].search.best
    if best is None:
        return None
    setting, place = best[0], LocalPlace()
    kernel = TimedKernel(case, workload.target, setting.algorithm, setting.knobs, place, folder)
    error = kernel.check()
    return _Kernel("convc", kernel.launch, error)


def best_of_metaschedule(case: Case, workload: Workload, folder: Path) -> tuple[list[_Kernel], str]:
    """Return MetaSchedule's best kernels, or why there are none."""
    from tvm.s_tir.meta_schedule.database import JSONDatabase

    paths = [folder / name for name in DATABASE]
    if not all(path.is_file() for path in paths):
        return [], _NOTHING
    # The process may have been ended in the middle of a line.
    whole = paths[1].read_bytes().rpartition(b"\n")
    paths[1].write_bytes(whole[0] + whole[1])
    records = JSONDatabase(*map(str, paths)).get_all_tuning_records()
    timed = [(min(map(float, r.run_secs)), r) for r in records if r.run_secs]
    best = sorted((row for row in timed if row[0] < _FAILED), key=lambda row: row[0])[:_RIVALS]
    kernels = []
    for number, (_, record) in enumerate(best):
        schedule = tvm.s_tir.Schedule(record.workload.mod)
        record.trace.apply_to_schedule(schedule, remove_postproc=False)
        library = folder / f"metaschedule{number}.so"
        build_like_metaschedule(schedule.mod, workload.target.tvm()).export_library(str(library))
        kernels.append(_loaded(case, workload, library))
    wrong = [k.error for k in kernels if k.error > _WRONG]
    if wrong:
        return [], f"a kernel of its best is wrong: error {wrong[0]:.2g} of the greatest result"
    return kernels, "" if kernels else _NOTHING


def _loaded(case: Case, workload: Workload, library: Path) -> _Kernel:
    """Return a built kernel of the workload, run once and compared."""
    place = LocalPlace()
    ready = case.ready(workload.target, workload.algorithm.name, workload.knobs)
    arguments = [place.tensor(array) for array in ready.arrays]
    module = place.load(library)
    module["main"](*arguments)
    error = case.error(arguments[-1].numpy(), ready.block)
    weights = {at: ready.arrays[at] for at in ready.weights}
    return _Kernel("metaschedule", Launch(module, "main", arguments, weights), error)


def _in_turns(kernels: list[_Kernel], place: Place) -> dict[str, float]:
    """Return each name's time, of its best kernel's median over rounds that the kernels take turns in."""
    samples: list[list[float]] = [[] for _ in kernels]
    for _ in range(_ROUNDS):
        for kernel, own in zip(kernels, samples, strict=True):
            own += place.time(kernel.launch, 1, _ROUND_SECONDS, "cold")
    times: dict[str, float] = {}
    for kernel, own in zip(kernels, samples, strict=True):
        times[kernel.name] = min(times.get(kernel.name, float("inf")), statistics.median(own))
    return times
