"""torch on the device, cuDNN below it: what convc's times are compared with, and the device's own limits."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
import torch._inductor  # pyright: ignore[reportMissingImports]

from benchmarks.architectures import ARCHITECTURES, folded
from benchmarks.zoo import input_shape
from convc.ir import ConvSpec

__all__ = ["Peer"]

# Times in one measurement, and measurements: their median is reported.
_CALLS, _REPEATS = 20, 5

# Elements of float32 that are copied: 1 GiB, which no L2 holds, and 8 MiB, which every one does with the copy.
_COPIES = {"memory": 1 << 28, "L2": 1 << 21}
# Matrix products of so many rows and columns: name, element type, whether TF32 is allowed.
_SIDE = 8192
_PRODUCTS = (
    ("float32", torch.float32, False),
    ("tf32", torch.float32, True),
    ("bfloat16", torch.bfloat16, True),
    ("float16", torch.float16, True),
)
# Of a layer in float32: what it is called, element type, whether TF32 is allowed, whether channels come last.
_STRICT = (
    ("fp32_nchw", torch.float32, False, False),
    ("fp32_nhwc", torch.float32, False, True),
    ("tf32_nhwc", torch.float32, True, True),
)
# What torch.compile does not try: Triton's kernels in place of cuDNN's and cuBLAS's, and step after step of every other kernel's tile.
_UNSEARCHED = {
    "max_autotune_conv_backends": "ATEN",
    "max_autotune_gemm_backends": "ATEN",
    "coordinate_descent_tuning": False,
}
_SHORT = {"float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}


class Peer:
    """Times by CUDA events, after warming up; cuDNN picks its algorithm by trying all of them."""

    def __init__(self, device: str = "cuda") -> None:
        self.device = device
        torch.backends.cudnn.benchmark = True

    def facts(self) -> dict[str, Any]:
        """Return the device's properties, the versions, and its ceilings: bytes/s of copies in memory and in the L2, FLOP/s of products."""
        properties = torch.cuda.get_device_properties(0)
        copies = {}
        for name, elements in _COPIES.items():
            a = torch.empty(elements, device=self.device)
            b = torch.empty_like(a)
            copies[name] = 2 * a.nbytes / self._time(lambda a=a, b=b: b.copy_(a))
        rates = {}
        for name, dtype, fast in _PRODUCTS:
            torch.backends.cuda.matmul.allow_tf32 = fast
            m = torch.randn(_SIDE, _SIDE, device=self.device, dtype=dtype)
            rates[name] = 2 * _SIDE**3 / self._time(lambda m=m: m @ m)
        return {
            "name": properties.name,
            "sm": 10 * properties.major + properties.minor,
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "torch": torch.__version__,
            "cudnn": torch.backends.cudnn.version(),
            "copy_bytes_per_second": copies,
            "matmul_flops_per_second": rates,
        }

    def layer(self, spec: ConvSpec) -> dict[str, float]:
        """Return seconds of one convolution without bias: float32 strictly and as TF32, channels first and last, or its narrower type."""
        found = {}
        half = (
            (f"{_SHORT.get(spec.dtype, spec.dtype)}_nhwc", getattr(torch, spec.dtype), True, True),
        )
        for name, dtype, fast, last in _STRICT if spec.dtype == "float32" else half:
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

    def model(self, name: str, batch: int, dtype: str) -> dict[str, float]:
        """Return seconds of a network by eager torch in a CUDA graph, which is cuDNN's: float32 strictly and as TF32, or half precision.

        As it is ("eager_fp16") and with its batch normalisations folded into the convolutions ("folded_fp16").
        """
        kinds = (("fp32", False), ("tf32", True)) if dtype == "float32" else (("fp16", True),)
        found = {}
        for label, fast in kinds:
            for way, folds in (("eager", False), ("folded", True)):
                model, x = self._network(name, batch, dtype, fast, folds=folds)
                with torch.no_grad():
                    found[f"{way}_{label}"] = self._time(lambda model=model, x=x: model(x))
        return found

    def compiled(self, name: str, batch: int, dtype: str, kind: str = "") -> float:
        """Return seconds of a network by torch.compile's max-autotune, which takes minutes; batch normalisations are folded.

        Args:
            name: of the network.
            batch: images.
            dtype: of everything.
            kind: "tf32": as TF32; "cudnn": with nothing to search for, convolutions are cuDNN's and products cuBLAS's, which takes seconds.
        """
        model, x = self._network(name, batch, dtype, kind == "tf32", folds=True)
        options = torch._inductor.list_mode_options("max-autotune")
        compiled = torch.compile(model, options=options | (_UNSEARCHED if kind == "cudnn" else {}))
        with torch.no_grad():
            # It records CUDA graphs of its own.
            return self._events(lambda: compiled(x))

    def _network(
        self, name: str, batch: int, dtype: str, fast: bool, *, folds: bool
    ) -> tuple[Any, Any]:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = fast
        kind, last = getattr(torch, dtype), torch.channels_last
        made = ARCHITECTURES[name]().eval()
        # Folded in float32, before anything is rounded.
        model = (folded(made) if folds else made).to(self.device, kind)
        x = torch.randn((batch, *input_shape(name)[1:]), device=self.device, dtype=kind)
        return model.to(memory_format=last), x.to(memory_format=last)  # pyright: ignore[reportCallIssue]

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
