"""A loaded module whose kernels run on a CUDA device: weights are uploaded once, arena and ports live there, results come back.

Inputs may be NumPy arrays, which are copied to the device, or tensors on the device (DLPack, e.g. torch's), which are read in place.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import tvm_ffi
from numpy.typing import NDArray

from convc.errors import DeviceError, InputError
from convc.runtime.cuda import CUDA, CudaRuntime
from convc.runtime.cuda_graph import Graph
from convc.runtime.library_plans import Preparation, plans_of
from convc.runtime.manifest import ALIGNMENT, Manifest, Tensor, buffer_bytes
from convc.runtime.memory import Window, window
from convc.runtime.module import Module, NanPolicy
from convc.runtime.ports import ArrayLike, InputPort
from convc.runtime.profile import StepTimes
from convc.runtime.threads import ThreadPool

__all__ = ["DeviceModule"]


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
        self._calls_library: Final = any(step.algorithm == "cudnn" for step in manifest.steps)
        self._preparation: Preparation | None = None

    @property
    def preparation(self) -> Preparation | None:
        """See `Module.preparation`."""
        return self._preparation

    def prepare(self) -> None:
        """Run once on zeros if a library is called, which does at its first call what no later one has to do. `load` calls it.

        Raises:
            DeviceError: with the library's own message, if it refuses a step on this device; says what to compile instead.
        """
        if not self._calls_library:
            return
        memory = self._memory()
        began = time.perf_counter()
        for port, tensor in zip(self._inputs, memory.inputs, strict=True):
            self._cuda.upload(np.zeros(port.shape, port.dtype), tensor)
        try:
            self._entry(self._weights.tensor, memory.arena, *memory.inputs, *memory.outputs)
            self._cuda.synchronize()
        except (RuntimeError, TypeError, ValueError) as error:  # what the shims throw
            raise DeviceError(_refusal(self.manifest, str(error).strip())) from error
        self._preparation = Preparation(time.perf_counter() - began, plans_of(self._library))

    def _memory(self) -> _Memory:
        memory = getattr(self._local, "memory", None)
        if memory is None:
            memory = self._local.memory = _Memory(self._cuda, self.manifest)
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
        for step in self.manifest.steps:
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


def _refusal(manifest: Manifest, text: str) -> str:
    """Return what a library said while a module was prepared, and the way out of it."""
    nodes = [s.node for s in manifest.steps if s.algorithm == "cudnn" and s.key and s.key in text]
    layer = nodes[0] if nodes else "LAYER"
    return (
        f"module '{manifest.name}' must run on this device; got: {text} Compile it with --algo-for '{layer}=ALGORITHM', one of convc's "
        f"own that `convc explain` lists for it, or with --cudnn off."
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
