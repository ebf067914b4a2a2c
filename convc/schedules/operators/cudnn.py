"""Pools, softmax and their gradients as calls of cuDNN, on CUDA devices; convc's own kernels unless somebody asks for these.

THE ALGORITHM   cuDNN's: cudnnPoolingForward, cudnnPoolingBackward, cudnnSoftmaxForward, cudnnSoftmaxBackward
WHEN            pools of 1 to 3 dimensions, the same padding at both ends, no dilation, no window that hangs over; the mean of a whole
                map, as an average pool with one window; softmax on any axis
ACCURACY        sums in an order that cuDNN does not tell; maxima exact
SOURCE          NVIDIA cuDNN 9, cudnn_ops.h

A maximum's gradient goes to one of equal elements in cuDNN, to each of them in convc's op: only a pin on the node takes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from tvm import te

from convc.ir.graph import Node
from convc.ir.ops.linear import AxisAttributes, ReduceAttributes
from convc.ir.ops.pool import AveragePoolAttributes, MaxPoolAttributes
from convc.ir.ops.pool_grad import SumPoolGradAttributes
from convc.ir.types import TensorType
from convc.runtime.libraries.cudnn import CALL, Pooling, Softmax
from convc.schedules.library_call import library_call
from convc.schedules.operators.operator import OpAlgorithm, Tensors, Types
from convc.schedules.plan import Unsupported
from convc.target import Target

__all__ = [
    "AVERAGE_POOL",
    "LOG_SOFTMAX",
    "LOG_SOFTMAX_GRAD",
    "MAX_POOL",
    "MAX_POOL_GRAD",
    "REDUCE_MEAN",
    "SOFTMAX",
    "SOFTMAX_GRAD",
    "SUM_POOL_GRAD",
]

# bfloat16 did not run on a device yet; others' pools and softmaxes by cuDNN do (FluxML/NNlib.jl#747).
_TYPES: Final = ("float32", "float16", "bfloat16", "float64")
_ON_REQUEST: Final = (
    "taken by a pin, or a policy that names it: a module with it needs cuDNN where it runs"
)
_TIES: Final = "of equal greatest elements in a window cuDNN gives one the gradient, convc's op gives it to each"

Pool: TypeAlias = MaxPoolAttributes | AveragePoolAttributes


def _pool_of(node: Node) -> Pool:
    a = node.attributes
    if isinstance(a, SumPoolGradAttributes):
        return a.pool
    assert isinstance(a, MaxPoolAttributes | AveragePoolAttributes)
    return a


def _data_type(data: TensorType) -> Unsupported | None:
    if data.dtype not in _TYPES:
        return Unsupported(f"element type must be {', '.join(_TYPES)}; got {data.dtype}")
    return None if data.size else Unsupported("data must not be empty")


def _pool_refused(node: Node, data: TensorType, windows: tuple[int, ...]) -> Unsupported | None:
    """Return why cuDNN does not take the pool of `data` with so many windows on each axis."""
    a = _pool_of(node)
    n = len(a.kernel)
    strides, pads = a.strides or (1,) * n, a.pads or (0,) * (2 * n)
    if (refused := _data_type(data)) is not None:
        return refused
    if n > 3:
        return Unsupported(f"windows must have 1 to 3 dimensions; got {a.kernel}")
    if pads[:n] != pads[n:]:
        return Unsupported(f"pads must be equal at both ends of an axis; got {pads}")
    if max(a.dilations, default=1) > 1:
        return Unsupported(f"dilations must be 1; got {a.dilations}")
    whole = tuple(
        (extent + 2 * pad - k) // stride + 1
        for extent, pad, k, stride in zip(data.shape[2:], pads, a.kernel, strides, strict=False)
    )
    if windows != whole:
        return Unsupported(f"no window may hang over the end: there must be {whole}; got {windows}")
    return None


def _pool_supports(node: Node, types: Types) -> Unsupported | None:
    return _pool_refused(node, types[0], node.type.shape[2:])


def _max_grad_supports(node: Node, types: Types) -> Unsupported | None:
    return _pool_refused(node, types[0], types[1].shape[2:])


def _sum_grad_supports(node: Node, types: Types) -> Unsupported | None:
    return _pool_refused(node, node.type, types[0].shape[2:])


def _all_channels(node: Node, types: Types, block: int) -> bool:
    """Whether the block holds all channels of an image: that is channels last, which cuDNN has."""
    return types[0].is_image and types[0].shape[1] <= block


def _pool(
    kind: Literal["pool_forward", "pool_backward"],
    mode_of: Callable[
        [Node], Literal["max", "max_deterministic", "average", "average_exclude_padding"]
    ],
    order: tuple[int, ...] = (0,),
) -> Callable[[Tensors, Node, Types, int, Target], te.Tensor]:
    """Return the computation; `order` is that of the op's operands in the call."""

    def compute(
        tensors: Tensors, node: Node, types: Types, block: int, target: Target
    ) -> te.Tensor:
        a = _pool_of(node)
        n = len(a.kernel)
        mode = mode_of(node)
        # The gradient of the sum under each window is that of the mean, times the window.
        alpha = float(math.prod(a.kernel)) if node.op == "sum_pool_grad" else 1.0
        strides, pads = a.strides or (1,) * n, (a.pads or (0,) * n)[:n]
        text = Pooling(
            kind,
            mode,
            a.kernel,
            strides,
            pads,
            alpha,
            channels_last=block > 0,
            spec=_named(node, types),
        )
        shape = node.type.shape
        if block:
            shape = (shape[0], 1, *shape[2:], block)
        return library_call(CALL, str(text), [tensors[i] for i in order], shape, node.type.dtype)

    return compute


def _mean_supports(node: Node, types: Types) -> Unsupported | None:
    a, data = node.attributes, types[0]
    assert isinstance(a, ReduceAttributes)
    if (refused := _data_type(data)) is not None:
        return refused
    if not 3 <= data.rank <= 5 or tuple(sorted(a.axes)) != tuple(range(2, data.rank)):
        return Unsupported(
            f"a mean must be over all of 1 to 3 spatial axes, and no other; got axes {a.axes} of {data}"
        )
    return None


def _mean_follows(node: Node, types: Types, block: int) -> bool:
    a = node.attributes
    assert isinstance(a, ReduceAttributes)
    return a.keepdims and _all_channels(node, types, block)


def _mean(tensors: Tensors, node: Node, types: Types, block: int, target: Target) -> te.Tensor:
    whole = types[0].shape[2:]
    n = len(whole)
    text = Pooling(
        "pool_forward", "average", whole, (1,) * n, (0,) * n, channels_last=block > 0, spec=_named(node, types)
    )  # fmt: skip
    shape = node.type.shape
    if block:
        shape = (shape[0], 1, *shape[2:], block)
    return library_call(CALL, str(text), tensors, shape, node.type.dtype)


def _softmax_supports(node: Node, types: Types) -> Unsupported | None:
    return _data_type(types[0])


def _softmax(
    kind: Literal["softmax_forward", "softmax_backward"], algorithm: Literal["accurate", "log"]
) -> Callable[[Tensors, Node, Types, int, Target], te.Tensor]:
    def compute(
        tensors: Tensors, node: Node, types: Types, block: int, target: Target
    ) -> te.Tensor:
        a = node.attributes
        assert isinstance(a, AxisAttributes)
        axis = a.axis % node.type.rank
        text = Softmax(kind, algorithm, "channel", axis=axis, spec=_named(node, types))
        return library_call(CALL, str(text), tensors, node.type.shape, node.type.dtype)

    return compute


def _named(node: Node, types: Types) -> str:
    """Return the op as cuDNN's errors name it."""
    return f"{node.op} of {types[0]}"


def _average_mode(node: Node) -> Literal["average", "average_exclude_padding"]:
    a = _pool_of(node)
    counts = isinstance(a, AveragePoolAttributes) and a.count_include_pad
    return "average" if counts else "average_exclude_padding"


def _row(
    compute: Callable[[Tensors, Node, Types, int, Target], te.Tensor],
    supports: Callable[[Node, Types], Unsupported | None],
    *,
    follows: Callable[[Node, Types, int], bool] = lambda node, types, block: False,
    differs: str = "",
) -> OpAlgorithm:
    return OpAlgorithm(
        "cudnn", "cudnn", compute, supports=supports, follows=follows, on_request=_ON_REQUEST, differs=differs
    )  # fmt: skip


MAX_POOL: Final = _row(
    _pool("pool_forward", lambda node: "max"), _pool_supports, follows=_all_channels
)
AVERAGE_POOL: Final = _row(
    _pool("pool_forward", _average_mode), _pool_supports, follows=_all_channels
)
REDUCE_MEAN: Final = _row(_mean, _mean_supports, follows=_mean_follows)
# The deterministic one of cuDNN's two: the other adds up in whatever order threads come.
MAX_POOL_GRAD: Final = _row(
    _pool("pool_backward", lambda node: "max_deterministic", (1, 2, 0)),
    _max_grad_supports,
    follows=_all_channels,
    differs=_TIES,
)
SUM_POOL_GRAD: Final = _row(
    _pool("pool_backward", lambda node: "average"), _sum_grad_supports, follows=_all_channels
)
SOFTMAX: Final = _row(_softmax("softmax_forward", "accurate"), _softmax_supports)
LOG_SOFTMAX: Final = _row(_softmax("softmax_forward", "log"), _softmax_supports)
SOFTMAX_GRAD: Final = _row(_softmax("softmax_backward", "accurate"), _softmax_supports)
LOG_SOFTMAX_GRAD: Final = _row(_softmax("softmax_backward", "log"), _softmax_supports)
