"""A tuning run: layer by layer, the one first where a round is expected to save most, until time, trials or ideas run out."""

from __future__ import annotations

import itertools
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from convc.errors import TuningError
from convc.schedules.plan import Knobs
from convc.schedules.table import TEMPLATE
from convc.target import Target
from convc.toolchain import installed_version
from convc.tuning.buildable import build_seconds, buildable
from convc.tuning.calibration import Calibration
from convc.tuning.device import another_device, device_name, target_name
from convc.tuning.jobs import Answer, Build, Setup, Time
from convc.tuning.knowledge import matching, measurements, trials
from convc.tuning.layer import Layer
from convc.tuning.log import Log, read_log
from convc.tuning.options import Options
from convc.tuning.pool import Limits, Pool
from convc.tuning.record import Record, now
from convc.tuning.rpc import servers
from convc.tuning.search import Trial
from convc.tuning.seeds import seeds
from convc.tuning.setting import Key, Setting
from convc.tuning.tasks import Task
from convc.version import VERSION

__all__ = ["Session"]

_ROUNDS: Final = 3
_ROUND_SECONDS: Final = 0.003
# Slower than this after one round, a setting gets no second one.
_SLOW: Final = 1.25
_FINAL_ROUNDS: Final = 5
# A result this many times worse than the algorithm's expected error is wrong, not inexact; half types scale it.
_WRONG: Final = 16.0


@dataclass
class Session:
    """One run over some tasks.

    Attributes:
        layers: in the model's order.
        current: the layer that is being measured.
        building: how many settings of each algorithm are being built for it.
        counts: trials of this run by status.
        notes: sentences for the user.
    """

    tasks: Sequence[Task]
    target: Target
    log: Log
    limits: Calibration
    options: Options = field(default_factory=Options)
    layers: list[Layer] = field(init=False)
    current: Layer | None = None
    building: Counter[str] = field(default_factory=Counter)
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    device: str = ""
    _handles: itertools.count = field(default_factory=itertools.count, repr=False)
    _answers: dict[int, Answer] = field(default_factory=dict, repr=False)
    _settled: dict[tuple[str, Key], Knobs] = field(default_factory=dict, repr=False)
    _held: dict[tuple[str, Key], int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        policy, notes = buildable(self.options.policy, self.target, self.tasks)
        self.options = options = replace(self.options, policy=policy)
        self.device = self.device or device_name(self.target)
        contents = self.log.read()
        self.notes += [*notes, *contents.notes(self.log.path), *another_device(self.target)]
        mine, _ = matching(contents.records, self.target, device=self.device)
        known = [] if options.fresh else [r for r in mine if r.mode == options.mode]
        self.layers = [Layer.of(t, self.target, self.limits, options) for t in self.tasks]
        for layer in self.layers:
            key = layer.task.subject.key
            layer.search.known = trials(r for r in known if r.workload == key)
        given = () if options.warm_start is None else read_log(options.warm_start).records
        # A search is about times alone.
        alone = [r for r in (*mine, *given) if r.in_network is None]
        near, asked = measurements(alone), measurements(r for r in given if r.in_network is None)
        for layer in self.layers:
            # A layer that has begun goes on as if it had never stopped, whatever has become known of its neighbours; or one that is
            # done would begin anew each time that another has found something.
            best = asked if layer.search.known else near
            itself = options.warm_start is not None
            layer.search.seeds = seeds(layer.task.problem, best, itself=itself)
            layer.done = self._finished(layer)

    @staticmethod
    def _finished(layer: Layer) -> bool:
        return not layer.search.next() and not layer.search.rivals()

    # ---- the run ------------------------------------------------------------------------------------------------

    @property
    def spent(self) -> float:
        return time.monotonic() - self.began

    @property
    def trials(self) -> int:
        return sum(self.counts.values())

    def over(self) -> bool:
        """Whether the time or the trials of this run are used up."""
        options = self.options
        limit = options.search_seconds
        return (limit is not None and self.spent >= limit) or (
            options.trials is not None and self.trials >= options.trials
        )

    def run(self, changed: Callable[[], None] = lambda: None) -> None:
        """Tune until the budget or the ideas are used up; every answer is in the log when the next question is asked.

        Raises:
            TuningError: if the runner cannot be reached.
            KeyboardInterrupt: passed on; what was found is in the log.
        """
        if all(layer.done for layer in self.layers):
            return
        options = self.options
        remote = "" if options.runner == "local" else options.runner
        jobs = options.jobs
        if remote:
            if self.target.device is not None:
                raise TuningError(
                    f"runner must be 'local' for target {self.target}; got '{remote}'. Run `convc tune` on the device's machine."
                )
            free = servers(remote)
            if not free:
                raise TuningError(
                    f"runner must have a server; got none at {remote}. Start one with `convc rpc-server`."
                )
            jobs = min(jobs, free)
        reference = 0.0 if remote else self.limits.reference.get(self.target.cores, 0.0)
        setup = Setup(
            self.target,
            options.memory_bytes,
            options.initializer,
            remote,
            options.timeout,
            reference,
        )
        limits = Limits(build=2 * options.timeout, time=options.timeout)
        with Pool(setup, jobs, limits) as pool:
            while not self.over():
                open_layers = [layer for layer in self.layers if not layer.done]
                if not open_layers:
                    break
                layer = max(open_layers, key=lambda row: row.worth)
                if layer is not self.current:
                    pool.forget()
                    self.current = layer
                self._round(layer, pool, changed)
                layer.done = self._finished(layer)
                changed()

    def _round(self, layer: Layer, pool: Pool, changed: Callable[[], None]) -> None:
        """Measure the next settings of a layer, or, when there are none, its best ones in turns."""
        settings = layer.search.next()
        if self.options.trials is not None:
            settings = settings[: self.options.trials - self.trials]
        if settings:
            layer.rounds += 1
            for setting, handle in self._built(layer, settings, pool, changed):
                self._time(layer, setting, handle, pool)
                changed()
                if self.over():
                    return
            return
        self._final(layer, pool, changed)

    def _built(
        self, layer: Layer, settings: Sequence[Setting], pool: Pool, changed: Callable[[], None]
    ) -> list[tuple[Setting, int]]:
        """Build and check settings, record those that fail, and return the others with their handles."""
        handles = {next(self._handles): setting for setting in settings}
        jobs = [
            Build(h, layer.task.problem, self.target, s.algorithm, s.knobs, self.options.seed, build_seconds(s.algorithm, self.target))
            for h, s in handles.items()
        ]  # fmt: skip
        self.building = Counter(s.algorithm for s in settings)
        changed()
        good = []
        for handle, answer in pool.build(jobs, self.over).items():
            setting = handles[handle]
            if answer.status != "ok":
                self._keep(layer, setting, answer)
            elif answer.error > self._wrong(layer, setting):
                worst = f"error {answer.error:.2g} of the greatest result"
                self._keep(layer, setting, Answer("wrong", worst, answer.error, answer.seconds))
            else:
                self._answers[handle] = answer
                if answer.settled is not None:
                    self._settled[layer.task.subject.key, setting.key] = answer.settled
                good.append((setting, handle))
        self.building = Counter()
        changed()
        return good

    def _wrong(self, layer: Layer, setting: Setting) -> float:
        coarser = {"float16": 2**13, "bfloat16": 2**16, "float64": 1}
        return _WRONG * setting.error * coarser.get(layer.task.subject.dtype, 1)

    def _time(self, layer: Layer, setting: Setting, handle: int, pool: Pool) -> None:
        built = self._answers.pop(handle)
        if not pool.holds(handle):
            # The worker that had built it died over another setting; it comes again in a later round.
            return
        mode = self.options.mode
        answer = pool.time(Time(handle, 1, _ROUND_SECONDS, mode))
        samples = answer.samples
        best = layer.search.best
        if answer.status == "ok" and (best is None or samples[0] <= _SLOW * best[1]):
            answer = pool.time(Time(handle, _ROUNDS - 1, _ROUND_SECONDS, mode))
            samples += answer.samples
        merged = Answer(answer.status, answer.message, built.error, built.seconds, samples)
        self._keep(layer, setting, merged)
        self._held[layer.task.subject.key, setting.key] = handle

    def _final(self, layer: Layer, pool: Pool, changed: Callable[[], None]) -> None:
        """Measure the best settings once more, in turns, so that a change of the machine's clock is shared by all."""
        rivals, key = layer.search.rivals(), layer.task.subject.key
        held = {s.key: self._held.get((key, s.key), -1) for s in rivals}
        missing = [s for s in rivals if not pool.holds(held[s.key])]
        for setting, handle in self._built(layer, missing, pool, changed):
            self._answers.pop(handle)
            held[setting.key] = handle
        here = [s for s in rivals if pool.holds(held[s.key])]
        samples: dict[Key, list[float]] = {s.key: [] for s in here}
        for _ in range(_FINAL_ROUNDS):
            for setting in here:
                if pool.holds(held[setting.key]):
                    answer = pool.time(Time(held[setting.key], 1, _ROUND_SECONDS, self.options.mode))  # fmt: skip
                    samples[setting.key] += answer.samples
        for setting in rivals:
            trial = layer.search.known[setting.key]
            times = tuple(samples.get(setting.key, ()))
            if times:
                answer = Answer("ok", "", trial.error, 0.0, times)
                self._keep(layer, setting, answer, final=True)
            else:
                # It died in between: its first time stands, as final as it gets.
                layer.search.known[setting.key] = Trial(trial.seconds, trial.error, final=True)

    def _keep(self, layer: Layer, setting: Setting, answer: Answer, *, final: bool = False) -> None:
        """Write a trial to the log, then believe it."""
        record = self._record(layer, setting, answer, setting.knobs, final=final)
        records = [record]
        settled = self._settled.get((record.workload, setting.key))
        if final and settled is not None and settled != setting.knobs:
            # The same measurement under the name of what was measured: a plan with this one searches nothing where it runs.
            records.append(self._record(layer, setting, answer, settled, final=True))
        self.log.append(records)
        self.counts[answer.status] = self.counts.get(answer.status, 0) + 1
        layer.counts[answer.status] = layer.counts.get(answer.status, 0) + 1
        trial = Trial(record.seconds if answer.status == "ok" else None, record.error, final)
        layer.search.known[setting.key] = trial

    def _record(
        self, layer: Layer, setting: Setting, answer: Answer, knobs: Knobs, *, final: bool
    ) -> Record:
        return Record(
            workload=layer.task.subject.key,
            threads=self.target.cores,
            target=target_name(self.target),
            device=self.device,
            template=TEMPLATE,
            algorithm=setting.algorithm,
            knobs=dict(knobs),
            status=answer.status,
            seconds=statistics.median(answer.samples) if answer.status == "ok" else 0.0,
            samples=tuple(float(f"{s:.4g}") for s in answer.samples),
            error=answer.error if answer.error < float("inf") else -1.0,
            mode=self.options.mode,
            final=final,
            message=answer.message,
            build_seconds=round(answer.seconds, 3),
            at=now(),
            versions={"convc": VERSION, "tvm": installed_version("apache-tvm") or ""},
        )
