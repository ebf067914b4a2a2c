"""Run a loaded module.

    y = module(x)                                     # one output: an array; several: a tuple
    out = module.run({"data": x})                     # by name
    module.run({"data": x}, outputs={"prob": buffer}) # into the caller's memory

A module may be used from several threads at once: the weights are shared, each thread has its own arena.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

import tvm_ffi
from numpy.typing import NDArray

from convc.errors import InputError
from convc.runtime.arguments import Arguments, quoted
from convc.runtime.counted import Counts
from convc.runtime.library_plans import Preparation
from convc.runtime.manifest import Manifest, Step, Tensor, buffer_bytes
from convc.runtime.memory import Window, allocate_arena, array_window
from convc.runtime.ports import ArrayLike, InputPort, OutputPort, Staging
from convc.runtime.profile import StepTimes, time_steps
from convc.runtime.threads import ThreadPool

__all__ = ["NAN_POLICIES", "Module", "NanPolicy"]

NanPolicy: TypeAlias = Literal["allow", "error"]
NAN_POLICIES: Final = ("allow", "error")


class _Context:
    """What one thread needs to itself while it runs the module."""

    __slots__ = ("arena", "staging")

    def __init__(self, arena_bytes: int) -> None:
        self.arena: Window = array_window(allocate_arena(buffer_bytes(arena_bytes)))
        self.staging: Staging = {}


class Module:
    """A loaded module; made by `convc.load`."""

    def __init__(
        self,
        manifest: Manifest,
        library: tvm_ffi.Module,
        entry: tvm_ffi.Function,
        weights: Window,
        pool: ThreadPool,
        nan: NanPolicy,
    ) -> None:
        self.manifest: Final = manifest
        self._library = library
        self._entry = entry
        self._weights = weights
        self._pool = pool
        self._refuse_nan = nan == "error"
        self._inputs = tuple(InputPort(tensor) for tensor in manifest.inputs)
        self._outputs = tuple(OutputPort(tensor) for tensor in manifest.outputs)
        self._counts: Final = Counts(manifest.outputs)
        self._arguments_of = Arguments(self._inputs)
        self._local = threading.local()

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.manifest.inputs

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return self.manifest.outputs

    @property
    def preparation(self) -> Preparation | None:
        """What loading did with a library that a step is left to; None where there is none."""
        return None

    @property
    def steps(self) -> tuple[Step, ...]:
        """What a run does, in order, with the algorithm of each layer here and why: not what a library has refused when it was loaded."""
        return self.manifest.steps

    @property
    def threads(self) -> int:
        """How many threads a run uses."""
        return self._pool.threads

    def __call__(self, *arrays: ArrayLike, **named: ArrayLike) -> NDArray | tuple[NDArray, ...]:
        """Return the output, or the tuple of outputs; inputs in order, or by name where the name is an identifier.

        Raises:
            InputError: if an input is missing, unknown, or of the wrong dtype, shape, order or device.
        """
        ordered = self._arguments_of.in_order(arrays, named)
        samples = self._samples(ordered)
        results = self._run(ordered, [port.empty(samples) for port in self._outputs])
        if self._counts.any:
            results = list(self._counts.cut(results).values())
        return results[0] if len(results) == 1 else tuple(results)

    def run(
        self,
        inputs: Mapping[str, ArrayLike],
        *,
        outputs: Mapping[str, NDArray] | None = None,
    ) -> dict[str, NDArray]:
        """Return the outputs by name; one whose size is data (see `runtime.counted`) as large as it is.

        Args:
            inputs: every input, by name. Memory that is 64-byte aligned is used as it is.
            outputs: arrays to write into, for some or all outputs; 64-byte aligned (`convc.runtime.aligned_empty`).

        Raises:
            InputError: if a name is missing or unknown, or an array has the wrong dtype, shape, order, device or alignment.
        """
        arrays = self._in_order(inputs)
        if outputs:
            targets = self._targets(arrays, outputs)
        else:
            samples = self._samples(arrays)
            targets = [port.empty(samples) for port in self._outputs]
        results = self._run(arrays, targets)
        if self._counts.any:
            return self._counts.cut(results)
        return {port.name: array for port, array in zip(self._outputs, results, strict=True)}

    @property
    def params(self) -> Mapping[str, NDArray]:
        """What `set_params` gave, by name."""
        return self._arguments_of.held

    def set_params(self, params: Mapping[str, ArrayLike]) -> None:
        """Hold values of some inputs: from now on calls may leave them out, and positions count the others only.

        The values are copied. A call may still give one of these inputs, by name, for itself alone.

        Args:
            params: by name; what was held before under other names stays.

        Raises:
            InputError: if a name is no input, or an array has the wrong dtype, shape, order or device; nothing is held then.
        """
        self._arguments_of.hold(params)

    def profile(self, inputs: Mapping[str, ArrayLike], repeats: int = 10) -> tuple[StepTimes, ...]:
        """Return how long each step takes, run one by one in order.

        The steps read and write the same memory as in a normal run. Each time includes about 1 us of call overhead, which a
        normal run does not have.

        Args:
            inputs: every input, by name.
            repeats: how many times the whole sequence is timed, after one run to warm up.

        Raises:
            InputError: as `run`, or if repeats is below 1.
        """
        if repeats < 1:
            raise InputError(f"repeats must be at least 1; got {repeats}.")
        arrays = self._in_order(inputs)
        context = self._context()
        keep: list[object] = []
        bound = [
            port.bind(array, keep, context.staging)
            for port, array in zip(self._inputs, arrays, strict=True)
        ]
        addresses = {
            "input": [tensor.data_ptr() for tensor in bound],
            "output": [],
            "weights": [self._weights.tensor.data_ptr()],
            "arena": [context.arena.tensor.data_ptr()],
        }
        for port in self._outputs:
            window = array_window(port.empty())
            keep.append(window)
            addresses["output"].append(window.tensor.data_ptr())
        self._pool.activate()
        return time_steps(self.manifest.steps, self._library, addresses, (keep, bound), repeats)

    def _run(self, arrays: Sequence[ArrayLike], targets: list[NDArray]) -> list[NDArray]:
        context = self._context()
        keep: list[object] = []
        arguments = [self._weights.tensor, context.arena.tensor]
        for port, value in zip(self._inputs, arrays, strict=True):
            arguments.append(port.bind(value, keep, context.staging))
            if self._refuse_nan:
                port.check_no_nan(port.array(value, keep))
        for port, array in zip(self._outputs, targets, strict=True):
            arguments.append(port.bind(array, keep))
        self._pool.activate()
        self._entry(*arguments)
        if self._refuse_nan:
            for port, array in zip(self._outputs, targets, strict=True):
                port.check_no_nan(array)
        return targets

    def _samples(self, arrays: Sequence[ArrayLike]) -> int:
        """Return how many samples a run has; 0 where shapes are fixed."""
        return 0

    def _context(self) -> _Context:
        context = getattr(self._local, "context", None)
        if context is None:
            context = self._local.context = _Context(self.manifest.arena_bytes)
        return context

    def _in_order(self, inputs: Mapping[str, ArrayLike]) -> tuple[ArrayLike, ...]:
        return self._arguments_of.by_name(inputs)

    def _targets(
        self, arrays: Sequence[ArrayLike], outputs: Mapping[str, NDArray]
    ) -> list[NDArray]:
        """Return an array per output: the caller's where given, checked, else a new one."""
        names = [port.name for port in self._outputs]
        if unknown := [f"'{name}'" for name in outputs if name not in names]:
            raise InputError(f"outputs must be among {quoted(names)}; got {', '.join(unknown)}.")
        keep: list[object] = []
        taken = [
            (str(port), port.array(value, keep))
            for port, value in zip(self._inputs, arrays, strict=True)
        ]
        targets, samples = [], self._samples(arrays)
        for port in self._outputs:
            array = outputs.get(port.name)
            if array is None:
                array = port.empty(samples)
            else:
                port.check_given(array, taken, samples)
                taken.append((str(port), array))
            targets.append(array)
        return targets

    def __repr__(self) -> str:
        manifest = self.manifest
        return (
            f"<convc module '{manifest.name}' for {manifest.target.mcpu}, {self.threads} threads>"
        )
