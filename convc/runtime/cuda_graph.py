"""Launches recorded once and replayed as one CUDA graph: between kernels the host does nothing, and times are the device's alone.

A launch through the host costs 3 to 5 us, as long as a small layer takes; a graph's kernels follow each other in about one.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

import tvm_ffi

from convc.errors import DeviceError

__all__ = ["Cudart", "Graph"]

# cudaStreamCaptureModeRelaxed: a library that is called may allocate memory meanwhile.
_RELAXED: Final = 2


class Cudart:
    """The few functions of CUDA's runtime library that streams, events and graphs need; every status is checked."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._library.cudaGetErrorString.restype = ctypes.c_char_p

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function.

        Raises:
            DeviceError: with CUDA's message, if it answers anything but success.
        """
        status = getattr(self._library, name)(*arguments)
        if status:
            text = self._library.cudaGetErrorString(status).decode(errors="replace")
            raise DeviceError(f"{name} must succeed; got status {status}, '{text}'.")

    def ignore(self, name: str, *arguments: Any) -> None:
        """Call a function while another error is on its way to the user."""
        getattr(self._library, name)(*arguments)


class Graph:
    """What a function launches, on a stream of its own that waits for what the default stream was given before, and the other way round.

    The function runs once, since code is loaded and memory taken on a first call, and is then called once more to be recorded: when the
    graph is there, its first results are, too. What the function is given must stay where it is as long as the graph.

    Raises:
        DeviceError: if something that it calls cannot be recorded.
    """

    def __init__(
        self, cudart: Cudart, device: tvm_ffi.Device, function: Callable[[], object]
    ) -> None:
        self._cudart, self._device = cudart, device
        self._stream, self._graph, self._launchable = (ctypes.c_void_p() for _ in range(3))
        cudart.call("cudaStreamCreate", ctypes.byref(self._stream))
        with tvm_ffi.use_raw_stream(device, self._stream.value or 0):
            function()
            self.wait()
            cudart.call("cudaStreamBeginCapture", self._stream, ctypes.c_int(_RELAXED))
            with ExitStack() as undo:
                # Whatever these answer: what is wrong is what the function says.
                undo.callback(cudart.ignore, "cudaStreamDestroy", self._stream)
                undo.callback(cudart.ignore, "cudaStreamEndCapture", self._stream, ctypes.byref(self._graph))  # fmt: skip
                function()
                undo.pop_all()
            cudart.call("cudaStreamEndCapture", self._stream, ctypes.byref(self._graph))
        cudart.call(
            "cudaGraphInstantiate",
            ctypes.byref(self._launchable),
            self._graph,
            ctypes.c_ulonglong(0),
        )
        handles = (self._launchable, self._graph, self._stream)
        self._free = weakref.finalize(self, _free, cudart, *handles)
        # With the process, the driver gives everything back.
        self._free.atexit = False

    def launch(self) -> None:
        """Start all that was recorded; do not wait."""
        self._cudart.call("cudaGraphLaunch", self._launchable, self._stream)

    def wait(self) -> None:
        """Wait until the stream is done."""
        self._cudart.call("cudaStreamSynchronize", self._stream)

    def seconds(self, repeats: int) -> tuple[float, ...]:
        """Return how long each of so many launches takes between two events, after one to warm up."""
        begin, end, elapsed = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_float()
        call = self._cudart.call
        call("cudaEventCreate", ctypes.byref(begin))
        call("cudaEventCreate", ctypes.byref(end))
        self.launch()
        found = []
        for _ in range(repeats):
            call("cudaEventRecord", begin, self._stream)
            self.launch()
            call("cudaEventRecord", end, self._stream)
            call("cudaEventSynchronize", end)
            call("cudaEventElapsedTime", ctypes.byref(elapsed), begin, end)
            found.append(elapsed.value / 1e3)
        call("cudaEventDestroy", begin)
        call("cudaEventDestroy", end)
        return tuple(found)

    def close(self) -> None:
        """Give the graph and its stream back."""
        self._free()


def _free(cudart: Cudart, launchable: Any, graph: Any, stream: Any) -> None:
    cudart.call("cudaGraphExecDestroy", launchable)
    cudart.call("cudaGraphDestroy", graph)
    cudart.call("cudaStreamDestroy", stream)
