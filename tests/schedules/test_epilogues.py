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
from convc.schedules.algorithm import Problem
from convc.schedules.table import ALGORITHMS, algorithm_named
from convc.target import parse_target
from tests.conv_grid import CONV_GRID
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
    (HARD_SWISH,),
    (Step("hard_sigmoid", (0.2, 0.5)), Step("tanh")),
    (ADD, Step("elu", (1.5,))),
    (Step("neg"), Step("softplus"), ADD),
    (BIAS, SILU),
    (SIGMOID,),
    (BIAS, ADD, RELU),
    (RELU, ADD),
    (BIAS, LEAKY, ADD, CLIP),
    (ADD, ADD, BIAS, BIAS),
)

# Odd channels and a tail of the tile everywhere; H differs from W. Small tiles, since code is what compile time grows with.
SPECS = {
    "direct": ConvSpec.of((1, 5, 6, 9), (20, 5, 3, 3), pads=(1, 1, 1, 1)),
    "depthwise": ConvSpec.of((1, 20, 6, 9), (20, 1, 3, 3), pads=(1, 1, 1, 1), group=20),
    "winograd": ConvSpec.of((1, 5, 6, 9), (20, 5, 3, 3), pads=(1, 1, 1, 1)),
    "subpixel": ConvSpec.of(
        (1, 5, 3, 4), (5, 20, 4, 4), strides=(2, 2), pads=(1, 1, 1, 1), transposed=True
    ),
    "im2col": ConvSpec.of((2, 6, 7, 9), (9, 2, 3, 3), group=3, pads=(1, 1, 1, 1), strides=(2, 1)),
    "generic": ConvSpec.of((2, 6, 5, 7), (9, 2, 3, 2), group=3, dilations=(1, 2)),
}
SMALL = {
    "rows": 1,
    "cols": 2,
    "points": 2,
    "vectors": 1,
    "m": 2,
    "channels": 2,
    "chunks": 1,
    "planes": 0,
}


def spec_of(name: str) -> ConvSpec:
    """Return the convolution above, or the first of the grid that the algorithm takes."""
    takes = algorithm_named(name).supports
    grid = (row.spec for row in CONV_GRID if takes(Problem(row.spec), parse_target()) is None)
    return SPECS[name] if name in SPECS else next(grid)


def test_the_algorithms_take_their_convolutions():
    for name, spec in SPECS.items():
        assert algorithm_named(name).supports(Problem(spec), parse_target()) is None


def test_every_kind_of_step_is_here():
    names = {step.name for epilogue in EPILOGUES for step in epilogue}
    assert set(OPERAND_STEPS) < names
    assert {"relu", "clip", "silu", "hard_swish", "sigmoid"} < names < {*OPERAND_STEPS, *UNARY}


@pytest.mark.parametrize("name", [algorithm.name for algorithm in ALGORITHMS])
def test_epilogues_of_convolutions(name):
    spec = spec_of(name)
    target = parse_target(cores=1)
    own = algorithm_named(name).knobs(Problem(spec), target)
    knobs = tuple((key, SMALL.get(key, value)) for key, value in own.items())
    # The code of an epilogue is the same for all; direct has every one of them, the others enough to see that it is there.
    epilogues = EPILOGUES if name == "direct" else EPILOGUES[-8:]
    module = ConvModule([Case(name, spec, epilogue, knobs) for epilogue in epilogues], target)
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


@pytest.mark.parametrize(("rows", "constant"), [(1, True), (3, True), (3, False)])
def test_epilogues_of_dense_layers(rows, constant):
    rng = np.random.default_rng(rows)
    b = GraphBuilder("dense")
    outputs = {}
    for i, epilogue in enumerate(EPILOGUES[-6:]):
        # Whole vectors and a tail; fewer outputs than one vector.
        count = (21, 5)[i % 2]
        x = b.input(f"x{i}", TensorType((rows, 13)))
        weight = whole_numbers(rng, (count, 13))
        w = b.constant(weight) if constant else b.input(f"w{i}", TensorType(weight.shape))
        extras = []
        for step in epilogue:
            if step.takes_operand:
                shape = (count,) if step.name == "bias" else (rows, count)
                extras.append(b.constant(whole_numbers(rng, shape)))
        outputs[f"y{i}"] = b.add("dense", [x, w, *extras], DenseAttributes(epilogue))
    graph = b.finish(outputs)
    inputs = {n.name: whole_numbers(rng, n.type.shape) for n in graph.inputs}
    actual, expected = compile(graph, threads=1).run(inputs), interpret(graph, inputs)
    for name, value in outputs.items():
        epilogue = graph[value].attributes.epilogue
        assert_bounded(actual[name], expected[name], scalar_error(epilogue, expected[name]))
