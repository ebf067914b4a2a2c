"""A loaded module whose kernels run on a CUDA device: weights are uploaded once, arena and ports live there, results come back.

Inputs may be NumPy arrays, which are copied to the device, or tensors on the device (DLPack, e.g. torch's), which are read in place.
"""

from __future__ import annotations

import logging
import statistics
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import tvm_ffi
from numpy.typing import NDArray

from convc.errors import DeviceError, InputError
from convc.runtime.cuda import CUDA, CudaRuntime
from convc.runtime.cuda_graph import Graph
from convc.runtime.library_plans import Preparation, calls_cudnn, share, watch, watched
from convc.runtime.manifest import ALIGNMENT, Manifest, Step, Tensor, buffer_bytes
from convc.runtime.memory import Window, window
from convc.runtime.module import Module, NanPolicy
from convc.runtime.ports import ArrayLike, InputPort
from convc.runtime.profile import StepTimes
from convc.runtime.threads import ThreadPool

__all__ = ["DeviceModule"]

logger = logging.getLogger(__name__)


class _Memory:
    """A thread's memory on the device: the arena and one tensor for each port; and all launches of a run between them."""

    __slots__ = ("arena", "graph", "inputs", "outputs", "staging")

    def __init__(self, cuda: CudaRuntime, manifest: Manifest) -> None:
        def ports(tensors: tuple[Tensor, ...]) -> list[tvm_ffi.Tensor]:
            return [cuda.empty(t.shape, t.dtype) for t in tensors]

        self.arena = cuda.empty((buffer_bytes(manifest.arena_bytes),), "uint8")
        self.inputs, self.outputs = ports(manifest.inputs), ports(manifest.outputs)
        self.graph: Graph | None = None
        # Device tensors need no aligned copies on the host.
        self.staging: dict[str, Any] = {}


class DeviceModule(Module):
    """See the module's text; made by `load`."""

    def __init__(
        self,
        manifest: Manifest,
        library: tvm_ffi.Module,
        entry: tvm_ffi.Function,
        weights: Window,
        pool: ThreadPool,
        nan: NanPolicy,
        cuda: CudaRuntime,
    ) -> None:
        super().__init__(manifest, library, entry, weights, pool, nan)
        self._cuda: Final = cuda
        # A library may do more on the host than launch: build a plan, take memory, search. Its calls are made anew each time.
        self._calls_library = any(map(calls_cudnn, manifest.steps))
        self._preparation: Preparation | None = None
        # A thread's memory that nobody uses: what loading has run in is the first thread's that runs.
        self._spare: Final[list[_Memory]] = []
        if self._calls_library:
            share(library, 1)
            # Not at the process' end, where CUDA must not be called any more.
            weakref.finalize(self, share, library, -1).atexit = False

    @property
    def preparation(self) -> Preparation | None:
        """See `Module.preparation`."""
        return self._preparation

    @property
    def steps(self) -> tuple[Step, ...]:
        """See `Module.steps`."""
        every = self.manifest.steps
        return every if self._preparation is None else self._preparation.steps(every)

    def prepare(self) -> None:
        """Run once on zeros if a library is called, which does at its first call what no later one has to do. `load` calls it.

        What the library refuses is decided here: a layer that has a kernel of convc's beside the call runs by that from now on.

        Raises:
            DeviceError: with the library's own message, if it refuses a step that has none; says what to compile instead.
        """
        if not self._calls_library:
            return
        calls = [step for step in self.manifest.steps if calls_cudnn(step)]
        memory = _Memory(self._cuda, self.manifest)
        began = time.perf_counter()
        for port, tensor in zip(self._inputs, memory.inputs, strict=True):
            self._cuda.upload(np.zeros(port.shape, port.dtype), tensor)
        watch(self._library)
        try:
            self._entry(self._weights.tensor, memory.arena, *memory.inputs, *memory.outputs)
            self._cuda.synchronize()
        except (RuntimeError, TypeError, ValueError) as error:  # what the shims throw
            said = watched(self._library)
            refused = [call for call, line in zip(calls, said, strict=False) if line == "failed"]
            raise DeviceError(_refusal(self.manifest, refused, str(error).strip())) from error
        seconds = time.perf_counter() - began
        self._preparation = Preparation.of(seconds, calls, watched(self._library))
        for fallback in self._preparation.fallbacks:
            logger.warning("module '%s': %s", self.manifest.name, fallback)
        self._calls_library = any(map(calls_cudnn, self.steps))
        self._spare.append(memory)

    def _memory(self) -> _Memory:
        memory = getattr(self._local, "memory", None)
        if memory is None:
            try:
                memory = self._spare.pop()
            except IndexError:
                memory = _Memory(self._cuda, self.manifest)
            self._local.memory = memory
        return memory

    def _run(self, arrays: Sequence[ArrayLike], targets: list[NDArray]) -> list[NDArray]:
        memory = self._memory()
        arguments = self._arguments(arrays, memory)
        here = (*memory.inputs, *memory.outputs)
        # A caller's own tensor lies elsewhere each time.
        stays = all(a is b for a, b in zip(arguments[2:], here, strict=True))
        if stays and not self._calls_library:
            self._replay(arguments, memory)
        else:
            self._entry(*arguments)
        for port, tensor, array in zip(self._outputs, memory.outputs, targets, strict=True):
            self._cuda.download(tensor, array)
            if self._refuse_nan:
                port.check_no_nan(array)
        return targets

    def _replay(self, arguments: Sequence[Any], memory: _Memory) -> None:
        """Run between the thread's own tensors: recorded on the first run, since each launch by itself costs the host 3 us."""
        if memory.graph is None:
            memory.graph = self._cuda.graph(lambda: self._entry(*arguments))
        else:
            memory.graph.launch()

    def _arguments(self, arrays: Sequence[ArrayLike], memory: _Memory) -> list[tvm_ffi.Tensor]:
        inputs = []
        for port, tensor, value in zip(self._inputs, memory.inputs, arrays, strict=True):
            on_device = _device_tensor(port, value)
            if on_device is None:
                keep: list[object] = []
                array = port.array(value, keep)
                if self._refuse_nan:
                    port.check_no_nan(array)
                on_device = self._cuda.upload(array, tensor)
            inputs.append(on_device)
        return [self._weights.tensor, memory.arena, *inputs, *memory.outputs]

    def time(self, inputs: Mapping[str, ArrayLike], *, number: int = 10, repeats: int = 5) -> float:
        """Return the median seconds of a run between two events on the device; copies of inputs and outputs are not in it.

        Runs are replayed as one CUDA graph, so that what the host needs to launch a kernel is not in it either.

        Args:
            inputs: every input, by name.
            number: runs between two events.
            repeats: measurements, after one run to warm up.
        """
        arguments = self._arguments(self._in_order(inputs), self._memory())
        return statistics.median(self._seconds(self._entry, arguments, number, repeats))

    def profile(self, inputs: Mapping[str, ArrayLike], repeats: int = 10) -> tuple[StepTimes, ...]:
        """Return how long each step takes on the device, one by one in order: ten runs in a CUDA graph between two events.

        Args:
            inputs: every input, by name.
            repeats: measurements of each step.

        Raises:
            InputError: as `run`, or if repeats is below 1.
        """
        if repeats < 1:
            raise InputError(f"repeats must be at least 1; got {repeats}.")
        memory = self._memory()
        weights, arena, *ports = self._arguments(self._in_order(inputs), memory)
        count = len(self._inputs)
        spaces = {
            "weights": [weights],
            "arena": [arena],
            "input": ports[:count],
            "output": ports[count:],
        }
        self._entry(weights, arena, *ports)  # so that each step finds what the ones before it leave
        times = []
        for step in self.steps:
            windows = [
                window(
                    memory,
                    spaces[a.space][a.index].data_ptr() + a.offset,
                    a.shape,
                    a.dtype,
                    a.strides,
                    CUDA,
                )
                for a in step.arguments
            ]
            function = self._library.get_function(step.symbol)
            seconds = self._seconds(function, [w.tensor for w in windows], 10, repeats)
            times.append(StepTimes(step, seconds))
        return tuple(times)

    def _seconds(
        self, function: tvm_ffi.Function, arguments: Sequence[Any], number: int, repeats: int
    ) -> tuple[float, ...]:
        def calls() -> None:
            for _ in range(number):
                function(*arguments)

        graph = self._cuda.graph(calls)
        try:
            return tuple(s / number for s in graph.seconds(repeats))
        finally:
            graph.close()

    def __repr__(self) -> str:
        code = ", ".join(self.manifest.target.device)
        return f"<convc module '{self.manifest.name}' for cuda ({code})>"


def _refusal(manifest: Manifest, refused: Sequence[Step], text: str) -> str:
    """Return what a library said to a call while a module was prepared, and the way out of it for every layer that makes the same."""
    symbols = {step.symbol for step in refused}
    alike = [step for step in manifest.steps if step.symbol in symbols]
    # Convolutions have several to choose from, other ops the one.
    ways = {s.node: "ALGORITHM" if s.flops else "plain" for s in alike} or {"LAYER": "ALGORITHM"}
    pins = " ".join(f"--algo-for '{node}={way}'" for node, way in ways.items())
    return (
        f"module '{manifest.name}' must run on this device; got: {text} Compile it with {pins}, one of convc's own that "
        "`convc explain` lists for it, or with --cudnn off."
    )


def _device_tensor(port: InputPort, value: ArrayLike) -> tvm_ffi.Tensor | None:
    """Return the value as it is if it lies on a CUDA device, else None."""
    if not hasattr(value, "__dlpack_device__") or value.__dlpack_device__()[0] != CUDA:
        return None
    tensor = tvm_ffi.from_dlpack(value)
    if str(tensor.dtype) != port.type or tuple(tensor.shape) != port.shape:
        raise InputError(
            f"{port} must have dtype {port.type} and shape {port.shape}; got {tensor.dtype}, {tuple(tensor.shape)}."
        )
    if not tensor.is_contiguous() or tensor.data_ptr() % ALIGNMENT:
        raise InputError(
            f"{port} must be contiguous and {ALIGNMENT}-byte aligned; got strides {tuple(tensor.strides)}. Clone it first."
        )
    return tensor
