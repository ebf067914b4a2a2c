"""One setting as a library of one kernel: compiled, linked, loaded here or on a remote machine, with its arguments."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tvm

from convc.errors import ToolchainError, UnsupportedConvError
from convc.lowering.kernels import conv_kernel
from convc.schedules.algorithm import Settles
from convc.schedules.backend import backend_of
from convc.schedules.dual import posed
from convc.schedules.layout import Layout
from convc.schedules.plan import Knobs, Unsupported
from convc.target import Target
from convc.tuning.case import Case
from convc.tuning.place import Launch, Mode, Place

__all__ = ["TimedKernel"]


class TimedKernel:
    """A setting's kernel, ready to run.

    Raises:
        whatever TVM and the linker raise: the caller makes a record of it.
    """

    def __init__(
        self, case: Case, target: Target, name: str, knobs: Knobs, place: Place, folder: Path
    ) -> None:
        began = time.perf_counter()
        backend = backend_of(target)
        self.algorithm, self.case, self.place, self.target = (
            backend.algorithm(name),
            case,
            place,
            target,
        )
        problem = posed(case.problem, self.algorithm, target)
        if isinstance(problem, Unsupported):
            raise UnsupportedConvError(
                f"algorithm '{name}' must take {case.problem.key}; got: {problem.reason}."
            )
        used = dict(knobs)
        self._problem, self._knobs = problem, knobs
        if backend.parallel_cycles is not None:
            cycles = self.algorithm.cycles(problem, target, used)
            used["parallel"] = int(cycles > backend.parallel_cycles)
        wants = self.algorithm.operands(problem, target, used)
        self.block = wants.result.block
        tensors = self.algorithm.compute(problem, target, used)
        shapes = [tuple(int(d) for d in t.shape) for t in tensors]
        self._arrays = self.case.arguments(self.algorithm, problem, wants, used, shapes)
        views = [Layout().view(s, a.dtype.name) for s, a in zip(shapes, self._arrays, strict=True)]
        kernel = conv_kernel(self.algorithm, problem, target, used, views)
        objects = backend.compile(tvm.IRModule({kernel.symbol: kernel.make()}), target)
        library = _link(objects, folder / f"{kernel.symbol}.so")
        self._library, self._symbol = place.load(library), kernel.symbol
        self.function: Callable[..., Any] = self._library[kernel.symbol]
        self.arguments = [place.tensor(array) for array in self._arrays]
        self.build_seconds = time.perf_counter() - began

    def check(self) -> float:
        """Run once and return the error, see `Case.error`."""
        self.place.threads(self.target.cores)
        self.function(*self.arguments)
        result = self.arguments[-1].numpy()
        self._arrays = self._arrays[:2]
        return self.case.error(result, self.block)

    def settled(self) -> Knobs | None:
        """Return the knobs with what a library has decided since it ran, None where there is no library."""
        if not isinstance(self.algorithm, Settles):
            return None
        function, arguments = self.algorithm.question(self._problem, self._knobs, self.arguments)
        return self.algorithm.settled(self._knobs, str(self._library[function](*arguments)))

    def time(self, rounds: int, seconds: float, mode: Mode) -> tuple[float, ...]:
        """Return the mean time of a call, `rounds` times; see `Place.time`."""
        self.place.threads(self.target.cores)
        launch = Launch(self._library, self._symbol, self.arguments, self._arrays[1])
        return self.place.time(launch, rounds, seconds, mode)


def _link(objects: tuple[bytes, ...], library: Path) -> Path:
    with TemporaryDirectory(prefix="convc-") as folder:
        paths = []
        for index, content in enumerate(objects):
            paths.append(str(Path(folder) / f"part{index}.o"))
            Path(paths[-1]).write_bytes(content)
        command = ["g++", "-shared", "-fPIC", "-o", str(library), *paths]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise ToolchainError(
                "linking a candidate must find the compiler 'g++'; got none on PATH. Install it with `apt-get install g++`."
            ) from None
        if done.returncode:
            raise ToolchainError(f"linking a candidate must succeed; got: {done.stderr.strip()}")
    return library
