"""What to measure next for one layer: rank everything by the cost model, measure a dozen, then walk from the best to its neighbours.

Everything is decided from what has been measured so far and nothing else, so that a search goes on from a log as if it had never been
stopped. One layer takes 5 to 28 measurements of some hundred settings; MOpt and Roller (ASPLOS'21, OSDI'22) show that a
model with ten measurements finds what blind search needs a thousand for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from convc.tuning.setting import Key, Setting

__all__ = ["DEFAULT_TRIALS", "Search", "Trial", "neighbours"]

# Measured first: the fastest by estimate of those that are promising, and the analytic choice of every algorithm that is not hopeless.
_FIRST: Final = 10
_HOPELESS: Final = 2.5
_PROMISING: Final = 1.3
# A step of the walk builds so many neighbours at once, or as many as there are workers.
_STEP: Final = 6
DEFAULT_TRIALS: Final = 28
# So many in a row that gain less than a hundredth, the first ones among them, end the walk. Replayed on 1300 measurements of ResNet-50's
# 27 layers: 12 trials a layer find what 16 without this limit find, 2 % above the best of up to 88.
_PATIENCE: Final = 8
_GAIN: Final = 0.99
# Nearer to the roofline than this nothing is left to find.
_NEAR: Final = 1.05


@dataclass(frozen=True, slots=True)
class Trial:
    """What is known of a setting: its seconds, or None if it failed."""

    seconds: float | None
    error: float = 0.0
    final: bool = False


@dataclass
class Search:
    """One layer's search.

    Attributes:
        settings: all, the fastest by estimate first.
        roofline: seconds that no setting can beat.
        most: measurements at most, those of settings that are always measured not counted.
        max_error: a setting with a greater measured error is no candidate for the best.
        seeds: settings to measure first of all: neighbours' best, from another log.
        known: trials so far.
        width: settings of a step, at least `_STEP`.
    """

    settings: Sequence[Setting]
    roofline: float = 0.0
    most: int = DEFAULT_TRIALS
    max_error: float = float("inf")
    seeds: Sequence[Key] = ()
    known: dict[Key, Trial] = field(default_factory=dict)
    width: int = _STEP
    _by_key: dict[Key, Setting] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._by_key = {s.key: s for s in self.settings}

    @property
    def measured(self) -> int:
        """How many settings of this search have been tried."""
        return sum(key in self._by_key for key in self.known)

    @property
    def best(self) -> tuple[Setting, float] | None:
        """The fastest setting that is accurate enough, with its seconds; None before the first success."""
        rows = self.ranking()
        return rows[0] if rows else None

    def ranking(self) -> list[tuple[Setting, float]]:
        """Return the successful settings with their seconds, the fastest first."""
        rows = [
            (self._by_key[key], trial.seconds)
            for key, trial in self.known.items()
            if key in self._by_key and trial.seconds is not None and trial.error <= self.max_error
        ]
        return sorted(rows, key=lambda row: row[1])

    @property
    def is_near_roofline(self) -> bool:
        return self.best is not None and self.best[1] <= _NEAR * self.roofline

    @property
    def in_first_round(self) -> bool:
        """Whether the settings that the model proposes are not all tried yet."""
        return bool(self._untried(self._first()))

    def next(self) -> list[Setting]:
        """Return what to measure next, most promising first; empty when the search is over."""
        # A library is never beaten by being passed over.
        if searches := self._untried(s for s in self.settings if s.always):
            return searches
        left = self.most - sum(key in self._by_key and not self._by_key[key].always for key in self.known)  # fmt: skip
        if left <= 0 or self.is_near_roofline:
            return []
        found = self._untried(self._first())
        if not found and self._in_vain < _PATIENCE:
            found = self._untried(self._around())[: self.width]
        if not found and self.most > DEFAULT_TRIALS:
            # Who asks for more than the walk takes gets the rest of the space, most promising first.
            found = self._untried(self._hopeful)[: self.width]
        return found[:left]

    @property
    def _hopeful(self) -> list[Setting]:
        """The settings but those that are expected to err as much as one of their algorithm that was measured, and was too inexact."""
        least: dict[str, float] = {}
        for key, trial in self.known.items():
            setting = self._by_key.get(key)
            # One that was wrong says nothing of the others.
            if setting is not None and trial.seconds is not None and trial.error > self.max_error:
                least[setting.algorithm] = min(
                    setting.error, least.get(setting.algorithm, float("inf"))
                )
        return [s for s in self.settings if s.error < least.get(s.algorithm, float("inf"))]

    @property
    def _in_vain(self) -> int:
        """How many of the last successes gained nothing worth going on for."""
        best, count = float("inf"), 0
        for key, trial in self.known.items():
            if key not in self._by_key or trial.seconds is None or trial.error > self.max_error:
                continue
            if trial.seconds < _GAIN * best:
                best, count = trial.seconds, 0
            else:
                count += 1
        return count

    def rivals(self, most: int = 3) -> list[Setting]:
        """Return the fastest settings, within 10 % of the best, that no final comparison has yet seen; empty if there is no contest."""
        rows = self.ranking()
        near = [s for s, seconds in rows[:most] if seconds <= 1.1 * rows[0][1]]
        return near if any(not self.known[s.key].final for s in near) else []

    def _untried(self, settings: Iterable[Setting]) -> list[Setting]:
        return [s for s in settings if s.key not in self.known]

    def _first(self) -> list[Setting]:
        """Return the seeds, the model's best, and the best of every algorithm that is not hopeless by estimate."""
        settings = self._promising
        if not settings:
            return []
        chosen = [self._by_key[key] for key in self.seeds if key in self._by_key]
        exact = [s for s in settings if s.error <= self.max_error] or settings
        least, first = exact[0].seconds, max(_FIRST, self.width)
        seen: set[tuple[str, bool]] = set()
        for setting in settings:
            kind = (setting.algorithm, setting.error <= self.max_error)
            if kind not in seen and setting.seconds <= _HOPELESS * least:
                chosen.append(setting)
            seen.add(kind)
        per: dict[str, int] = {}
        distinct = {s.key for s in chosen}
        for setting in settings:
            # Not one algorithm's ten nearly equal settings: half of them, and the others' best.
            per[setting.algorithm] = per.get(setting.algorithm, 0) + 1
            if per[setting.algorithm] <= first // 2 and setting.seconds <= _PROMISING * least:
                chosen.append(setting)
                distinct.add(setting.key)
            if len(distinct) >= first:
                break
        return list({s.key: s for s in chosen}.values())

    @property
    def _promising(self) -> list[Setting]:
        """The hopeful settings; of an algorithm's that are expected to be too inexact, the first alone.

        On Zen 4 the five that the model finds fastest of a layer of 128 channels at 28 x 28 are F(6, 3): with all of them measured, and
        none accurate enough, the log's best was an FFT of 751 us, where F(5, 3) takes 540.
        """
        found, doubtful = [], set[str]()
        for setting in self._hopeful:
            if setting.error > self.max_error:
                if setting.algorithm in doubtful:
                    continue
                doubtful.add(setting.algorithm)
            found.append(setting)
        return found

    def _around(self) -> list[Setting]:
        """Return the neighbours of the best, then of the best of the second algorithm if that is close."""
        rows = self.ranking()
        if not rows:
            # Nothing has worked: go down the list.
            return self._hopeful
        best, seconds = rows[0]
        other = next(
            (s for s, t in rows if s.algorithm != best.algorithm and t <= 1.1 * seconds), None
        )
        hopeful = self._hopeful
        near = neighbours(best, hopeful, 2 * self.width)
        if other is None:
            return near
        return near + neighbours(other, hopeful, self.width)


def neighbours(setting: Setting, settings: Sequence[Setting], most: int = 2 * _STEP) -> list[Setting]:  # fmt: skip
    """Return the settings one step away, nearest first: one knob by one of its values, or two that depend on each other.

    Example:
        >>> rows = [Setting("a", {"cols": c, "rows": r}, c + r) for c in (1, 2, 4) for r in (1, 2)]
        >>> [dict(s.knobs) for s in neighbours(rows[0], rows)][:3]
        [{'cols': 1, 'rows': 2}, {'cols': 2, 'rows': 1}, {'cols': 4, 'rows': 1}]
    """
    own = [s for s in settings if s.algorithm == setting.algorithm and s.key != setting.key]
    axes: Mapping[str, list[int]] = {
        name: sorted({s.knobs[name] for s in own} | {value})
        for name, value in setting.knobs.items()
    }

    def steps(other: Setting) -> tuple[int, int]:
        moved = [
            abs(values.index(other.knobs[name]) - values.index(setting.knobs[name]))
            for name, values in axes.items()
            if other.knobs[name] != setting.knobs[name]
        ]
        return len(moved), sum(moved)

    rows = [(steps(s), s) for s in own]
    near = [(far, s) for far, s in rows if far[0] <= 2 and far[1] <= 3]
    near.sort(key=lambda row: (row[0][1], row[0][0], row[1].seconds))
    return [s for _, s in near[:most]]
