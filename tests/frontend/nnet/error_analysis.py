"""By how much a compiled float32 graph may differ from exact arithmetic: the bounds of `tests.tolerance`, carried from node to node.

Every input and constant starts with the error of its rounding to float32; every node passes its operands' errors on as its op does,
and adds its own.

Source:
    Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., chapter 3 (running error analysis).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from convc.compiler import CompiledModel
from convc.ir.graph import CONSTANT, INPUT, Graph, Node
from convc.ir.ops import OPS
from convc.ir.ops.conv import conv_spec, convolve, convolve_transposed
from convc.ir.reference import interpret
from convc.schedules.dual import dual_weight
from convc.schedules.plan import Plan
from convc.schedules.select import problem_for
from convc.schedules.table import algorithm_named
from convc.target import parse_targets
from tests.tolerance import EPS, error_bound

Array = np.ndarray
HOST = parse_targets("llvm", "host", 1)[0]

_MOVING = {"reshape", "transpose", "slice", "concat", "flip", "pad"}
_BILINEAR = {"conv_weight_grad", "conv_local", "conv_local_data_grad", "conv_local_weight_grad"}
_SUMS = {"average_pool", "sum_pool_grad"}


def bounds(model: CompiledModel, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return the greatest error of every output.

    Args:
        model: compiled in float32.
        inputs: before their rounding.
    """
    graph = model.graph
    values = interpret(graph, inputs, keep=True)
    errors: dict[str, Array] = {}
    for node in graph.nodes:
        errors[node.name] = _error(node, graph, model.plan, values, errors)
    return {o.name: errors[o.value] for o in graph.outputs}


def _error(
    node: Node, graph: Graph, plan: Plan, values: Mapping[str, Array], errors: Mapping[str, Array]
) -> Array:
    y = values[node.name]
    x, e = [values[i] for i in node.inputs], [errors[i] for i in node.inputs]
    reference = OPS[node.op].reference if node.op in OPS else None
    if node.op in (INPUT, CONSTANT):
        return EPS / 2 * np.abs(y)
    assert reference is not None
    if node.op in _MOVING:
        return reference(e, node.attributes)
    if node.op in _BILINEAR:
        a, b = map(np.abs, x)
        return _product(
            lambda *o: reference(list(o), node.attributes), a, b, *e[:2]
        ) + 4 * EPS * reference([a, b], node.attributes)
    if node.op in _SUMS:
        return reference(e, node.attributes) + 4 * EPS * reference([np.abs(x[0])], node.attributes)
    match node.op:
        case "conv" | "conv_transpose":
            return _convolution(node, graph, plan, x, e, y)
        case "mul":
            return _product(np.multiply, *map(np.abs, x), *e) + EPS * np.abs(y)
        case "add":
            return e[0] + e[1] + EPS * np.abs(y)
        case "max_pool":
            return reference(e, node.attributes)
        case "max_pool_grad":
            # The maxima are where they are; what goes back is added up.
            return reference([*x[:-1], e[-1]], node.attributes) + 4 * EPS * reference(
                [*x[:-1], np.abs(x[-1])], node.attributes
            )
        case "log_softmax":
            spread = np.abs(x[0]).max(-1, keepdims=True)
            return 2 * e[0].max(-1, keepdims=True) + 16 * EPS * (1 + spread + np.abs(y))
    raise AssertionError(f"no rule for {node.op}")


def _product(function, a: Array, b: Array, da: Array, db: Array) -> Array:
    """Return the error of a product of |a| and |b|, known up to `da` and `db`."""
    return function(da, b) + function(a, db) + function(da, db)


def _convolution(
    node: Node, graph: Graph, plan: Plan, x: list[Array], e: list[Array], y: Array
) -> Array:
    attributes = node.attributes
    data, weight = graph.operands(node)[:2]
    spec = conv_spec(data.type, weight.type, attributes)
    function = convolve_transposed if spec.transposed else convolve
    choice = plan[node.name]
    error = _product(lambda a, b: function(a, b, spec), np.abs(x[0]), np.abs(x[1]), e[0], e[1])
    # A transposed convolution may have been computed as the convolution that it equals.
    solved, w = problem_for(graph, node, algorithm_named(choice.algorithm), HOST), x[1]
    w = dual_weight(w, spec.group) if solved.dual else w
    error = error + error_bound(choice.algorithm, x[0], w, solved.spec, choice.knobs)
    # A residual is added to a sum that may be larger than the result.
    for step, extra, operand in zip(attributes.epilogue, e[2:], x[2:], strict=True):
        assert step.name == "add"
        error = error + extra + EPS * (np.abs(y) + np.abs(operand))
    return error
