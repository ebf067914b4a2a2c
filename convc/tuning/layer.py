"""One layer in a tuning run: its search, what it has gained, and what another round of it is worth."""

from __future__ import annotations

from dataclasses import dataclass, field

from convc.target import Target
from convc.tuning.calibration import Calibration
from convc.tuning.options import Options
from convc.tuning.search import Search
from convc.tuning.setting import Setting
from convc.tuning.subjects import Subject
from convc.tuning.tasks import Task

__all__ = ["Layer", "roofline_of"]

# What a first round gains on average over the analytic choice, and each later one of what is left; they only order the layers.
_FIRST_GAIN, _LATER_GAIN = 0.3, 0.1


def roofline_of(
    subject: Subject, target: Target, settings: list[Setting], limits: Calibration
) -> float:
    """Return the seconds that no setting can beat: the least arithmetic at the machine's peak, or all bytes once."""
    flops = min((s.flops for s in settings), default=float(subject.flops))
    l2_bytes = target.l2_bytes if target.device is None else target.device.l2_bytes
    return limits.roofline(flops, subject.nbytes, target.cores, l2_bytes)


@dataclass
class Layer:
    """The state of one task.

    Attributes:
        task: the problem and the layers that pose it.
        search: what has been tried and what comes next.
        rounds: measured in this run.
        counts: trials of this run by status.
        done: nothing is left to do.
    """

    task: Task
    search: Search
    rounds: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    done: bool = False

    @staticmethod
    def of(task: Task, target: Target, limits: Calibration, options: Options) -> Layer:
        """Return the layer with every setting ranked and nothing tried."""
        policy = options.policy
        settings = task.subject.settings(target, policy)
        roofline = roofline_of(task.subject, target, settings, limits)
        search = Search(
            settings,
            roofline,
            options.trials_per_layer,
            policy.record_error,
            width=max(Search.width, options.jobs),
        )
        return Layer(task, search)

    @property
    def choice(self) -> Setting | None:
        """The model's choice: its fastest setting of those that it expects to be accurate enough."""
        search = self.search
        return next((s for s in search.settings if s.error <= search.max_error), None)

    @property
    def estimate(self) -> float:
        """The model's seconds for its choice."""
        return self.choice.seconds if self.choice else 0.0

    @property
    def baseline(self) -> float | None:
        """The measured seconds of the model's choice, once known."""
        trial = self.search.known.get(self.choice.key) if self.choice else None
        return trial.seconds if trial else None

    @property
    def gained(self) -> float:
        """Seconds a run of the model that tuning has saved, all layers of the task together."""
        best = self.search.best
        if best is None or self.baseline is None:
            return 0.0
        return self.task.count * max(0.0, self.baseline - best[1])

    @property
    def worth(self) -> float:
        """Expected seconds a run of the model that the next round saves."""
        if self.done or not self.search.settings:
            return 0.0
        best = self.search.best
        now = best[1] if best else self.estimate
        # An estimate below the roofline is a wrong estimate, not a layer without room.
        room = max(0.1 * now, now - self.search.roofline)
        share = _FIRST_GAIN if self.search.in_first_round else _LATER_GAIN * 0.5**self.rounds
        return self.task.count * room * share
