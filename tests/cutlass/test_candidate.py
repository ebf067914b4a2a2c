"""CUTLASS as a candidate: what it takes, when it is chosen, and modules with it, from the graph to the exported file that runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from convc.frontend import dsl as cc
from convc.ir import ConvSpec, GraphBuilder, Step, TensorType
from convc.ir.reference import interpret
from convc.ir.types import numpy_dtype
from convc.lowering.emit import emit
from convc.planning import Wishes, plan_graph
from convc.runtime.libraries.cutlass import FORMS, Kernel
from convc.schedules.algorithm import Problem, knob_space
from convc.schedules.cuda.cutlass import ALGORITHM
from convc.schedules.cuda.cutlass_objects import architectures
from convc.schedules.cuda.cutlass_tiles import kernel_of, sums_bytes
from convc.schedules.dual import posed as solved_by
from convc.schedules.offers import estimated_seconds
from convc.schedules.plan import Knobs
from convc.schedules.policy import Policy
from convc.schedules.properties import properties_of
from convc.schedules.select import select
from convc.schedules.tuned import Measurement
from convc.target import parse_target
from tests.conv_grid import CONV_GRID
from tests.cuda_emulation.emulation import EmulationError, worker
from tests.schedules.conv_module import Case, conv_node

TARGET = parse_target("cuda -arch=sm_90")
HALF = ConvSpec.of((1, 8, 6, 6), (16, 8, 3, 3), pads=(1, 1, 1, 1), dtype="float16")
POINTS = ConvSpec.of((2, 16, 8, 9), (24, 16, 1, 1), dtype="bfloat16")
# Few points, long sums: what is split.
LONG = ConvSpec.of((1, 128, 3, 4), (12, 128, 3, 3), pads=(1, 1, 1, 1), dtype="float16")
LONG_POINTS = ConvSpec.of((1, 1024, 3, 3), (24, 1024, 1, 1), dtype="bfloat16")
STEPS = {name: Step.parse(name) for name in ("bias", "add", "relu", "clip(0.0, 6.0)", "clip(1.0, 2.0)", "tanh")}  # fmt: skip


def problem(spec: ConvSpec, *steps: str, **fields) -> Problem:
    return Problem(spec, tuple(STEPS[s] for s in steps), **fields)


@pytest.mark.parametrize(
    ("posed", "target", "reason"),
    [
        (problem(replace(HALF, dtype="float32")), "sm_90", "element type must be float16 or bfloat16; got float32"),
        (problem(replace(HALF, group=2, weight=(16, 4, 3, 3))), "sm_90", "group must be 1; got 2"),
        (problem(HALF, accumulate="float64"), "sm_90", "sums must be float32; got float64"),
        (problem(HALF, "relu", "bias"), "sm_90", "at most one bias and one add, then relu or clip; got relu, bias"),
        (problem(HALF, "add", "add"), "sm_90", "at most one bias and one add"),
        (problem(HALF, "tanh"), "sm_90", "then relu or clip; got tanh"),
        (problem(replace(HALF, weight=(15, 8, 3, 3)), "clip(1.0, 2.0)"), "sm_90", "clip must keep 0 where output channels are no multiple of 8; got clip(1.0, 2.0) of 15"),
        (problem(ConvSpec.of((1, 4, 5, 5), (4, 8, 3, 3), transposed=True, dtype="float16")), "sm_90", "must not be transposed"),
        (problem(HALF), "sm_75", "every sm must be at least 80 for tensor cores; got 75"),
        (problem(HALF), "sm_80,75", "every sm must be at least 80 for tensor cores; got 75"),
        (problem(ConvSpec.of((1, 8, 9, 400), (8, 8, 1, 300), dtype="float16")), "sm_90", "at most 32 taps along an axis; got (1, 300)"),
    ],
)  # fmt: skip
def test_refusals_have_reasons(posed, target, reason):
    assert reason in ALGORITHM.supports(posed, parse_target(f"cuda -arch={target}")).reason


def forms(spec: ConvSpec, target: str = "cuda -arch=sm_90") -> set[str]:
    return {FORMS[k["form"]] for k in knob_space(ALGORITHM, Problem(spec), parse_target(target))}


def test_which_templates_a_convolution_may_have():
    assert forms(HALF) == {"hopper", "ampere"}
    assert forms(POINTS) == set(FORMS)
    # Code for 9.0a is for no other device, and there is no PTX of it.
    for other in ("cuda -arch=sm_80", "cuda -arch=sm_90,80", "cuda -arch=sm_100"):
        assert forms(POINTS, other) == {"ampere"}
    # Out of TMA's reach, each way.
    for fields in (
        {"strides": (9, 1)},
        {"pads": (129, 1, 1, 1)},
        {"data": (1, 8, 150, 6), "dilations": (70, 1), "pads": (70, 1, 0, 1)},
        {"data": (1, 8, 400, 6), "dilations": (130, 1)},
    ):
        assert forms(replace(HALF, **fields)) == {"ampere"}, fields
    wide = ConvSpec.of((1, 8, 6, 60), (8, 8, 1, 40), dtype="float16")
    assert forms(wide) == {"hopper"}


def test_a_kernel_is_named_and_read_again():
    every = {
        kernel_of(spec.rank, dtype, k)
        for spec in (HALF, POINTS, LONG, LONG_POINTS, ConvSpec.of((4, 256, 8, 32, 32), (512, 256, 1, 1, 1), dtype="float16"))
        for dtype in ("float16", "bfloat16")
        for k in knob_space(ALGORITHM, Problem(spec), TARGET)
    }  # fmt: skip
    assert {k.form for k in every} == set(FORMS)
    assert {k.form for k in every if k.sums} == {"hopper_pingpong", "ampere"}
    for kernel in every:
        assert Kernel.parse(kernel.name) == kernel
        assert kernel.symbol in kernel.source
        if kernel.sums:
            continue
        wide = kernel.with_bias("float32")
        assert Kernel.parse(wide.name) == wide
        assert wide.symbol in wide.source


def in_parts(spec: ConvSpec) -> list[Knobs]:
    return [k for k in knob_space(ALGORITHM, Problem(spec), TARGET) if k["split"] > 1]


def splits(spec: ConvSpec) -> list[tuple[str, int]]:
    return sorted((FORMS[k["form"]], k["split"]) for k in in_parts(spec))


def test_which_sums_are_split_and_what_that_takes():
    assert splits(LONG) == [("ampere", 3), ("ampere", 4)]
    assert splits(LONG_POINTS) == [
        ("ampere", 6), ("ampere", 8), ("hopper_pingpong", 2), ("hopper_pingpong", 4),
    ]  # fmt: skip
    assert in_parts(HALF) == in_parts(POINTS) == []
    # With enough tiles for the whole device nothing is.
    assert in_parts(LONG.with_batch(1024)) == []
    deep = ConvSpec.of((1, 512, 7, 7), (512, 512, 3, 3), pads=(1, 1, 1, 1), dtype="float16")
    knobs = ALGORITHM.knobs(Problem(deep), TARGET)
    assert knobs["split"] == 16
    facts = properties_of(ALGORITHM, Problem(deep), TARGET, knobs)
    assert facts.workspace == 16 * 512 * 7 * 7 * 4
    assert facts.deterministic
    # As many parts as a limit allows, then none.
    for limit, split in ((facts.workspace, 16), (facts.workspace - 1, 12), (0, 1)):
        b = GraphBuilder("g")
        x = b.input("x", TensorType(deep.data, deep.dtype))
        y = conv_node(b, x, b.constant(np.ones(deep.weight, np.float16)), deep, name="layer")
        policy = Policy(require=("cutlass",), workspace_limit=limit)
        assert select(b.finish({"y": y}), TARGET, policy=policy)["layer"].knobs["split"] == split


def test_architectures():
    ampere, hopper = (Kernel(f, 2, "float16", 64, 64, 64) for f in ("ampere", "hopper"))
    sm = "-gencode=arch=compute_{0},code=sm_{0}".format
    assert architectures(ampere, parse_target("cuda -arch=sm_80,90").gpu) == (sm(80), sm(90))
    assert architectures(hopper, TARGET.gpu) == (sm("90a"),)
    # A module with PTX says that it runs on every later device.
    with_ptx = architectures(ampere, parse_target("cuda -arch=sm_80,90 -ptx").gpu)
    assert with_ptx == (sm(80), sm(90), "-gencode=arch=compute_80,code=compute_80")


# ---- modules that run, with the double in place of the kernels -------------------------------------------------------


def assert_exact(results) -> None:
    for r in results:
        # Sums are whole numbers, exact in float32; the result is rounded once.
        expected = r.expected.astype(numpy_dtype(r.case.spec.dtype))
        np.testing.assert_array_equal(r.actual, expected, err_msg=str(r.case))


def test_the_grid_through_an_exported_module():
    """Every rank, stride, dilation, uneven pads, channels that are no eights; a bias of either type, a residual, bounds."""
    small = [
        replace(r.spec, dtype=("float16", "bfloat16")[i % 2])
        for i, r in enumerate(CONV_GRID)
        if np.prod(r.spec.output) * np.prod(r.spec.weight[1:]) < 2e4
    ]
    taken = [s for s in small if ALGORITHM.supports(Problem(s), TARGET) is None]
    assert len(taken) > 20
    steps = (
        (), ("bias",), ("add", "relu"), ("bias", "add", "clip(0.0, 6.0)"), ("add", "bias"), ("bias", "relu"),
    )  # fmt: skip
    cases = [
        Case("cutlass", spec, tuple(map(STEPS.get, steps[i % len(steps)])), None, i % 4 == 1)
        for i, spec in enumerate(taken[::3])
    ]
    # What each template is called with.
    for spec in (HALF, POINTS):
        found = {k["form"]: k for k in knob_space(ALGORITHM, Problem(spec), TARGET)}
        cases += [Case("cutlass", spec, (STEPS["bias"],), tuple(k.items())) for k in found.values()]
    # Sums in parts, with every kind of epilogue, in 1 to 3 dimensions.
    line = ConvSpec.of((2, 128, 5), (8, 128, 4), strides=(2,), pads=(1, 2), dtype="bfloat16")
    cube = ConvSpec.of((1, 72, 2, 3, 3), (8, 72, 2, 2, 3), pads=(0, 1, 1, 1, 0, 1), dtype="float16")
    for index, (spec, knobs) in enumerate((s, k) for s in (LONG, LONG_POINTS, line, cube) for k in in_parts(s)):  # fmt: skip
        behind = tuple(map(STEPS.get, steps[index % len(steps)]))
        cases.append(Case("cutlass", spec, behind, tuple(knobs.items()), index % 3 == 1))
    assert_exact(worker().call("tests.cutlass.candidate:conv_results", cases, TARGET, True))


def test_from_the_dsl_to_a_module_that_runs():
    """Two layers of CUTLASS, a residual and a pooling between kernels of ours."""
    rng = np.random.default_rng(0)

    def weights(*shape):
        return rng.integers(-2, 3, shape).astype(np.float16)

    x = cc.input("x", (2, 3, 12, 12), "float16")
    h = cc.relu(cc.conv2d(x, weights(8, 3, 3, 3), pads=1, strides=2, name="stem"))
    h = cc.relu(h + cc.conv2d(h, weights(8, 8, 3, 3), pads=1, name="body"))
    net = cc.graph({"y": cc.conv2d(cc.max_pool2d(h, 2), weights(4, 8, 1, 1), name="head")}, name="net")  # fmt: skip
    image = rng.integers(-1, 2, (2, 3, 12, 12)).astype(np.float16)
    options = {"target": "cuda -arch=sm_90", "algo_for": {"stem": "cutlass", "body": "cutlass"}}
    outputs, choices = worker().call(
        "tests.cutlass.candidate:compile_and_run", net, options, {"x": image}
    )
    np.testing.assert_array_equal(outputs["y"], interpret(net, {"x": image})["y"])
    assert [choices[n][0] for n in ("stem", "body")] == ["cutlass", "cutlass"]
    assert choices["head"][0] != "cutlass"


# Channels that are no eights, one tap, a sum in parts, a line, a cube, a gradient of the data.
RUN_TIME = (
    replace(HALF, data=(1, 5, 6, 6), weight=(12, 5, 3, 3)),
    POINTS,
    LONG,
    ConvSpec.of((2, 9, 7), (8, 9, 3), strides=(2,), pads=(1, 1), dtype="bfloat16"),
    ConvSpec.of((1, 8, 2, 3, 3), (16, 8, 2, 2, 3), pads=(0, 1, 1, 1, 0, 1), dtype="float16"),
    ConvSpec.of((1, 16, 5, 4), (16, 12, 3, 2), pads=(1, 0, 1, 1), transposed=True, dtype="float16"),
)


def test_weights_known_at_run_time_are_packed_by_a_kernel():
    b, outputs, given = GraphBuilder("run_time"), {}, {}
    rng = np.random.default_rng(0)
    for i, spec in enumerate(RUN_TIME):
        for name, shape in ((f"x{i}", spec.data), (f"w{i}", spec.weight)):
            b.input(name, TensorType(shape, spec.dtype))
            given[name] = rng.integers(-1, 2, shape).astype(numpy_dtype(spec.dtype))
        outputs[f"y{i}"] = conv_node(b, f"x{i}", f"w{i}", spec, name=f"layer{i}")
    graph = b.finish(outputs)
    planned = plan_graph(graph, TARGET, Wishes(algo="cutlass", logs=()), "").plan
    packed = {c.node: c for c in emit(graph, planned, TARGET).calls if c.op == "pack"}
    assert set(packed) == {f"layer{i}" for i in range(len(RUN_TIME))}
    for i, (spec, call) in enumerate(zip(RUN_TIME, packed.values(), strict=True)):
        solved = solved_by(Problem(spec, constant_weight=False), ALGORITHM, TARGET)
        assert isinstance(solved, Problem)
        knobs = planned[f"layer{i}"].knobs
        own = properties_of(ALGORITHM, solved, TARGET, knobs).workspace
        view = call.arguments[1].view
        assert own - sums_bytes(solved.spec, knobs) == 2 * np.prod(view.shape)
        constant = replace(solved, constant_weight=True)
        assert properties_of(ALGORITHM, constant, TARGET, knobs).workspace == sums_bytes(solved.spec, knobs)  # fmt: skip
        seconds = [estimated_seconds(ALGORITHM, p, TARGET, knobs) for p in (constant, solved)]
        assert seconds[0] < seconds[1]
    assert planned["layer2"].knobs["split"] > 1
    options = {"target": "cuda -arch=sm_90", "algo": "cutlass"}
    found, choices = worker().call("tests.cutlass.candidate:compile_and_run", graph, options, given)
    assert {algorithm for algorithm, _ in choices.values()} == {"cutlass"}
    for name, expected in interpret(graph, given).items():
        np.testing.assert_array_equal(found[name], expected.astype(found[name].dtype), err_msg=name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": "hopper_2d_float16_1x1x1_c1"}, "this module must have the kernel 'hopper_2d_float16_1x1x1_c1' for"),
        ({"slices": 2}, "the result of .* must have 6 axes; got shape"),
        ({"slices": 0}, "the field 'slices' of .* must be a number of 1 to 65535; got '0'"),
        ({"slices": 2, "parts": (3,), "result": "float32"}, "in 2 parts must have a result of so many and no steps; got shape .3, 1, 1, 6, 6, 16. and 0 steps"),
        ({"slices": 2, "parts": (2,)}, "parts of a sum of float32"),
        ({"slices": 2, "parts": (2,), "result": "float32"}, "must run .*; got: the kernel is of another kind"),
        ({"strides": (2, 2)}, "the result of .* must have 3 points along spatial axis 0; got 6"),
        ({"strides": (1, 1, 1)}, "must have 6 axes; got shape"),
        ({"upper": (1,)}, "the field 'upper' of .* must have 2 numbers; got 1"),
        ({"steps": ("bias",)}, "must have 4 tensors; got 3"),
        ({"steps": ("tanh",)}, "steps of .* must be bias, add, relu or clip:LOW:HIGH; got 'tanh'"),
        ({"dtype": "float32"}, "must have data, weight and result of float16 or of bfloat16"),
        ({"channels": 4}, "must agree, in whole eights of channels"),
        ({"dilations": (1, 1), "lower": (0, 1), "upper": (2, 1), "kernel": "hopper_cooperative_2d_float16_64x64x64_c1"}, "must run .*; got: not a matrix product"),
    ],
)  # fmt: skip
def test_calls_that_make_no_sense(change, message):
    with pytest.raises(EmulationError, match=message):
        worker().call("tests.cutlass.candidate:call_with", change)


# ---- when it is chosen ----------------------------------------------------------------------------------------------


def graph():
    b = GraphBuilder("g")
    x = b.input("x", TensorType(HALF.data, HALF.dtype))
    w = b.constant(np.ones(HALF.weight, np.float16))
    return b.finish({"y": conv_node(b, x, w, HALF, name="layer")})


def test_an_estimate_alone_does_not_choose_it():
    choice = select(graph(), TARGET)["layer"]
    assert choice.algorithm != "cutlass"
    row = next(r for r in choice.candidates if r.algorithm == "cutlass")
    assert "needs CUTLASS's headers" in row.reason


def test_a_pin_a_policy_or_a_record_does():
    def chosen(**options):
        return select(graph(), TARGET, **options)["layer"].algorithm

    assert chosen(algo="cutlass") == "cutlass"
    assert chosen(policy=Policy(require=("cutlass",))) == "cutlass"
    posed = Problem(HALF)
    record = Measurement("cutlass", ALGORITHM.knobs(posed, TARGET), 1e-9, 1e-7)
    assert chosen(records={posed.key: (record,)}) == "cutlass"
    assert chosen(records={posed.key: (record,)}, policy=Policy(exclude=("cutlass",))) != "cutlass"


def test_a_lesser_form_is_said_with_the_choice_and_once_for_all_layers():
    def planned(target: str, **options):
        wishes = Wishes(algo="cutlass", logs=(), **options)
        made = plan_graph(graph(), parse_target(f"cuda -arch={target}"), wishes, "")
        return made.plan["layer"].reason, made.notes

    assert planned("sm_90") == ("pinned by --algo cutlass", ())
    why = "by cp.async and mma.sync, not by TMA and wgmma: wgmma and TMA are of sm 90 alone; got sm"
    for target, found in (("sm_80", "80"), ("sm_90,80", "90, 80"), ("sm_90 -ptx", "90 and PTX")):
        reason, notes = planned(target)
        assert reason == f"pinned by --algo cutlass; {why} {found}"
        assert notes == (f"cutlass {why} {found}: 1 layer, layer",)


def test_far_strides_are_said():
    far = Problem(replace(HALF, strides=(9, 1)))
    knobs = ALGORITHM.knobs(far, TARGET)
    assert ALGORITHM.remark(far, TARGET, knobs) == (
        "by cp.async and mma.sync, not by TMA and wgmma: strides must be at most 8; got (9, 1)"
    )
