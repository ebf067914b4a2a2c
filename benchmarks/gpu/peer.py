"""torch on the device, cuDNN below it: what convc's times are compared with, and the device's own limits."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch  # pyright: ignore[reportMissingImports]

from benchmarks.architectures import ARCHITECTURES
from benchmarks.zoo import input_shape
from convc.ir import ConvSpec

__all__ = ["Peer"]

# Times in one measurement, and measurements: their median is reported.
_CALLS, _REPEATS = 20, 5


class Peer:
    """Times by CUDA events, after warming up; cuDNN picks its algorithm by trying all of them."""

    def __init__(self, device: str = "cuda", *, compiled: bool = False) -> None:
        """Prepare; `compiled`: also time torch.compile's max-autotune, which takes minutes for a network."""
        self.device, self.compiled = device, compiled
        torch.backends.cudnn.benchmark = True

    def facts(self) -> dict[str, Any]:
        """Return the device's properties, the versions, and two ceilings: bytes/s of a copy, FLOP/s of products."""
        properties = torch.cuda.get_device_properties(0)
        a = torch.empty(1 << 28, device=self.device)
        b = torch.empty_like(a)
        copy = self._time(lambda: b.copy_(a))
        rates = {}
        n = 8192
        kinds = (("float32", torch.float32, False), ("tf32", torch.float32, True), ("bfloat16", torch.bfloat16, True))  # fmt: skip
        for name, dtype, fast in kinds:
            torch.backends.cuda.matmul.allow_tf32 = fast
            m = torch.randn(n, n, device=self.device, dtype=dtype)
            rates[name] = 2 * n**3 / self._time(lambda m=m: m @ m)
        return {
            "name": properties.name,
            "sm": 10 * properties.major + properties.minor,
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "torch": torch.__version__,
            "cudnn": torch.backends.cudnn.version(),
            "copy_bytes_per_second": 2 * a.nbytes / copy,
            "matmul_flops_per_second": rates,
        }

    def layer(self, spec: ConvSpec) -> dict[str, float]:
        """Return seconds of one convolution without bias: float32 strictly and as TF32, channels first and last; half precision."""
        found = {}
        for name, dtype, fast, last in (
            ("fp32_nchw", torch.float32, False, False),
            ("fp32_nhwc", torch.float32, False, True),
            ("tf32_nhwc", torch.float32, True, True),
            ("fp16_nhwc", torch.float16, True, True),
        ):
            if last and spec.rank != 2:
                continue
            torch.backends.cudnn.allow_tf32 = fast
            x = torch.randn(spec.data, device=self.device, dtype=dtype)
            w = torch.randn(spec.weight, device=self.device, dtype=dtype)
            if last:
                x, w = (t.to(memory_format=torch.channels_last) for t in (x, w))
            call = _convolution(spec, x, w)
            if call is not None:
                found[name] = self._time(call)
        return found

    def model(self, name: str, batch: int) -> dict[str, float]:
        """Return seconds of a network: eager, and compiled if that was asked for; float32 strictly and as TF32."""
        found = {}
        shape = (batch, *input_shape(name)[1:])
        for label, fast in (("fp32", False), ("tf32", True)):
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = fast
            model = ARCHITECTURES[name]().eval().to(self.device)
            model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            x = torch.randn(shape, device=self.device).to(memory_format=torch.channels_last)
            with torch.no_grad():
                found[f"eager_{label}"] = self._time(lambda m=model, x=x: m(x))
                if self.compiled:
                    # It records CUDA graphs of its own.
                    compiled = torch.compile(model, mode="max-autotune")
                    found[f"compiled_{label}"] = self._events(lambda m=compiled, x=x: m(x))
        return found

    def _time(self, call: Callable[[], Any]) -> float:
        """Return the median seconds of a call, replayed in a CUDA graph as convc's are: Python and launches are not in it."""
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(_CALLS):
                call()
        return self._events(graph.replay) / _CALLS

    def _events(self, call: Callable[[], Any]) -> float:
        for _ in range(3):
            call()
        samples = []
        for _ in range(_REPEATS):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            samples.append(start.elapsed_time(end) / 1e3)
        return statistics.median(samples)


def _convolution(spec: ConvSpec, x: Any, w: Any) -> Callable[[], Any] | None:
    """Return torch's call of a convolution, or None where torch's has no such pads."""
    rank = spec.rank
    begins, ends = spec.pads[:rank], spec.pads[rank:]
    if begins != ends:
        return None
    functional = torch.nn.functional
    if spec.transposed:
        function = getattr(functional, f"conv_transpose{rank}d")
        return lambda: function(x, w, None, spec.strides, begins, spec.output_padding, spec.group, spec.dilations)  # fmt: skip
    function = getattr(functional, f"conv{rank}d")
    return lambda: function(x, w, None, spec.strides, begins, spec.dilations, spec.group)
