"""One setting as a library of one kernel: compiled, linked, loaded here or on a remote machine, with its arguments."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import tvm

from convc.errors import ToolchainError
from convc.lowering.kernels import conv_kernel
from convc.runtime.library import runtime_library
from convc.runtime.threads import ThreadPool
from convc.schedules.backend import backend_of
from convc.schedules.layout import Layout
from convc.schedules.plan import Knobs
from convc.target import Target
from convc.tuning.case import Case

__all__ = ["Place", "TimedKernel"]

# In cold mode so many bytes of weights lie between two uses of one copy: beyond L2, as a network's other layers are.
_COLD_BYTES = 32 << 20
_MOST_COPIES = 256
_FEWEST_CALLS = 3
_FLUSH = "cache_flush_cpu_non_first_arg"


class Place:
    """Where kernels run: this process, or a session with a remote server."""

    def __init__(self, remote: Any = None) -> None:
        self.remote = remote
        self.device = remote.cpu(0) if remote is not None else tvm.cpu(0)

    def load(self, library: Path) -> Any:
        """Return the library, loaded where kernels run."""
        if self.remote is None:
            return tvm.runtime.load_module(str(library))
        self.remote.upload(str(library))
        return self.remote.load_module(library.name)

    def tensor(self, array: np.ndarray) -> Any:
        """Return an aligned copy of the array there."""
        return tvm.runtime.tensor(array, self.device)

    def threads(self, count: int) -> None:
        """Run kernels on so many threads."""
        if self.remote is None:
            ThreadPool(runtime_library(), count).activate()
        else:
            self.remote.get_function("runtime.config_threadpool")(1, count)


class TimedKernel:
    """A setting's kernel, ready to run.

    Raises:
        whatever TVM and the linker raise: the caller makes a record of it.
    """

    def __init__(
        self, case: Case, target: Target, name: str, knobs: Knobs, place: Place, folder: Path
    ) -> None:
        began = time.perf_counter()
        backend, problem = backend_of(target), case.problem
        self.algorithm, self.case, self.place, self.target = (
            backend.algorithm(name),
            case,
            place,
            target,
        )
        used = dict(knobs)
        if backend.parallel_cycles is not None:
            cycles = self.algorithm.cycles(problem, target, used)
            used["parallel"] = int(cycles > backend.parallel_cycles)
        wants = self.algorithm.operands(problem, target, used)
        self.block = wants.result.block
        tensors = self.algorithm.compute(problem, target, used)
        shapes = [tuple(int(d) for d in t.shape) for t in tensors]
        views = [Layout().view(s, str(t.dtype)) for s, t in zip(shapes, tensors, strict=True)]
        kernel = conv_kernel(self.algorithm, problem, target, used, views)
        objects = backend.compile(tvm.IRModule({kernel.symbol: kernel.make()}), target)
        library = _link(objects, folder / f"{kernel.symbol}.so")
        self._library, self._symbol = place.load(library), kernel.symbol
        self.function: Callable[..., Any] = self._library[kernel.symbol]
        self._arrays = self.case.arguments(self.algorithm, wants, used, shapes)
        self.arguments = [place.tensor(array) for array in self._arrays]
        self.build_seconds = time.perf_counter() - began

    def check(self) -> float:
        """Run once and return the error, see `Case.error`."""
        self.place.threads(self.target.cores)
        self.function(*self.arguments)
        result = self.arguments[-1].numpy()
        self._arrays = self._arrays[:2]
        return self.case.error(result, self.block)

    def time(self, rounds: int, seconds: float, mode: Literal["cold", "warm"]) -> tuple[float, ...]:
        """Return the mean time of a call, `rounds` times."""
        self.place.threads(self.target.cores)
        if self.place.remote is not None:
            return self._time_remote(rounds, seconds, mode)
        data, weight, *rest = self.arguments
        copies = [weight]
        if mode == "cold":
            nbytes = max(64, self._arrays[1].nbytes)
            count = min(_MOST_COPIES, -(-_COLD_BYTES // nbytes))
            copies += [self.place.tensor(self._arrays[1]) for _ in range(count - 1)]
        cycle, function, clock = itertools.cycle(copies), self.function, time.perf_counter
        for _ in range(2):
            function(data, next(cycle), *rest)
        samples = []
        for _ in range(rounds):
            calls, begin = 0, clock()
            end = begin
            while end - begin < seconds or calls < _FEWEST_CALLS:
                function(data, next(cycle), *rest)
                calls, end = calls + 1, clock()
            samples.append((end - begin) / calls)
        return tuple(samples)

    def _time_remote(
        self, rounds: int, seconds: float, mode: Literal["cold", "warm"]
    ) -> tuple[float, ...]:
        # The server's own clock; its cold mode flushes all arguments but the data from the caches before each call.
        if mode == "cold":
            options = {"number": 1, "repeat": max(rounds, _FEWEST_CALLS), "f_preproc": _FLUSH}
        else:
            options = {"number": 1, "repeat": rounds, "min_repeat_ms": max(1, int(1e3 * seconds))}
        evaluator = self._library.time_evaluator(self._symbol, self.place.device, **options)
        return tuple(float(s) for s in evaluator(*self.arguments).results)


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
