"""What a call of the shim says: everything about one operation and about how cuDNN shall compute it, as text.

The other side is `native/description.h`. The text is part of the module's code: at run time nothing is decided anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["CALL", "CALL_PLAN", "POLICIES", "WORKSPACE", "Description", "Pooling", "Softmax"]

# The shim's symbols, as `call_cpacked` wants them: by their full names.
CALL: Final = "__tvm_ffi_convc_cudnn"
CALL_PLAN: Final = "__tvm_ffi_convc_cudnn_plan"

# Theano's and cuDNN's names of algorithms, and cuDNN's ways to rank engines: "heuristic" is mode A, then the fallback; "time" runs the
# first ten of mode A, of mode B and of the fallback on the tensors of the first call and takes the fastest. Records count the names: a
# new one goes to the end.
POLICIES: Final = (
    "heuristic", "heuristic_b", "fallback", "none", "small", "large", "fft", "fft_tiling", "winograd", "winograd_non_fused",
    "deterministic", "time",
)  # fmt: skip

# With 8 MB a search of cuDNN loses its tensor-core algorithms, above 256 MB it gains nothing more (sonots/cumo#502: ResNet-18 9.8 ms,
# 5.2 ms at 128 MB).
WORKSPACE: Final = 256 << 20

Kind = Literal["forward", "data_gradient", "weight_gradient"]


@dataclass(frozen=True, slots=True)
class Description:
    """One convolution.

    Attributes:
        kind: forward (data, weight, operands of steps..., result), data_gradient (dy, weight, dx) or weight_gradient (data, dy, dw).
        strides, pads, dilations: one value for each of 1 to 3 spatial dimensions; the pads hold at both ends.
        steps: what follows each sum: "bias", "add", "relu", "clip:LOW:HIGH"; forward only.
        alpha, beta: result = alpha * convolution + beta * result.
        channels_last: whether shapes are (N, *spatial, C) and (K, *kernel, C), else (N, C, *spatial).
        strict: no tensor cores and no narrower inputs, so that float32 is float32 (not TF32).
        transforms: also engines that sum transformed values (FFT, Winograd), which round where the direct sum does not.
        compiles: also engines that cuDNN compiles in the process that runs them (NVRTC, some 0.2 s each); they are taken without it only
            where no other is to be had.
        policy: one of `POLICIES`.
        when: "per_shape": chosen anew for tensors of another shape; "once": the first shape's engine, where it takes the next one.
        deterministic: only engines that give the same bits at every run.
        workspace: the most bytes beside the operands.
        rank: which of the engines that the policy admits and that can be made, the best first; the last where there are fewer.
        engine, knobs: cuDNN's numbers of the engine and its settings, as recorded when the model was tuned; None: by the policy.
        spec: the convolution's name in messages.

    Example:
        >>> print(Description("forward", (1, 1), (1, 1), (1, 1), steps=("bias", "relu"), spec="conv2d-f32"))
        kind=forward;layout=NCHW;strides=1,1;pads=1,1;dilations=1,1;steps=bias,relu;alpha=1.0;beta=0.0;math=strict;transforms=0;compiles=0;policy=heuristic;rank=0;when=per_shape;deterministic=0;workspace=268435456;engine=;knobs=;spec=conv2d-f32
    """

    kind: Kind
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    steps: tuple[str, ...] = ()
    alpha: float = 1.0
    beta: float = 0.0
    channels_last: bool = False
    strict: bool = True
    transforms: bool = False
    compiles: bool = False
    policy: str = "heuristic"
    rank: int = 0
    when: Literal["once", "per_shape"] = "per_shape"
    deterministic: bool = False
    workspace: int = WORKSPACE
    engine: int | None = None
    knobs: tuple[tuple[int, int], ...] = ()
    spec: str = ""

    def __str__(self) -> str:
        fields = {
            "kind": self.kind,
            "layout": _layout(self.channels_last),
            "strides": _numbers(self.strides),
            "pads": _numbers(self.pads),
            "dilations": _numbers(self.dilations),
            "steps": ",".join(self.steps),
            "alpha": repr(self.alpha),
            "beta": repr(self.beta),
            "math": "strict" if self.strict else "any",
            "transforms": int(self.transforms),
            "compiles": int(self.compiles),
            "policy": self.policy,
            "rank": self.rank,
            "when": self.when,
            "deterministic": int(self.deterministic),
            "workspace": self.workspace,
            "engine": "" if self.engine is None else self.engine,
            "knobs": ",".join(f"{name}:{value}" for name, value in self.knobs),
            "spec": self.spec,  # the last: messages show what stands behind it
        }
        return _text(fields)


@dataclass(frozen=True, slots=True)
class Pooling:
    """One pooling, of 1 to 3 spatial dimensions, or its gradient.

    Attributes:
        kind: pool_forward (data, result) or pool_backward (result, its gradient, data, the data's gradient); of an average also
            without result and data, whose values it does not need.
        mode: max, max_deterministic (its gradient has the same bits at every run), average (padding counts) or
            average_exclude_padding.
        window, strides, pads: one value for each spatial dimension; the pads hold at both ends.
        alpha, beta: result = alpha * pooling + beta * result.
        channels_last: as in `Description`.
        spec: its name in messages.

    Example:
        >>> print(Pooling("pool_forward", "max", (2, 2), (2, 2), (0, 0), spec="pool2"))
        kind=pool_forward;mode=max;layout=NCHW;window=2,2;strides=2,2;pads=0,0;alpha=1.0;beta=0.0;spec=pool2
    """

    kind: Literal["pool_forward", "pool_backward"]
    mode: Literal["max", "max_deterministic", "average", "average_exclude_padding"]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    alpha: float = 1.0
    beta: float = 0.0
    channels_last: bool = False
    spec: str = ""

    def __str__(self) -> str:
        fields = {
            "kind": self.kind,
            "mode": self.mode,
            "layout": _layout(self.channels_last),
            "window": _numbers(self.window),
            "strides": _numbers(self.strides),
            "pads": _numbers(self.pads),
            "alpha": repr(self.alpha),
            "beta": repr(self.beta),
            "spec": self.spec,
        }
        return _text(fields)


@dataclass(frozen=True, slots=True)
class Softmax:
    """One softmax of (N, C, spatial...), or its gradient.

    Attributes:
        kind: softmax_forward (data, result) or softmax_backward (result, its gradient, the data's gradient).
        algorithm: accurate (the greatest value is subtracted first), log (log-softmax, likewise) or fast (may overflow).
        mode: channel (over C at each place) or instance (over C and all places).
        axis: in mode channel, which axis of a plain tensor without gaps C is.
        alpha, beta: result = alpha * softmax + beta * result.
        channels_last: as in `Description`.
        spec: its name in messages.
    """

    kind: Literal["softmax_forward", "softmax_backward"]
    algorithm: Literal["accurate", "log", "fast"] = "accurate"
    mode: Literal["channel", "instance"] = "channel"
    alpha: float = 1.0
    beta: float = 0.0
    channels_last: bool = False
    axis: int = 1
    spec: str = ""

    def __str__(self) -> str:
        fields = {
            "kind": self.kind,
            "algorithm": self.algorithm,
            "mode": self.mode,
            "axis": self.axis,
            "layout": _layout(self.channels_last),
            "alpha": repr(self.alpha),
            "beta": repr(self.beta),
            "spec": self.spec,
        }
        return _text(fields)


def _numbers(values: tuple[int, ...]) -> str:
    return ",".join(map(str, values))


def _layout(channels_last: bool) -> str:
    return "NHWC" if channels_last else "NCHW"


def _text(fields: Mapping[str, object]) -> str:
    return ";".join(f"{name}={value}" for name, value in fields.items())
