"""The calls of a matrix product: the step that packs a weight of run time, and the product."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from convc.ir.graph import Graph, Node
from convc.ir.types import HALVES
from convc.lowering.kernels import dense_kernel, dense_packing_kernel
from convc.lowering.places import Places
from convc.lowering.product_axes import ProductAxes
from convc.lowering.products import Product
from convc.lowering.program import Argument, Call
from convc.lowering.stored import narrowed, widened
from convc.lowering.turned import Turned
from convc.schedules import dense
from convc.schedules.backend import Dense, backend_of
from convc.schedules.layout import PLAIN, View
from convc.schedules.plan import Knobs
from convc.target import Target

__all__ = ["product_calls", "reshaped"]


def product_calls(
    graph: Graph, node: Node, product: Product, places: Places, target: Target, turned: Turned
) -> Iterator[Call]:
    """Yield the calls that compute a product, in order; `turned`: the transposes that are part of products."""
    product, plain, data, result, wide = _placed(graph, node, product, places, turned)
    backend = backend_of(target)
    knobs = backend.dense.knobs(product.data, product.outputs, target)
    name = f"{node.name}.weight"
    stored = node.type.dtype if node.type.dtype in HALVES else ""
    if product.constant:
        value = _packed(widened(graph[node.inputs[1]].value), product, backend.dense, knobs)
        packed = places.weight(name, narrowed(value, stored))
    else:
        assert plain is not None, node
        call = _packing(node, product, plain, places, target, knobs)
        packed = reshaped(call.arguments[1], _stack(call.arguments[1].view.shape))
        yield call
    axes = product.axes
    weight = replace(packed, view=axes.weights(packed.view, product.own))
    extras = [
        extra if name == "bias" else _seen(extra, axes, product.outputs) for name, extra in wide
    ]
    arguments = (
        _seen(data, axes, product.depth),
        weight,
        *extras,
        _seen(result, axes, product.outputs),
    )
    kernel = dense_kernel(
        product.data,
        product.outputs,
        "float32",
        product.epilogue,
        target,
        knobs,
        [a.view for a in arguments],
    )
    flops = 2 * math.prod(product.data) * product.outputs
    yield Call(kernel, arguments, node.name, node.op, "dense", "the only one", knobs, "", flops)


def _packed(weight: np.ndarray, product: Product, dense: Dense, knobs: Knobs) -> np.ndarray:
    matrices = weight.reshape(-1, *weight.shape[-2:])
    if product.by_columns:
        matrices = matrices.swapaxes(1, 2)
    packed = [dense.pack(matrix, knobs) for matrix in matrices]
    return np.stack(packed) if product.own else packed[0]


def _placed(
    graph: Graph, node: Node, product: Product, places: Places, turned: Turned
) -> tuple[Product, Argument | None, Argument, Argument, list[tuple[str, Argument]]]:
    """Return the product on its operands as they lie in memory; weights of run time, data, result and the epilogue's operands."""

    def read(value: str) -> Argument:
        argument = places.read(turned.source(value), 0)
        return replace(argument, view=turned.read(value, argument.view))

    x, w, *rest = node.inputs
    names = [step.name for step in product.epilogue if step.takes_operand]
    wide = [(name, read(operand)) for name, operand in zip(names, rest, strict=True)]
    data, weight = read(x), None
    if not product.constant:
        weight = read(w)
        *_, row, column = weight.view.strides
        if product.by_columns and w in turned.reads and column > row:
            # Transposed, the weights are in the order of dense layers.
            product = replace(product, by_columns=False)
            weight = replace(weight, view=_swapped(weight.view))
    given = turned.writes.get(node.name, node)
    result = places.write(given)
    result = replace(result, view=turned.written(node.name, result.view))
    seen = [a.view for a in (data, result, *(extra for name, extra in wide if name != "bias"))]
    axes = ProductAxes.of(node.type.shape, product.own, seen)
    return replace(product, axes=axes), weight, data, result, wide


def _swapped(view: View) -> View:
    """Return the transposed matrices of a view."""
    (*shape, a, b), (*strides, s, t) = view.shape, view.strides
    return replace(view, shape=(*shape, b, a), strides=(*strides, t, s))


def _packing(
    node: Node, product: Product, plain: Argument, places: Places, target: Target, knobs: Knobs
) -> Call:
    plain = replace(plain, view=_without_ones(plain.view))
    packed = dense.packing(product.weight, "float32", knobs, by_columns=product.by_columns)[1]
    shape = tuple(int(n) for n in packed.shape)
    place = places.scratch(f"{node.name}.weight", shape, plain.view.dtype)
    least = backend_of(target).parallel_cycles or 0
    threads = {**knobs, "parallel": int(math.prod(product.weight) > least)}
    written = reshaped(place, (*plain.view.shape[:-2], *shape[-3:]))
    kernel = dense_packing_kernel(product, target, threads, [plain.view, written.view])
    return Call(kernel, (plain, written), node.name, "pack", "dense", "weights known at run time")


def _without_ones(view: View) -> View:
    """Return matrices without axes of one element in front, and all axes in front as one where memory has them so."""
    *lead, a, b = zip(view.shape, view.strides, strict=True)
    axes: list[tuple[int, int]] = []
    for n, stride in lead:
        if n == 1:
            continue
        if axes and axes[-1][1] == n * stride:
            axes[-1] = (axes[-1][0] * n, stride)
        else:
            axes.append((n, stride))
    shape, strides = zip(*axes, a, b, strict=True)
    return replace(view, shape=shape, strides=strides)


def _stack(packed: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of packed weights with the matrices along one axis, if they are several."""
    lead = packed[:-3]
    return (math.prod(lead), *packed[-3:]) if lead else packed


def _seen(argument: Argument, axes: ProductAxes, last: int) -> Argument:
    return replace(argument, view=axes.seen(argument.view, last))


def reshaped(argument: Argument, shape: tuple[int, ...]) -> Argument:
    """Return the same bytes, which are compact, in another shape."""
    view = argument.view
    assert view.is_compact, f"{view} must be compact to be reshaped"
    return Argument(argument.buffer, replace(PLAIN.view(shape, view.dtype), offset=view.offset))
