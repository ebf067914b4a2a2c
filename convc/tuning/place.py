"""Where kernels are checked and timed: in this process, on a CUDA device, or on a remote machine's server."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
import tvm

from convc.errors import DeviceError
from convc.runtime.cuda import cuda_runtime
from convc.runtime.libraries.cudnn import find_cudnn, prepare
from convc.runtime.library import runtime_library
from convc.runtime.manifest import TargetInfo
from convc.runtime.threads import ThreadPool
from convc.target import Target
from convc.tuning.cold_memory import ColdMemory
from convc.tuning.pace import Pace

__all__ = ["DevicePlace", "Launch", "LocalPlace", "Mode", "Place", "RemotePlace", "place_of"]

Mode: TypeAlias = Literal["cold", "warm"]

# In cold mode so many bytes of weights lie between two uses of one copy: beyond L2, as a network's other layers are.
_COLD_BYTES: Final = 32 << 20
_MOST_COPIES: Final = 256
# A sample during which the machine's pace changes by more than this is taken again, and so often at most.
_STEADY: Final = 1.1
_ATTEMPTS: Final = 4
_FEWEST_CALLS: Final = 3
# A function that every server has, to be asked for.
_ALIVE: Final = "runtime.config_threadpool"
_FLUSH: Final = "cache_flush_cpu_non_first_arg"

# On a device: copies until they are so many times its L2 (weights below a 32nd of it stay there), launches of one graph.
_L2_TIMES: Final = 2
_LAUNCHES: Final = (3, 64)


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel with its arguments, in place.

    Attributes:
        library, symbol: where it is.
        arguments: data, weights, others, result.
        weights: the weights' values by position, to be copied.
    """

    library: Any
    symbol: str
    arguments: list[Any]
    weights: Mapping[int, np.ndarray]

    @property
    def weight_bytes(self) -> int:
        return sum(w.nbytes for w in self.weights.values())

    def copies(self, count: int, tensor: Callable[[np.ndarray], Any]) -> list[list[Any]]:
        """Return `count` lists of arguments that share all but the weights; `tensor` makes a copy of one."""
        made = [self.arguments]
        for _ in range(count - 1):
            fresh = {at: tensor(weight) for at, weight in self.weights.items()}
            made.append([fresh.get(at, a) for at, a in enumerate(self.arguments)])
        return made


class Place(Protocol):
    """Where kernels run."""

    def load(self, library: Path) -> Any:
        """Return the library, loaded where kernels run."""
        ...

    def tensor(self, array: np.ndarray) -> Any:
        """Return an aligned copy of the array there."""
        ...

    def threads(self, count: int) -> None:
        """Run kernels on so many threads."""
        ...

    def time(self, launch: Launch, rounds: int, seconds: float, mode: Mode) -> tuple[float, ...]:
        """Return the time of a call, `rounds` times: the median of those in `seconds`, three at least; on a device a mean of at most 64.

        On this machine's CPU divided by the `Pace` beside it, where there is one.
        """
        ...

    def is_lost(self, error: Exception) -> bool:
        """Whether nothing works here any more after this error."""
        ...


def place_of(target: Target, remote: Any = None, reference: float = 0.0) -> Place:
    """Return where kernels for a target run.

    Args:
        target: what they are built for.
        remote: a session with a server, None for this machine.
        reference: what `Pace` compares this machine's CPU with; 0: times are as they are.

    Raises:
        ToolchainError, TargetMismatchError: if the target is a device that is not here.
    """
    if remote is not None:
        return RemotePlace(remote)
    if target.device is not None:
        return DevicePlace(target)
    place = LocalPlace(Pace(target, reference).now) if reference else LocalPlace()
    place.threads(target.cores)
    return place


class LocalPlace:
    """This process's CPU."""

    def __init__(self, pace: Callable[[], float] = lambda: 1.0) -> None:
        self._cold, self._pace = ColdMemory(), pace

    def load(self, library: Path) -> Any:
        return tvm.runtime.load_module(str(library))

    def tensor(self, array: np.ndarray) -> Any:
        return tvm.runtime.tensor(array, tvm.cpu(0))

    def threads(self, count: int) -> None:
        ThreadPool(runtime_library(), count).activate()

    def time(self, launch: Launch, rounds: int, seconds: float, mode: Mode) -> tuple[float, ...]:
        count = 1
        if mode == "cold":
            count = min(_MOST_COPIES, -(-_COLD_BYTES // max(64, launch.weight_bytes)))
        sets, clock = itertools.cycle(launch.copies(count, self._cold.copy)), time.perf_counter
        function: Callable[..., Any] = launch.library[launch.symbol]
        for _ in range(2):
            function(*next(sets))

        def median() -> float:
            # Each call by itself: where another program takes the core for 3 ms, some calls take 3 ms longer and the median does
            # not. Means were up to 2.5 times too long on a busy machine. The clock itself takes 0.1 us.
            calls: list[float] = []
            until = clock() + seconds
            while clock() < until or len(calls) < _FEWEST_CALLS:
                arguments, begin = next(sets), clock()
                function(*arguments)
                calls.append(clock() - begin)
            return statistics.median(calls)

        samples, before = [], self._pace()
        for _ in range(rounds):
            taken, paces = median(), (before, self._pace())
            for _ in range(_ATTEMPTS - 1):
                if max(paces) <= _STEADY * min(paces):
                    break
                taken, paces = median(), (paces[1], self._pace())
            # Where it never was steady, rather too slow than faster than the machine can be.
            samples.append(taken / min(paces))
            before = paces[1]
        return tuple(samples)

    def is_lost(self, error: Exception) -> bool:
        return False


class DevicePlace:
    """This machine's CUDA device; kernels are timed in CUDA graphs, between events."""

    def __init__(self, target: Target) -> None:
        self._gpu = target.gpu
        codes = tuple(f"sm_{sm}" for sm in target.gpu.every_sm)
        self._cuda = cuda_runtime(
            runtime_library(),
            TargetInfo("cuda", target.triple, target.mcpu, target.features, codes),
        )
        # Settings that call cuDNN find it by what this finds; where there is none, they alone fail, and say so.
        if find_cudnn() is not None:
            prepare()

    def load(self, library: Path) -> Any:
        return tvm.runtime.load_module(str(library))

    def tensor(self, array: np.ndarray) -> Any:
        return tvm.runtime.tensor(array, tvm.cuda(0))

    def threads(self, count: int) -> None:
        """A device has no threads to choose."""

    def time(self, launch: Launch, rounds: int, seconds: float, mode: Mode) -> tuple[float, ...]:
        once = self._seconds(launch, [launch.arguments], 1)[0]
        fewest, most = _LAUNCHES
        calls = max(fewest, min(most, int(seconds / max(once, 1e-9))))
        count = 1
        if mode == "cold":
            wanted = -(-_L2_TIMES * self._gpu.l2_bytes // max(256, launch.weight_bytes))
            count = min(calls, wanted)
        copies = launch.copies(count, self.tensor)
        sets = list(itertools.islice(itertools.cycle(copies), calls))
        return tuple(s / calls for s in self._seconds(launch, sets, rounds))

    def _seconds(
        self, launch: Launch, sets: Sequence[list[Any]], repeats: int
    ) -> tuple[float, ...]:
        """Return how long a call with each set of arguments takes, all together."""
        function: Callable[..., Any] = launch.library[launch.symbol]

        def calls() -> None:
            for arguments in sets:
                function(*arguments)

        graph = self._cuda.graph(calls)
        try:
            return graph.seconds(repeats)
        finally:
            graph.close()

    def is_lost(self, error: Exception) -> bool:
        # After a fault every later call of the process fails, too (CUDA C++ programming guide, "Error Checking"). TVM's own errors
        # have no class of theirs; these are how its runtime's texts of a device begin.
        faults = ("CUDA Runtime Error", "CUDALaunch Error", "CUDAError")
        return isinstance(error, DeviceError) or any(word in str(error) for word in faults)


class RemotePlace:
    """A server reached through a tracker; times are its own clock's."""

    def __init__(self, remote: Any) -> None:
        self._remote = remote
        self._device = remote.cpu(0)

    def load(self, library: Path) -> Any:
        self._remote.upload(str(library))
        return self._remote.load_module(library.name)

    def tensor(self, array: np.ndarray) -> Any:
        return tvm.runtime.tensor(array, self._device)

    def threads(self, count: int) -> None:
        self._remote.get_function(_ALIVE)(1, count)

    def time(self, launch: Launch, rounds: int, seconds: float, mode: Mode) -> tuple[float, ...]:
        # Its cold mode flushes all arguments but the data from the caches before each call.
        options: dict[str, Any] = {"number": 1, "repeat": rounds, "min_repeat_ms": max(1, int(1e3 * seconds))}  # fmt: skip
        if mode == "cold":
            options = {"number": 1, "repeat": max(rounds, _FEWEST_CALLS), "f_preproc": _FLUSH}
        evaluator = launch.library.time_evaluator(launch.symbol, self._device, **options)
        return tuple(float(s) for s in evaluator(*launch.arguments).results)

    def is_lost(self, error: Exception) -> bool:
        # The server died, or the session's time is over: the connection says so at once. What it says of the call that was under way
        # differs with what was on its way, so that is not looked at.
        try:
            self._remote.get_function(_ALIVE)
        except (RuntimeError, OSError):
            return True
        return False
