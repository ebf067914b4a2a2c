"""One setting as a library of one kernel: compiled, linked, loaded here or on a remote machine, with its arguments."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import tvm

from convc.errors import ToolchainError
from convc.schedules.backend import backend_of
from convc.schedules.plan import Knobs
from convc.target import Target
from convc.tuning.place import Launch, Mode, Place
from convc.tuning.subjects import Case

__all__ = ["TimedKernel"]


class TimedKernel:
    """A setting's kernel, ready to run.

    Raises:
        whatever TVM and the linker raise: the caller makes a record of it.
    """

    def __init__(
        self, case: Case, target: Target, algorithm: str, knobs: Knobs, place: Place, folder: Path
    ) -> None:
        began = time.perf_counter()
        self.case, self.place, self.target = case, place, target
        ready = case.ready(target, algorithm, knobs)
        self.block, self._settles = ready.block, ready.settles
        self._symbol = ready.kernel.symbol
        module = tvm.IRModule({self._symbol: ready.kernel.make()})
        objects = backend_of(target).compile(module, target, lambda done, total, what: None)
        self._library = place.load(_link(objects, folder / f"{self._symbol}.so"))
        self.arguments = [place.tensor(array) for array in ready.arrays]
        self._weights = {at: ready.arrays[at] for at in ready.weights}
        self.build_seconds = time.perf_counter() - began

    def check(self) -> float:
        """Run once and return the error, see `Case.error`."""
        self.place.threads(self.target.cores)
        self._library[self._symbol](*self.arguments)
        return self.case.error(self.arguments[-1].numpy(), self.block)

    def settled(self) -> Knobs | None:
        """Return the knobs with what a library has decided since it ran, None where there is no library."""
        if self._settles is None:
            return None
        algorithm, problem, knobs = self._settles
        function, arguments = algorithm.question(problem, knobs, self.arguments)
        return algorithm.settled(knobs, str(self._library[function](*arguments)))

    def time(self, rounds: int, seconds: float, mode: Mode) -> tuple[float, ...]:
        """Return the time of a call, `rounds` times; see `Place.time`."""
        self.place.threads(self.target.cores)
        return self.place.time(self.launch, rounds, seconds, mode)

    @property
    def launch(self) -> Launch:
        """The kernel with its arguments, for those who time several in turns."""
        return Launch(self._library, self._symbol, self.arguments, self._weights)


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
