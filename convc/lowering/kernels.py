"""Kernels: the scheduled PrimFunc of every kind of unit, for given views of its operands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from tvm import te, tirx

from convc.ir.epilogue import Step
from convc.ir.graph import Graph
from convc.ir.ops import OPS
from convc.ir.ops.logic import CastAttributes
from convc.ir.spec import ConvSpec
from convc.ir.types import HALVES, Shape, TensorType
from convc.lowering.named_kernel import named_kernel
from convc.lowering.partition import Unit
from convc.lowering.products import Product
from convc.lowering.program import Kernel
from convc.lowering.views import reads_back
from convc.schedules import bottleneck, dense, packing
from convc.schedules.algorithm import Algorithm, Problem
from convc.schedules.backend import backend_of
from convc.schedules.bfloat16_bits import SUMS
from convc.schedules.bottleneck import Bottleneck
from convc.schedules.following import is_literal
from convc.schedules.layout import View
from convc.schedules.library_call import refusable
from convc.schedules.operators import OPERATORS, OpAlgorithm
from convc.schedules.plan import Knobs
from convc.schedules.scalar import factor, zero_beyond
from convc.schedules.weight_gradients import WeightGradient
from convc.target import Target

__all__ = [
    "bottleneck_kernel",
    "conv_kernel",
    "dense_kernel",
    "dense_packing_kernel",
    "packing_kernel",
    "scheduled",
    "unit_kernel",
    "weight_gradient_kernel",
]


def conv_kernel(
    algorithm: Algorithm,
    problem: Problem,
    target: Target,
    knobs: Knobs,
    views: Sequence[View],
    *,
    falls: bool = False,
) -> Kernel:
    """Return a convolution's kernel; `falls`: a library's, which is to return 1 where that refuses it, see `refusable`."""

    def make() -> tirx.PrimFunc:
        tensors = algorithm.compute(problem, target, knobs)
        func = scheduled(algorithm, problem, tensors, target, knobs)
        return refusable(func) if falls else func

    spec = problem.spec
    stem = f"{algorithm.name}_{spec.key.split('-pd')[0]}"
    parts = (
        spec.key,
        *problem.epilogue,
        sorted(knobs.items()),
        problem.constant_weight,
        problem.accumulator,
        *(["falls"] if falls else []),
    )
    return named_kernel(stem, parts, views, make)


def scheduled(
    algorithm: Algorithm,
    problem: Problem,
    tensors: Sequence[te.Tensor],
    target: Target,
    knobs: Knobs,
) -> tirx.PrimFunc:
    """Return the scheduled function of an algorithm's tensors, and of those that are computed from its result."""
    func = te.create_prim_func(list(tensors))
    func = backend_of(target).schedules[algorithm.name](func, knobs, target)
    assert not (problem.stored and reads_back(func)), f"{algorithm.name} rounds what it reads back"
    return func.with_attr(SUMS, True)


def bottleneck_kernel(
    chain: Bottleneck, target: Target, knobs: Knobs, views: Sequence[View]
) -> Kernel:
    """Return the kernel of an expansion, a depthwise layer and a projection."""

    def make() -> tirx.PrimFunc:
        func = te.create_prim_func(bottleneck.compute(chain, knobs))
        return backend_of(target).schedules["bottleneck"](func, knobs, target).with_attr(SUMS, True)

    stem = f"bottleneck_{chain.depthwise.spec.key.split('-pd')[0]}"
    return named_kernel(stem, (chain.key, sorted(knobs.items())), views, make)


def packing_kernel(
    algorithm: str, problem: Problem, target: Target, knobs: Knobs, views: Sequence[View]
) -> Kernel:
    """Return the kernel that brings a run-time weight into an algorithm's order."""

    def make() -> tirx.PrimFunc:
        tensors = packing.compute(algorithm, problem, target, knobs)
        assert tensors is not None, f"{algorithm} reads plain weights"
        func = te.create_prim_func(tensors)
        return backend_of(target).schedules["packing"](func, knobs, target)

    spec = problem.spec
    parts = (spec.key, sorted(knobs.items()), problem.dual)
    return named_kernel(f"pack_{algorithm}", parts, views, make)


def weight_gradient_kernel(
    row: WeightGradient,
    spec: ConvSpec,
    target: Target,
    knobs: Knobs,
    views: Sequence[View],
    *,
    falls: bool = False,
) -> Kernel:
    """Return the kernel of the weight gradient of the convolution `spec`; `falls` as `conv_kernel` has it."""

    def make() -> tirx.PrimFunc:
        func = te.create_prim_func(row.compute(spec, knobs))
        func = backend_of(target).schedules[f"weight_gradient_{row.NAME}"](func, knobs, target)
        return refusable(func) if falls else func

    stem = f"weight_gradient_{row.NAME}_{spec.key.split('-pd')[0]}"
    parts = (spec.key, sorted(knobs.items()), *(["falls"] if falls else []))
    return named_kernel(stem, parts, views, make)


def dense_kernel(
    data: Shape,
    outputs: int,
    dtype: str,
    epilogue: Sequence[Step],
    target: Target,
    knobs: Knobs,
    views: Sequence[View],
) -> Kernel:
    """Return a dense layer's kernel, for packed weights."""
    backend = backend_of(target)

    def make() -> tirx.PrimFunc:
        func = te.create_prim_func(backend.dense.compute(data, outputs, dtype, epilogue, knobs))
        return backend.schedules["dense"](func, knobs, target).with_attr(SUMS, True)

    batch = "".join(f"b{n}" for n in data[:-2])
    stem = f"dense_{batch}m{data[-2]}c{data[-1]}k{outputs}"
    return named_kernel(stem, (*epilogue, sorted(knobs.items())), views, make)


def dense_packing_kernel(
    product: Product, target: Target, knobs: Knobs, views: Sequence[View]
) -> Kernel:
    """Return the kernel that brings a dense layer's weight of run time into its kernel's order."""
    plain = views[0]

    def make() -> tirx.PrimFunc:
        tensors = dense.packing(plain.shape, "float32", knobs, by_columns=product.by_columns)
        func = te.create_prim_func(tensors)
        return backend_of(target).schedules["dense_packing"](func, knobs, target)

    return named_kernel("pack_dense", (product.by_columns, sorted(knobs.items())), views, make)


def unit_kernel(
    graph: Graph,
    unit: Unit,
    block: int,
    target: Target,
    views: Sequence[View],
    literals: dict[str, float],
    algorithm: OpAlgorithm | None = None,
    *,
    falls: bool = False,
) -> Kernel:
    """Return the kernel of a unit that is no convolution; `literals` are written into the code, `algorithm` computes one node's unit.

    `falls` as `conv_kernel` has it.
    """
    operands = [i for i in unit.operands if i not in literals]
    # Bits are what they are; everything else of half width is computed as float32, see `views`.
    widens = backend_of(target).widens and all(n.op != "bit_cast" for n in unit.nodes)

    def make() -> tirx.PrimFunc:
        def computed(type: TensorType) -> TensorType:
            return TensorType(type.shape, "float32") if widens and type.dtype in HALVES else type

        tensors = {
            name: te.placeholder(view.shape, computed(graph[name].type).dtype, name=f"x{i}")
            for i, (name, view) in enumerate(zip(operands, views, strict=False))
        }
        arguments = list(tensors.values())
        types = [graph[i].type for i in unit.result.inputs]
        if algorithm is not None:
            # An operand may be two of a node's inputs: of constants that are equal one is left.
            fed = [tensors[i] for i in unit.result.inputs]
            result = algorithm.compute(fed, unit.result, types, block, target)
            knobs = algorithm.knobs(unit.result, types, target)
            func = te.create_prim_func([*arguments, result])
            func = backend_of(target).schedules[algorithm.schedule](func, knobs, target)
            return refusable(func) if falls else func
        for name, value in literals.items():
            dtype, rank = computed(graph[name].type).dtype, graph[name].type.rank
            shape = (1,) * max(rank, unit.result.type.rank + 1 if block else rank)
            tensors[name] = _fill(shape, value, dtype, "literal")
        for node in unit.nodes:
            types = [computed(graph[i].type) for i in node.inputs]
            wide = replace(node, type=computed(node.type))
            if isinstance(node.attributes, CastAttributes):
                wide = replace(wide, attributes=CastAttributes(wide.type.dtype))
            tensors[node.name] = OPERATORS[node.op].compute(
                [tensors[i] for i in node.inputs], wide, types, block
            )
        result = tensors[unit.result.name]
        if block and not _keeps_zeros(unit, literals):
            result = zero_beyond(result, unit.result.type.shape[1], block)
        func = te.create_prim_func([*arguments, result])
        if computed(unit.result.type) != unit.result.type and unit.result.op not in _CHOICES and reads_back(func):  # fmt: skip
            result = te.compute(result.shape, lambda *i: result(*i), name="rounded")
            func = te.create_prim_func([*arguments, result])
        return backend_of(target).schedule_any(func, target)

    names = {name: f"%{i}" for i, name in enumerate(unit.operands)}
    steps = []
    for i, node in enumerate(unit.nodes):
        inputs = [names[x] + str(literals.get(x, "")) for x in node.inputs]
        steps.append(f"%n{i}={node.op}({inputs}){node.attributes}{node.type}")
        names[node.name] = f"%n{i}"
    stem = "_".join(n.op for n in unit.nodes[:4])
    if algorithm is not None:
        stem = f"{algorithm.name}_{stem}"
        steps += ["falls"] if falls else []
    return named_kernel(stem, (block, *steps, [str(graph[i].type) for i in operands]), views, make)


# Reductions whose running result is one of the operand's elements: rounding it as it is stored changes nothing.
_CHOICES = ("max_pool", "reduce_max", "reduce_min")


def _keeps_zeros(unit: Unit, literals: Mapping[str, float]) -> bool:
    """Whether zeros beyond the operands' last channel give zeros there; ops that are not elementwise follow only if so."""
    if not all(OPS[node.op].elementwise for node in unit.nodes):
        return True
    values = {i: np.full((1,), literals.get(i, 0.0)) for i in unit.operands}
    with np.errstate(all="ignore"):
        for node in unit.nodes:
            operands = [values[i] for i in node.inputs]
            values[node.name] = OPS[node.op].reference(operands, node.attributes)
    return not np.any(values[unit.result.name])


def _fill(shape: Shape, value: float, dtype: str, name: str) -> te.Tensor:
    return te.compute(shape, lambda *i: factor(value, dtype), name=name)


def literals_of(graph: Graph, unit: Unit) -> dict[str, float]:
    """Return the operands of an elementwise unit that are constants of one element."""
    return {
        i: float(np.asarray(graph[i].value).reshape(-1)[0])
        for i in unit.operands
        if is_literal(graph[i])
    }
