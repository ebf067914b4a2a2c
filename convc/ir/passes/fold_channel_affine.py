"""Fold a per-channel scale and shift after a layer (an imported BatchNormalization) into its weights and bias."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from convc.ir.epilogue import Step
from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops.definition import Array
from convc.ir.passes.affine import Affine, follow, is_finite
from convc.ir.passes.channels import LAYERS, is_layer_attributes, scaled
from convc.ir.passes.rewrite import Rewriter, read_once
from convc.ir.passes.uniform import splat, uniform_element
from convc.ir.types import numpy_dtype

__all__ = ["fold_channel_affine"]

_BIAS = (Step("bias"),)


@dataclass(frozen=True, slots=True)
class _Fold:
    """A layer, the nodes that follow it, and the weights (None: as they are) and bias that do the work of all."""

    layer: Node
    absorbed: tuple[Node, ...]
    weight: Array | None
    bias: Array | None


def _new_weight(layer: Node, weight: Node, scale: Array) -> Array:
    dtype = numpy_dtype(weight.type.dtype)
    element = uniform_element(weight)
    if element is not None and (scale == scale[0]).all():
        return splat((element.astype(np.float64) * scale[0]).astype(dtype), weight.type.shape)
    return scaled(layer, weight.value, scale).astype(dtype)


def _fold(graph: Graph, layer: Node) -> _Fold | None:
    """Return what a layer and its chain of affine nodes become; None if there is no chain or it must stay."""
    a = layer.attributes
    _, weight, *biases = graph.operands(layer)
    if not is_layer_attributes(a) or a.epilogue not in ((), _BIAS) or not layer.type.size:
        return None
    if any(o.op != CONSTANT for o in (weight, *biases)):
        return None
    channels = layer.type.shape[1]
    shift = biases[0].value.astype(np.float64) if biases else np.zeros(channels)
    affine, absorbed, value = Affine(np.ones(channels), shift), [], layer
    while read_once(graph, value.name):
        node = graph.users[value.name][0]
        longer = follow(graph, affine, value, node)
        if longer is None:
            break
        affine, value = longer, node
        absorbed.append(node)
    if not absorbed:
        return None
    new = None if (affine.scale == 1).all() else _new_weight(layer, weight, affine.scale)
    bias = (
        affine.shift.astype(numpy_dtype(layer.type.dtype)) if biases or affine.shift.any() else None
    )
    if not all(is_finite(array) for array in (new, bias) if array is not None):
        return None
    return _Fold(layer, tuple(absorbed), new, bias)


def _write(r: Rewriter, fold: _Fold) -> None:
    name = fold.layer.name
    data, weight, *_ = r.operands(fold.layer)
    a = fold.layer.attributes
    assert is_layer_attributes(a)
    operands = [
        data,
        weight if fold.weight is None else r.constant(f"{weight.name}_scaled", fold.weight),
    ]
    if fold.bias is not None:
        operands.append(r.constant(f"{name}_bias", fold.bias))
    epilogue = () if fold.bias is None else _BIAS
    r.add(name, fold.layer.op, operands, replace(a, epilogue=epilogue))
    # Nobody else reads what lies in between.
    r.forward(fold.absorbed[-1], name)


def fold_channel_affine(graph: Graph) -> Graph:
    """Return the graph with mul, div, add and sub by per-channel constants folded into the layer before them.

    The layer is a conv, conv_transpose or dense node with constant weights; a constant is per channel if it is a scalar or
    broadcasts as (1, K, 1, 1). A whole chain is folded at once: its products and sums are float64 and rounded once. Only what
    follows a layer is folded, nothing before it: zero padding comes in between.

    The layer keeps its name, by which users know it, and stands where the chain ended.

    Rewrite:
        %s = constant dense([2.0, 3.0]) : f32[1,2,1,1];  %t = constant dense([0.5, 1.0]) : f32[2,1,1]
        %w = constant dense([1.0, 10.0]) : f32[2,1,1,1]
        %c = conv(%x, %w);  %m = mul(%c, %s);  %y = add(%m, %t)
        -->
        %w_scaled = constant dense([2.0, 30.0]) : f32[2,1,1,1];  %c_bias = constant dense([0.5, 1.0]) : f32[2]
        %c = conv(%x, %w_scaled, %c_bias) {epilogue = [bias]}
    Unless:
        a value in between has another user or is a graph output; the layer has more than a constant bias in its epilogue; weights
        or bias would overflow.
    """
    r = Rewriter(graph)
    folds: dict[str, _Fold] = {}
    absorbed: set[str] = set()
    for node in graph.nodes:
        if node.op in LAYERS:
            # 0/0 and overflow give what is not finite, and that is not folded.
            with np.errstate(all="ignore"):
                fold = _fold(graph, node)
            if fold is not None:
                folds[fold.absorbed[-1].name] = fold
                absorbed.update((node.name, *(n.name for n in fold.absorbed)))
        if node.name in folds:
            _write(r, folds[node.name])
        elif node.name not in absorbed:
            r.keep(node)
    return r.finish()
