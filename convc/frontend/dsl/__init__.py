"""The Python DSL: functions on symbolic tensors, shapes checked at each call, and a graph at the end.

Wherever a tensor is expected, a NumPy array is a constant; a Python number is one, too. Beside a float tensor both take its
element type. A whole number for `strides`, `pads`, `dilations` or `kernel` means the same for every spatial axis; `pads` takes
one value per axis (both sides alike) or all beginnings, then all ends, as ONNX. Names and defaults are ONNX's. Convolution means
cross-correlation unless `filter_flip=True`.

Example:
    >>> import numpy as np
    >>> from convc.frontend import dsl as cc
    >>> rng = np.random.default_rng(0)
    >>> x = cc.input("x", (1, 3, 32, 32))
    >>> h = cc.relu(cc.conv2d(x, rng.standard_normal((16, 3, 3, 3)), pads=1, name="stem"))
    >>> h = cc.max_pool2d(h, 2, strides=2)
    >>> h = h + cc.conv2d(h, rng.standard_normal((16, 16, 3, 3)), bias=np.zeros(16), pads=(1, 1, 1, 1))
    >>> y = cc.softmax(cc.dense(cc.flatten(h), rng.standard_normal((10, 4096)), np.zeros(10)))
    >>> graph = cc.graph({"prob": y}, name="tiny")
    >>> [n.op for n in graph.compute_nodes]
    ['conv', 'relu', 'max_pool', 'conv', 'add', 'reshape', 'dense', 'softmax']
"""

from convc.frontend.dsl.collect import graph
from convc.frontend.dsl.elementwise import (
    abs,
    acos,
    acosh,
    add,
    asin,
    asinh,
    atan,
    atanh,
    ceil,
    clip,
    cos,
    cosh,
    div,
    elu,
    erf,
    exp,
    floor,
    gelu,
    hard_sigmoid,
    hard_swish,
    leaky_relu,
    log,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    reciprocal,
    relu,
    round,
    sigmoid,
    sign,
    silu,
    sin,
    sinh,
    softplus,
    sqrt,
    sub,
    tan,
    tanh,
)
from convc.frontend.dsl.gradient import grad
from convc.frontend.dsl.layers import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    conv_weight_grad,
    dense,
    matmul,
)
from convc.frontend.dsl.movement import concat, flatten, flip, pad, resize_nearest
from convc.frontend.dsl.normalisation import batch_norm, batch_norm_training
from convc.frontend.dsl.pooling import (
    average_pool1d,
    average_pool2d,
    average_pool3d,
    global_average_pool,
    lrn,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from convc.frontend.dsl.reduction import log_softmax, max, mean, min, softmax, sum
from convc.frontend.dsl.tensor import Tensor, constant, input, parameter, reshape, transpose

__all__ = [
    "Tensor",
    "abs",
    "acos",
    "acosh",
    "add",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "average_pool1d",
    "average_pool2d",
    "average_pool3d",
    "batch_norm",
    "batch_norm_training",
    "ceil",
    "clip",
    "concat",
    "constant",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "conv_weight_grad",
    "cos",
    "cosh",
    "dense",
    "div",
    "elu",
    "erf",
    "exp",
    "flatten",
    "flip",
    "floor",
    "gelu",
    "global_average_pool",
    "grad",
    "graph",
    "hard_sigmoid",
    "hard_swish",
    "input",
    "leaky_relu",
    "log",
    "log_softmax",
    "lrn",
    "matmul",
    "max",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mul",
    "neg",
    "pad",
    "parameter",
    "pow",
    "reciprocal",
    "relu",
    "reshape",
    "resize_nearest",
    "round",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "sinh",
    "softmax",
    "softplus",
    "sqrt",
    "sub",
    "sum",
    "tan",
    "tanh",
    "transpose",
]
