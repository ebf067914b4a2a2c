"""Epilogues: every algorithm and the dense layer, with every kind of step and their order."""

from __future__ import annotations

import numpy as np
import pytest

from convc.compiler import compile
from convc.ir import ConvSpec, GraphBuilder, Step, TensorType
from convc.ir.epilogue import OPERAND_STEPS
from convc.ir.ops.conv import DenseAttributes
from convc.ir.ops.elementwise import UNARY
from convc.ir.reference import interpret
from convc.schedules.table import ALGORITHMS
from convc.target import parse_target
from tests.schedules.conv_module import Case, ConvModule, whole_numbers
from tests.tolerance import INEXACT, assert_bounded, error_bound, scalar_error

BIAS, ADD, RELU = Step("bias"), Step("add"), Step("relu")
CLIP, LEAKY = Step("clip", (-3.0, 6.0)), Step("leaky_relu", (0.25,))
SILU, SIGMOID, HARD_SWISH = Step("silu"), Step("sigmoid"), Step("hard_swish")

EPILOGUES = (
    (),
    (BIAS,),
    (ADD,),
    (BIAS, RELU),
    (BIAS, CLIP),
    (BIAS, SILU),
    (HARD_SWISH,),
    (SIGMOID,),
    (BIAS, ADD, RELU),
    (RELU, ADD),
    (BIAS, LEAKY, ADD, CLIP),
    (ADD, ADD, BIAS, BIAS),
    (Step("hard_sigmoid", (0.2, 0.5)), Step("tanh")),
    (ADD, Step("elu", (1.5,))),
    (Step("neg"), Step("softplus"), ADD),
)

# Odd channels and a tail of the tile everywhere; H differs from W.
SPECS = {
    "direct": ConvSpec.of((1, 5, 6, 9), (20, 5, 3, 3), pads=(1, 1, 1, 1)),
    "depthwise": ConvSpec.of((1, 20, 6, 9), (20, 1, 3, 3), pads=(1, 1, 1, 1), group=20),
    "winograd": ConvSpec.of((1, 5, 6, 9), (20, 5, 3, 3), pads=(1, 1, 1, 1)),
    "subpixel": ConvSpec.of(
        (1, 5, 3, 4), (5, 20, 4, 4), strides=(2, 2), pads=(1, 1, 1, 1), transposed=True
    ),
    "generic": ConvSpec.of((2, 6, 5, 7), (9, 2, 3, 2), group=3, dilations=(1, 2)),
}


def test_every_algorithm_has_a_convolution_here():
    assert set(SPECS) == {algorithm.name for algorithm in ALGORITHMS}


def test_every_kind_of_step_is_here():
    names = {step.name for epilogue in EPILOGUES for step in epilogue}
    assert set(OPERAND_STEPS) < names
    assert {"relu", "clip", "silu", "hard_swish", "sigmoid"} < names < {*OPERAND_STEPS, *UNARY}


@pytest.mark.parametrize("name", SPECS)
def test_epilogues_of_convolutions(name):
    spec = SPECS[name]
    module = ConvModule([Case(name, spec, epilogue) for epilogue in EPILOGUES], parse_target())
    for result in module.run(exact=True):
        bound = scalar_error(result.case.epilogue, result.expected)
        if name in INEXACT:
            # Each function here grows an error by 1.5 at most.
            error = error_bound(name, result.data, result.weight, spec, result.knobs)
            bound = bound + 1.5 * error
        elif all(
            s.takes_operand or s.name in ("relu", "clip", "leaky_relu")
            for s in result.case.epilogue
        ):
            bound = np.zeros(())
        assert_bounded(result.actual, result.expected, bound)


@pytest.mark.parametrize("rows", [1, 3, 33])
def test_epilogues_of_dense_layers(rows):
    rng = np.random.default_rng(rows)
    b = GraphBuilder("dense")
    outputs = {}
    for i, epilogue in enumerate(EPILOGUES):
        for outputs_count, constant in ((21, True), (21, False), (5, True)):
            shapes = [(rows, 13), (outputs_count, 13)]
            x = b.input(f"x{i}_{outputs_count}_{constant}", TensorType(shapes[0]))
            weight = whole_numbers(rng, shapes[1])
            w = b.constant(weight) if constant else b.input(f"w{i}", TensorType(shapes[1]))
            extras = []
            for step in epilogue:
                if step.takes_operand:
                    shape = (outputs_count,) if step.name == "bias" else (rows, outputs_count)
                    extras.append(b.constant(whole_numbers(rng, shape)))
            outputs[f"y{len(outputs)}"] = b.add("dense", [x, w, *extras], DenseAttributes(epilogue))
    graph = b.finish(outputs)
    inputs = {n.name: whole_numbers(rng, n.type.shape) for n in graph.inputs}
    actual, expected = compile(graph, threads=1).run(inputs), interpret(graph, inputs)
    for name, value in outputs.items():
        epilogue = graph[value].attributes.epilogue
        assert_bounded(actual[name], expected[name], scalar_error(epilogue, expected[name]))
