"""A progress bar for work in named stages, and how long each stage took."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from convc.cli.render import Output, console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["StageProgress"]


class StageProgress:
    """Called with (stage, done, total); draws on stderr if that is a terminal, and keeps seconds per stage either way.

    What a stage says behind a colon stands beside the bar, or is a line of its own where there is none: a minute must not be silent.
    """

    def __init__(self, output: Output, *, animate: bool = True) -> None:
        """Draw by a thread, ten times a second, or with `animate` off only when called: a thread would disturb timings."""
        self._output = output
        self._animate = animate
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._stage = ""
        self._since = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> StageProgress:
        self._since = time.perf_counter()
        if self._output.shows_progress:
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description:<22}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[what]}", markup=False),
                console=console(sys.stderr),
                transient=True,
                auto_refresh=self._animate,
            )
            self._bar.start()
        return self

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report that `done` of `total` parts of `stage` are finished."""
        stage, _, what = stage.partition(": ")
        if stage != self._stage:
            self._close_stage()
            self._stage = stage
            if self._bar is not None:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(stage, total=total, what="")
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, what=what, refresh=not self._animate)  # fmt: skip
        elif what:
            self._output.note(f"{stage} {done}/{total}: {what}")

    def _close_stage(self) -> None:
        now = time.perf_counter()
        if self._stage:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        self._since = now

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close_stage()
        self._stage = ""
        if self._bar is not None:
            self._bar.stop()
