"""Our best records as a database of TVM's MetaSchedule, two files of JSON lines, and such a database as settings to try first.

A record there has five parts; ours fill them so:

    workload    the tensor expression of the algorithm with these knobs, not scheduled, as an IRModule with the function "main"; its
                attribute `convc.setting` says which layer, algorithm and knobs it is
    trace       the steps of our schedule; applied to the workload they give our loops
    run_secs    what `convc tune` measured, of our kernel: with prefetches and programs of transforms, which no trace holds
    target      TVM's, `num-cores` is the number of threads
    args_info   shapes and types of the function's parameters: data and weights in our blocks

Imported records are of the device "imported from metaschedule", which no machine is: whatever time they claim, they are never chosen, and
`convc tune --warm-start` measures their settings before all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import tvm
import tvm_ffi
from tvm import te

from convc.errors import ConvcError, TuningError
from convc.schedules.algorithm import KIND, SEPARATOR, Problem
from convc.schedules.backend import backend_of
from convc.schedules.dual import posed
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.table import TEMPLATE
from convc.schedules.tracing import recorded
from convc.target import Target, parse_target
from convc.tuning.care import Best
from convc.tuning.device import target_name
from convc.tuning.record import Record

__all__ = ["IMPORTED", "Passed", "Traced", "export_database", "import_database", "traced"]

IMPORTED: Final = "imported from metaschedule"

_FILES: Final = ("database_workload.json", "database_tuning_record.json")
_SETTING: Final = "convc.setting"
# MetaSchedule notes this much for a kernel that failed.
_FAILED: Final = 1e9


class _Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What a workload's attribute says."""

    workload: str
    algorithm: str
    knobs: dict[str, int]
    template: int
    error: float


@dataclass(frozen=True)
class Traced:
    """A setting in TVM's terms: the module before its schedule, and the schedule."""

    mod: tvm.IRModule
    schedule: Any

    @property
    def steps(self) -> str:
        """The trace as text; names of loops and blocks are numbered in order, so equal steps are equal texts."""
        return str(self.schedule.trace)


@dataclass
class Passed:
    """How many records went through, and why the others did not: reason -> how many."""

    records: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        rest = ", ".join(f"{n} {why}" for why, n in self.left_out.most_common())
        return f"{self.records} settings" + (f"; left out: {rest}" if rest else "")


def traced(problem: Problem, target: Target, algorithm: str, knobs: Knobs) -> Traced | Unsupported:
    """Return a setting's tensor expression and the trace of its schedule, or why TVM's records cannot hold it.

    Example:
        >>> from convc.ir.spec import ConvSpec
        >>> problem, target = Problem(ConvSpec.of((1, 16, 6, 6), (16, 16, 3, 3))), parse_target("llvm", "x86-64-v3")
        >>> direct = backend_of(target).algorithm("direct")
        >>> made = traced(problem, target, "direct", direct.knobs(problem, target))
        >>> "decompose_reduction" in made.steps
        True
    """
    backend = backend_of(target)
    row = backend.algorithm(algorithm)
    solved = posed(problem, row, target)
    if isinstance(solved, Unsupported):
        return solved
    if solved.stored:
        return Unsupported("of half types, which our kernels widen behind the schedule")
    used = {**knobs, **backend.threads(lambda t: row.cycles(solved, t, knobs), target)}
    func = te.create_prim_func(list(row.compute(solved, target, used)))
    with recorded() as schedules:
        backend.schedules[algorithm](func, used, target)
    if len(schedules) != 1:
        return Unsupported(f"of {algorithm}, a call of a library")
    mod = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
    return Traced(mod, schedules[0])


def export_database(
    rows: Sequence[Best], folder: Path, progress: Callable[[int, int], None] = lambda done, of: None
) -> Passed:
    """Write the best settings as a new database.

    Args:
        rows: from `care.best_of`.
        folder: made if it is not there.
        progress: called with (settings done, settings).

    Raises:
        TuningError: if the folder has a database already.
    """
    for name in _FILES:
        if (folder / name).exists():
            raise TuningError(f"output must be a folder without a database; got '{folder}' with {name}. Name another one.")  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    database, passed = _database(folder), Passed()
    for number, row in enumerate(rows):
        progress(number, len(rows))
        target = _target(row.target, row.threads)
        if SEPARATOR in row.workload:
            made = Unsupported("of several layers in one kernel")
        elif KIND in row.workload:
            made = Unsupported("of weight gradients")
        else:
            made = traced(Problem.parse(row.workload), target, row.algorithm, row.knobs)
        if isinstance(made, Unsupported):
            passed.left_out[made.reason] += 1
            continue
        _commit(database, row, made, target)
        passed.records += 1
    progress(len(rows), len(rows))
    return passed


def _commit(database: Any, row: Best, made: Traced, target: Target) -> None:
    from tvm.s_tir.meta_schedule.arg_info import ArgInfo
    from tvm.s_tir.meta_schedule.database import TuningRecord

    setting = _Setting(
        workload=row.workload,
        algorithm=row.algorithm,
        knobs=dict(sorted(row.knobs.items())),
        template=TEMPLATE,
        error=row.error,
    )
    func = made.mod["main"].with_attr(_SETTING, msgspec.json.encode(setting).decode())
    workload = database.commit_workload(tvm.IRModule({"main": func}))
    info = ArgInfo.from_prim_func(func)
    record = TuningRecord(made.schedule.trace, workload, [row.seconds], target.tvm(), info)
    database.commit_tuning_record(record)


def import_database(folder: Path) -> tuple[list[Record], Passed]:
    """Return the records of a database that are of our settings, as ones to try first and never to choose by.

    A record is ours if its workload says a setting and both the expression and the steps are what that setting gives here.

    Raises:
        TuningError: if there is no database that TVM can read.
    """
    for name in _FILES:
        if not (folder / name).is_file():
            raise TuningError(f"database must be a folder with {' and '.join(_FILES)}; got '{folder}' without {name}.")  # fmt: skip
    try:
        rows = _database(folder).get_all_tuning_records()
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        last = [line.strip() for line in str(error).splitlines() if line.strip()][-1:]
        raise TuningError(f"database must be one that TVM can read; got '{folder}': {''.join(last)}.") from None  # fmt: skip
    found, passed = [], Passed()
    for row in rows:
        record = _ours(row)
        if isinstance(record, Unsupported):
            passed.left_out[record.reason] += 1
        else:
            found.append(record)
    passed.records = len(found)
    return found, passed


def _ours(row: Any) -> Record | Unsupported:
    """Return a database's record as one of ours, or why it is not."""
    main = next((f for _, f in row.workload.mod.functions_items()), None)
    text = main.attrs.get(_SETTING) if main is not None and main.attrs else None
    if main is None or text is None:
        return Unsupported("of workloads that convc did not write")
    try:
        setting = msgspec.json.decode(str(text), type=_Setting)
    except msgspec.MsgspecError:
        return Unsupported("of workloads that convc did not write")
    if setting.template != TEMPLATE:
        return Unsupported("of other versions of the schedules")
    seconds = min((float(s) for s in row.run_secs or ()), default=_FAILED)
    if not 0 < seconds < _FAILED:
        return Unsupported("without a time")
    target = _target_of_tvm(row.target)
    if target is None:
        return Unsupported("of targets that convc does not have")
    try:
        made = traced(Problem.parse(setting.workload), target, setting.algorithm, setting.knobs)
    except (ConvcError, KeyError):
        return Unsupported("of settings that convc does not have")
    if isinstance(made, Unsupported):
        return made
    stripped = main.without_attr(_SETTING)
    same = tvm_ffi.structural_equal(made.mod["main"], stripped) and str(row.trace) == made.steps
    if not same:
        return Unsupported("with other steps than convc's")
    return Record(
        workload=setting.workload,
        threads=target.cores,
        target=target_name(target),
        device=IMPORTED,
        template=TEMPLATE,
        algorithm=setting.algorithm,
        knobs=setting.knobs,
        status="ok",
        seconds=seconds,
        samples=(seconds,),
        error=setting.error,
    )


def _database(folder: Path) -> Any:
    # Imported here: nobody else needs it, and it is half of MetaSchedule.
    from tvm.s_tir.meta_schedule.database import JSONDatabase

    return JSONDatabase(*(str(folder / name) for name in _FILES))


def _target(name: str, threads: int) -> Target:
    """Return the target that `target_name` named."""
    kind, *words = name.split()
    if kind == "llvm":
        return parse_target("llvm", words[1], threads, mtriple=words[0])
    return parse_target(f"{kind} -arch={words[0]}", cores=threads)


def _target_of_tvm(target: Any) -> Target | None:
    said = dict(target.export())
    try:
        if said["kind"] == "llvm":
            cores = int(said.get("num-cores", 1))
            return parse_target("llvm", str(said["mcpu"]), cores, mtriple=str(said["mtriple"]))
        return parse_target(f"cuda -arch={said['arch']}")
    except (ConvcError, KeyError):
        return None
