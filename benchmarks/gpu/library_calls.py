"""cuDNN through convc's shim, call by call: kinds, element types, memory orders, epilogues, policies, pooling, softmax; what a call costs.

Data are small whole numbers: sums are exact in float32 whatever their order, and a narrower result is that sum rounded once. Only
engines that transform (FFT, Winograd) may round more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import tvm_ffi

from benchmarks.gpu.job import worst_error
from convc.ir import ConvSpec
from convc.ir.ops.conv import convolve, convolve_transposed
from convc.ir.ops.conv_weight_grad import convolve_weight_grad
from convc.ir.types import numpy_dtype
from convc.runtime import TargetInfo
from convc.runtime.cuda import CudaRuntime, cuda_runtime
from convc.runtime.libraries.cudnn import (
    POLICIES,
    Description,
    Pooling,
    Softmax,
    compile_shim,
    prepare,
)
from convc.runtime.library import runtime_library
from convc.schedules.error_bound import relative_error

__all__ = ["LibraryCall", "build_calls", "library_calls", "operation_calls", "run_calls"]

_NAME: Final = "cudnn"
_SPEC: Final = ConvSpec.of((2, 16, 14, 14), (32, 16, 3, 3), pads=(1, 1, 1, 1))
_SHAPES: Final = {
    "2-d": _SPEC,
    "1-d": ConvSpec.of((2, 16, 40), (32, 16, 5), strides=(2,), pads=(2, 2)),
    "3-d": ConvSpec.of((1, 8, 6, 8, 8), (16, 8, 3, 3, 3), pads=(1,) * 6),
    "groups, dilation": ConvSpec.of((2, 16, 15, 14), (32, 4, 3, 3), dilations=(2, 1), group=4),
    "depthwise": ConvSpec.of((2, 16, 14, 14), (16, 1, 3, 3), pads=(1, 1, 1, 1), group=16),
}
# Where cuDNN may have no engine: an answer, not a failure. A residual without a bias is one of them: 9.19 has none for an H200, and
# modules add it behind the call.
_OPTIONAL: Final = ("fft", "fft_tiling", "winograd", "winograd_non_fused", "none")
_OPTIONAL_STEPS: Final = ("add",)


@dataclass(frozen=True)
class LibraryCall:
    """One call.

    Attributes:
        name: for people.
        spec: of the forward convolution.
        kind: as `Description` has it.
        dtype: of all tensors.
        fields: of the description, what is not default.
        optional: whether "no engine" is an answer.
    """

    name: str
    spec: ConvSpec
    kind: Any = "forward"
    dtype: str = "float32"
    fields: Mapping[str, Any] = field(default_factory=dict)
    optional: bool = False

    @property
    def description(self) -> Description:
        spec = self.spec
        pads = spec.pads[: spec.rank]
        return Description(self.kind, spec.strides, pads, spec.dilations, spec=spec.key, **self.fields)  # fmt: skip


def library_calls() -> Iterator[LibraryCall]:
    """Yield every call of the check."""
    kinds = ("forward", "data_gradient", "weight_gradient")
    for name, spec in _SHAPES.items():
        for kind in kinds:
            yield LibraryCall(f"{kind} {name}", spec, kind)
    for dtype in ("float16", "bfloat16", "float64"):
        for kind in kinds:
            strict = {"strict": dtype == "float64"}
            yield LibraryCall(f"{kind} {dtype}", _SPEC, kind, dtype, strict, dtype == "float64")
    for dtype, strict in (("float32", True), ("float32", False), ("float16", False), ("bfloat16", False)):  # fmt: skip
        fields = {"channels_last": True, "strict": strict}
        name = f"forward NHWC {dtype}{'' if strict else ' any math'}"
        yield LibraryCall(name, _SPEC, "forward", dtype, fields)
    yield LibraryCall("forward tf32", _SPEC, fields={"strict": False})
    yield LibraryCall("alpha, beta", _SPEC, fields={"alpha": 2.0, "beta": -3.0}, optional=True)
    for steps in (("bias",), ("bias", "relu"), ("bias", "add", "relu"), ("add",), ("bias", "clip:0.0:6.0")):  # fmt: skip
        name, optional = ", ".join(steps), steps == _OPTIONAL_STEPS
        yield LibraryCall(f"forward + {name}", _SPEC, fields={"steps": steps}, optional=optional)
        half = {"steps": steps, "strict": False}
        yield LibraryCall(f"forward float16 + {name}", _SPEC, "forward", "float16", half, optional)  # fmt: skip
    for policy in POLICIES:
        fields = {"policy": policy, "transforms": True, "workspace": 1 << 30}
        yield LibraryCall(f"policy {policy}", _SPEC, fields=fields, optional=policy in _OPTIONAL)
    for rank in range(1, 4):
        yield LibraryCall(f"rank {rank}", _SPEC, fields={"rank": rank})
    yield LibraryCall("deterministic", _SPEC, fields={"deterministic": True})
    yield LibraryCall("deterministic weight gradient", _SPEC, "weight_gradient", fields={"deterministic": True})  # fmt: skip


def operation_calls() -> Iterator[tuple[str, Pooling | Softmax]]:
    """Yield the poolings and softmaxes, forward; each is followed by its gradient where it runs."""
    yield "softmax on the last axis", Softmax("softmax_forward", axis=3)
    yield "softmax on the first axis", Softmax("softmax_forward", axis=0)
    for mode in ("max", "max_deterministic", "average", "average_exclude_padding"):
        for rank in (1, 2, 3):
            geometry = ((3,) * rank, (2,) * rank, (1,) * rank)
            yield f"pooling {mode} {rank}-d", Pooling("pool_forward", mode, *geometry)
    for algorithm in ("accurate", "log", "fast"):
        for mode in ("channel", "instance"):
            yield f"softmax {algorithm} {mode}", Softmax("softmax_forward", algorithm, mode)


def build_calls(module: Path) -> None:
    """Write the shim with its cost function as a library of its own.

    Raises:
        ToolchainError, LoweringError: as `compile_shim`.
    """
    source = Path(__file__).with_name("cudnn_cost.cc")
    module.write_bytes(compile_shim(("-shared",), str(source)))


def run_calls(module: Path) -> dict[str, Any]:
    """Run every call on the first device; return a row each, and the cost of one.

    Raises:
        ToolchainError: if there is no device or no cuDNN.
    """
    runtime = runtime_library()
    cuda = cuda_runtime(runtime, TargetInfo("cuda", "", "", device=("ptx_50",)))
    prepare()
    library = tvm_ffi.load_module(str(module))
    rows = [_run(call, library, cuda) for call in library_calls()]
    rows += [_run_operation(name, call, library, cuda) for name, call in operation_calls()]
    return {"cases": rows, "call_microseconds": _cost(library, cuda)}


def _run(call: LibraryCall, library: tvm_ffi.Module, cuda: CudaRuntime) -> dict[str, Any]:
    row: dict[str, Any] = {"algorithm": _NAME, "key": call.name, "knobs": {}, "ok": False}
    arrays, result = _arrays(call)
    exact, limit = _expected(call, arrays, result)
    tensors = [cuda.upload(_stored(call, a)) for a in (*arrays, result)]
    text = str(call.description)
    try:
        began = time.perf_counter()
        library.get_function("convc_cudnn")(text, *tensors)
        cuda.synchronize()
        row["first_seconds"] = time.perf_counter() - began
        row["plan"] = str(library.get_function("convc_cudnn_plan")(text, *tensors))
        row["named_seconds"] = _named(text, row["plan"], tensors, library, cuda)
    except (RuntimeError, ValueError) as error:
        row["plan"] = str(error).strip().splitlines()[-1][:300]
        row["ok"] = call.optional and "must have an engine" in str(error)
        return row
    stored = np.empty_like(_stored(call, result))
    cuda.download(tensors[-1], stored)
    found = np.moveaxis(stored, -1, 1) if call.fields.get("channels_last") else stored
    error = np.abs(found.astype(np.float64) - exact)
    row["exact_error"] = float(error.max(initial=0))
    row["ok"] = bool(np.all(error <= limit))
    return row


def _named(
    text: str, plan: str, tensors: list[Any], library: tvm_ffi.Module, cuda: CudaRuntime
) -> float:
    """Return the seconds of a first call whose engine and settings are named, as a tuned module has them."""
    engine, knobs, _ = plan.split(";")
    named = text.replace("engine=;knobs=;", f"{engine};{knobs};") + " named"
    began = time.perf_counter()
    library.get_function("convc_cudnn")(named, *tensors[:-1], cuda.empty(tensors[-1].shape, str(tensors[-1].dtype)))  # fmt: skip
    cuda.synchronize()
    return time.perf_counter() - began


def _run_operation(
    name: str, call: Pooling | Softmax, library: tvm_ffi.Module, cuda: CudaRuntime
) -> dict[str, Any]:
    """Run a pooling or softmax and its gradient; the gradient is held against what its definition gives for the values that came out."""
    row: dict[str, Any] = {"algorithm": _NAME, "key": name, "knobs": {}, "ok": False, "plan": ""}
    rank = len(call.window) if isinstance(call, Pooling) else 2
    x = np.random.default_rng(3).permutation(6 * 9**rank).reshape(2, 3, *(9,) * rank).astype(np.float32)  # fmt: skip
    x = x if isinstance(call, Pooling) else x / 100
    spatial = (5,) * rank if isinstance(call, Pooling) else x.shape[2:]
    y, dx = np.zeros((*x.shape[:2], *spatial), np.float32), np.zeros_like(x)
    dy = np.random.default_rng(4).integers(-4, 5, y.shape).astype(np.float32)
    on_device = {n: cuda.upload(a) for n, a in (("x", x), ("y", y), ("dy", dy), ("dx", dx))}
    back = replace(call, kind=call.kind.replace("forward", "backward"))
    order = ("y", "dy", "x", "dx") if isinstance(call, Pooling) else ("y", "dy", "dx")
    try:
        library.get_function("convc_cudnn")(str(call), on_device["x"], on_device["y"])
        library.get_function("convc_cudnn")(str(back), *(on_device[n] for n in order))
        cuda.download(on_device["y"], y)
        cuda.download(on_device["dx"], dx)
    except (RuntimeError, ValueError) as error:
        row["plan"] = str(error).strip().splitlines()[-1][:300]
        return row
    forward, backward = _operation_reference(call, x.astype(np.float64), dy.astype(np.float64))
    row["exact_error"] = worst_error(((y, forward), (dx, backward)))
    # Nine additions of float32, or an exponential and a sum of some hundred: no more than 64 roundings. `fast` is within that for data
    # that do not overflow.
    row["ok"] = bool(row["exact_error"] <= 64 * np.finfo(np.float32).eps)
    return row


def _operation_reference(
    call: Pooling | Softmax, x: np.ndarray, dy: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(call, Softmax):
        axes = (call.axis,) if call.mode == "channel" else tuple(range(1, x.ndim))
        shifted = x - x.max(axes, keepdims=True)
        log = shifted - np.log(np.exp(shifted).sum(axes, keepdims=True))
        y = np.exp(log)
        if call.algorithm == "log":
            return log, dy - y * dy.sum(axes, keepdims=True)
        return y, y * (dy - (dy * y).sum(axes, keepdims=True))
    y, dx = np.zeros_like(dy), np.zeros_like(x)
    for place in np.ndindex(*dy.shape):
        slices = (*place[:2], *(slice(max(0, 2 * i - 1), 2 * i + 2) for i in place[2:]))
        under = x[slices]
        if call.mode.startswith("max"):
            y[place] = under.max()
            dx[slices] += dy[place] * (under == under.max())
        else:
            count = 3 ** (x.ndim - 2) if call.mode == "average" else under.size
            y[place] = under.sum() / count
            dx[slices] += dy[place] / count
    return y, dx


def _stored(call: LibraryCall, array: np.ndarray) -> np.ndarray:
    if call.fields.get("channels_last") and array.ndim > 1:
        array = np.moveaxis(array, 1, -1)
    return np.ascontiguousarray(array)


def _arrays(call: LibraryCall) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the operands and what the result's memory holds before."""
    spec, rng = call.spec, np.random.default_rng(7)

    def whole(shape: tuple[int, ...]) -> np.ndarray:
        return rng.integers(-2, 3, shape).astype(numpy_dtype(call.dtype))

    x, w, y = whole(spec.data), whole(spec.weight), whole(spec.output)
    if call.kind == "data_gradient":
        return [y, w], x
    if call.kind == "weight_gradient":
        return [x, y], w
    extras = [
        whole((spec.out_channels,) if s == "bias" else spec.output)
        for s in call.fields.get("steps", ())
        if s in ("bias", "add")
    ]
    return [x, w, *extras], y


def _expected(
    call: LibraryCall, arrays: list[np.ndarray], before: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the result and by how much it may differ."""
    wide = [a.astype(np.float64) for a in arrays]

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if call.kind == "weight_gradient":
            return convolve_weight_grad(a, b, call.spec)
        if call.kind == "data_gradient":
            return _data_gradient(a, b, call.spec)
        return convolve(a, b, call.spec)

    result = product(*wide[:2])
    result = call.fields.get("alpha", 1.0) * result + call.fields.get("beta", 0.0) * before.astype(np.float64)  # fmt: skip
    extras = iter(wide[2:])
    for step in call.fields.get("steps", ()):
        if step == "bias":
            result = result + next(extras).reshape(1, -1, *(1,) * call.spec.rank)
        elif step == "add":
            result = result + next(extras)
        else:
            low, high = (float(n) for n in (step.split(":")[1:] or ("0", "inf")))
            result = np.clip(result, low, high)
    exact = result.astype(numpy_dtype(call.dtype)).astype(np.float64)
    limit = np.zeros_like(exact)
    if call.fields.get("transforms"):
        limit += relative_error(_NAME, call.spec, {}) * product(*map(np.abs, wide[:2]))
    return exact, limit


def _data_gradient(dy: np.ndarray, w: np.ndarray, spec: ConvSpec) -> np.ndarray:
    """Return the gradient of the data: a transposed convolution whose result has the data's shape."""
    n = spec.rank
    reach = [
        (o - 1) * s - 2 * p + d * (k - 1) + 1
        for o, s, p, d, k in zip(spec.output[2:], spec.strides, spec.pads[:n], spec.dilations, spec.weight[2:], strict=True)
    ]  # fmt: skip
    rest = tuple(e - r for e, r in zip(spec.data[2:], reach, strict=True))
    back = ConvSpec.of(
        dy.shape, w.shape, strides=spec.strides, pads=spec.pads, dilations=spec.dilations, group=spec.group,
        transposed=True, output_padding=rest,
    )  # fmt: skip
    return convolve_transposed(dy, w, back)


def _cost(library: tvm_ffi.Module, cuda: CudaRuntime) -> dict[str, float]:
    """Return microseconds of a call through the shim and of cuDNN's own, for a convolution that takes the device hardly longer."""
    call = LibraryCall("cost", ConvSpec.of((1, 8, 8, 8), (8, 8, 1, 1)), fields={"workspace": 0})
    arrays, result = _arrays(call)
    tensors = [cuda.upload(a) for a in (*arrays, result)]
    measure, text = library.get_function("convc_cudnn_cost"), str(call.description)
    least = {"ours": np.inf, "direct": np.inf}
    for _ in range(20):
        for name, value in (pair.split("=") for pair in str(measure(text, *tensors)).split(";")):
            least[name] = min(least[name], float(value))
        cuda.synchronize()
    return least
