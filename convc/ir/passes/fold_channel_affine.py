"""Fold a per-channel scale and shift after a layer (an imported BatchNormalization) into its weights and bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from convc.ir.epilogue import Step
from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops.definition import Array
from convc.ir.passes.channels import LAYERS, is_layer_attributes, is_per_channel, scaled
from convc.ir.passes.rewrite import Rewriter
from convc.ir.passes.uniform import splat, uniform_element
from convc.ir.types import numpy_dtype

__all__ = ["fold_channel_affine"]

_BIAS = (Step("bias"),)


@dataclass(frozen=True, slots=True)
class _Affine:
    """y -> scale * y + shift, per channel, both (K,) in float64: a whole chain is rounded once, at its end."""

    scale: Array
    shift: Array

    def then(self, op: str, c: Array, *, constant_first: bool) -> _Affine | None:
        """Return this followed by an elementwise op with the constant `c`; None if that is not affine."""
        match op, constant_first:
            case "mul", _:
                return _Affine(self.scale * c, self.shift * c)
            case "div", False:
                return _Affine(self.scale / c, self.shift / c)
            case "add", _:
                return _Affine(self.scale, self.shift + c)
            case "sub", False:
                return _Affine(self.scale, self.shift - c)
            case "sub", True:
                return _Affine(-self.scale, c - self.shift)
        return None


@dataclass(frozen=True, slots=True)
class _Fold:
    """A layer, the nodes that follow it, and the weights (None: as they are) and bias that do the work of all."""

    layer: Node
    absorbed: tuple[Node, ...]
    weight: Array | None
    bias: Array | None


def _followed_by(
    affine: _Affine, layer: Node, value: str, node: Node, operands: Sequence[Node]
) -> _Affine | None:
    """Return `affine`, whose result is `value`, followed by `node`; None unless the other operand is a per-channel constant."""
    if len(operands) != 2 or node.type != layer.type or node.inputs[0] == node.inputs[1]:
        return None
    constant_first = node.inputs[1] == value
    other = operands[0 if constant_first else 1]
    if other.op != CONSTANT or not is_per_channel(other.type.shape, layer.type):
        return None
    c = np.broadcast_to(other.value.astype(np.float64).reshape(-1), affine.shift.shape)
    return affine.then(node.op, c, constant_first=constant_first)


def _new_weight(layer: Node, weight: Node, scale: Array) -> Array:
    dtype = numpy_dtype(weight.type.dtype)
    element = uniform_element(weight)
    if element is not None and (scale == scale[0]).all():
        return splat((element.astype(np.float64) * scale[0]).astype(dtype), weight.type.shape)
    return scaled(layer, weight.value, scale).astype(dtype)


def _is_finite(array: Array | None) -> bool:
    # A splat's elements are all its first one; bfloat16 has no isfinite of its own.
    return array is None or bool(np.isfinite(array.astype(np.float64)).all())


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
    affine, absorbed, value = _Affine(np.ones(channels), shift), [], layer.name
    while len(graph.users[value]) == 1 and value not in graph.output_values:
        node = graph.users[value][0]
        longer = _followed_by(affine, layer, value, node, graph.operands(node))
        if longer is None:
            break
        affine, value = longer, node.name
        absorbed.append(node)
    if not absorbed:
        return None
    new = None if (affine.scale == 1).all() else _new_weight(layer, weight, affine.scale)
    bias = (
        affine.shift.astype(numpy_dtype(layer.type.dtype)) if biases or affine.shift.any() else None
    )
    if not _is_finite(new) or not _is_finite(bias):
        return None
    return _Fold(layer, tuple(absorbed), new, bias)


def _write(r: Rewriter, fold: _Fold, name: str) -> None:
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


def fold_channel_affine(graph: Graph) -> Graph:
    """Return the graph with mul, div, add and sub by per-channel constants folded into the layer before them.

    The layer is a conv, conv_transpose or dense node with constant weights; a constant is per channel if it is a scalar or
    broadcasts as (1, K, 1, 1). A whole chain is folded at once: its products and sums are float64 and rounded once. Only what
    follows a layer is folded, nothing before it: zero padding comes in between.

    Rewrite:
        %s = constant dense([2.0, 3.0]) : f32[1,2,1,1];  %t = constant dense([0.5, 1.0]) : f32[2,1,1]
        %w = constant dense([1.0, 10.0]) : f32[2,1,1,1]
        %c = conv(%x, %w);  %m = mul(%c, %s);  %y = add(%m, %t)
        -->
        %w_scaled = constant dense([2.0, 30.0]) : f32[2,1,1,1];  %y_bias = constant dense([0.5, 1.0]) : f32[2]
        %y = conv(%x, %w_scaled, %y_bias) {epilogue = [bias]}
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
            _write(r, folds[node.name], node.name)
        elif node.name not in absorbed:
            r.keep(node)
    return r.finish()
