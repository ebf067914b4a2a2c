"""Sums of bytes that begin with the bias, which then is not added behind them: one instruction of nine where a sum is of few products.

Rewrite:
    acc[k, lane] = 0;  ...;  y[k, lane] = (acc[k, lane] + bias[k, lane]) * factor[k, lane]
    -->
    acc[k, lane] = bias[k, lane];  ...;  y[k, lane] = acc[k, lane] * factor[k, lane]
"""

from __future__ import annotations

from typing import Any, Final

import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad

from convc.schedules.plan import Knobs

__all__ = ["begin_with_bias"]

# Of the parameters of a layer of bytes.
_BIAS: Final = 2


def begin_with_bias(func: tirx.PrimFunc, knobs: Knobs) -> tirx.PrimFunc:
    """Return a scheduled function of `schedules.quantized` whose sums begin with the bias.

    Args:
        func: its sums are acc[n, k, ..., lane] of `vectors` vectors of `block` lanes.
        knobs: of the layer.
    """
    bias = func.params[_BIAS]
    vectors, block = knobs["vectors"], knobs["block"]
    # A vector of the last group may be of no block.
    last = int(bias.shape[0]) - 1

    def begun(store: Any) -> Any:
        if not _is_sum(store.buffer) or not isinstance(store.value, tirx.IntImm):
            return store
        k, lane = store.indices[1], store.indices[-1]
        if vectors > 1:
            k, lane = tirx.min(k * vectors + lane // block, last), lane % block
        return tirx.BufferStore(store.buffer, tirx.BufferLoad(bias, [k, lane]), store.indices)

    def bare(add: Any) -> Any:
        loads = isinstance(add.a, TensorLoad) and isinstance(add.b, TensorLoad)
        return add.a if loads and _is_sum(add.a.source) and add.b.source.same_as(bias) else add

    body = tvm_ffi.structural_map(func.body, [(tirx.BufferStore, begun), (tirx.Add, bare)])
    return func.with_body(body)


def _is_sum(buffer: Any) -> bool:
    return str(buffer.name).startswith("acc")
