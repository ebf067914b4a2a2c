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
from convc.schedules import dense
from convc.schedules.backend import Dense, backend_of
from convc.schedules.layout import PLAIN
from convc.schedules.plan import Knobs
from convc.target import Target

__all__ = ["product_calls", "reshaped"]


def product_calls(
    graph: Graph, node: Node, product: Product, places: Places, target: Target
) -> Iterator[Call]:
    """Yield the calls that compute a product, in order."""
    backend = backend_of(target)
    knobs = backend.dense.knobs(product.data, product.outputs, target)
    name = f"{node.name}.weight"
    stored = node.type.dtype if node.type.dtype in HALVES else ""
    if product.constant:
        value = _packed(widened(graph[node.inputs[1]].value), product, backend.dense, knobs)
        packed = places.weight(name, narrowed(value, stored))
    else:
        call = _packing(node, product, places, target, knobs)
        packed = call.arguments[1]
        yield call
    axes = product.axes
    weight = replace(packed, view=axes.weights(packed.view, product.own))
    extras = []
    steps = (step for step in product.epilogue if step.takes_operand)
    for step, operand in zip(steps, node.inputs[2:], strict=True):
        extra = places.read(operand, 0)
        extras.append(extra if step.name == "bias" else _seen(extra, axes, product.outputs))
    data = _seen(places.read(node.inputs[0], 0), axes, product.depth)
    arguments = (data, weight, *extras, _seen(places.write(node), axes, product.outputs))
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


def _packing(node: Node, product: Product, places: Places, target: Target, knobs: Knobs) -> Call:
    plain = reshaped(places.read(node.inputs[1], 0), product.weight)
    packed = dense.packing(product.weight, "float32", knobs, by_columns=product.by_columns)[1]
    shape = tuple(int(n) for n in packed.shape)
    place = places.scratch(f"{node.name}.weight", shape, plain.view.dtype)
    least = backend_of(target).parallel_cycles or 0
    threads = {**knobs, "parallel": int(math.prod(product.weight) > least)}
    kernel = dense_packing_kernel(product, target, threads, [plain.view, place.view])
    return Call(kernel, (plain, place), node.name, "pack", "dense", "weights known at run time")


def _seen(argument: Argument, axes: ProductAxes, last: int) -> Argument:
    return replace(argument, view=axes.seen(argument.view, last))


def reshaped(argument: Argument, shape: tuple[int, ...]) -> Argument:
    """Return the same bytes, which are compact, in another shape."""
    view = argument.view
    assert view.is_compact, f"{view} must be compact to be reshaped"
    return Argument(argument.buffer, replace(PLAIN.view(shape, view.dtype), offset=view.offset))
