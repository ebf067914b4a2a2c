"""cuDNN as a candidate: what it takes, when it is chosen, and modules with it, from the graph to the exported file that runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from convc.errors import InputError, InvalidKnobsError, UnsupportedConvError
from convc.frontend import dsl as cc
from convc.ir import ConvSpec, GraphBuilder, Step, TensorType
from convc.ir.reference import interpret
from convc.lock import lock_of, read_lock
from convc.lowering.emit import emit
from convc.planning import Wishes, plan_graph
from convc.schedules.algorithm import Problem, knob_space
from convc.schedules.backend import backend_of
from convc.schedules.cuda.cudnn import ALGORITHM
from convc.schedules.cudnn_use import wishes_with_cudnn
from convc.schedules.policy import Policy
from convc.schedules.properties import properties_of
from convc.schedules.select import select
from convc.schedules.tuned import Measurement
from convc.target import parse_target
from tests.conv_grid import CONV_GRID
from tests.cuda_emulation.emulation import worker
from tests.schedules.conv_module import Case, conv_node

TARGET = parse_target("cuda -arch=sm_90")
PLAIN = ConvSpec.of((1, 4, 6, 6), (8, 4, 3, 3), pads=(1, 1, 1, 1))


def results(cases: list[Case], exact: bool = True) -> tuple[list, str]:
    return worker().call("tests.cudnn.candidate:conv_results", cases, TARGET, exact)


def taken() -> list[ConvSpec]:
    return [r.spec for r in CONV_GRID if ALGORITHM.supports(Problem(r.spec), TARGET) is None]


def test_what_of_the_grid_it_refuses():
    refused = {r.spec for r in CONV_GRID} - set(taken())
    for spec in refused:
        n = spec.rank
        assert spec.pads[:n] != spec.pads[n:] or max(spec.output_padding) >= min(spec.strides)
    assert len(taken()) > 0.8 * len(CONV_GRID)


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (Problem(ConvSpec.of((1, 4, 6, 6), (8, 4, 3, 3), pads=(1, 1, 0, 1))), "pads must be equal at both ends of an axis"),
        (Problem(ConvSpec.of((0, 4, 6, 6), (8, 4, 3, 3))), "data must not be empty"),
        (Problem(PLAIN, accumulate="float64"), "sums must be float32; got float64"),
        (Problem(ConvSpec.of((1, 4, 6, 6), (8, 4, 3, 3), dtype="float16"), (Step("tanh"),)), "must be one that cuDNN fuses"),
        (
            Problem(ConvSpec.of((1, 4, 6, 6), (4, 8, 3, 3), transposed=True, dilations=(2, 2), output_padding=(1, 1))),
            "output_padding must be less than the stride",
        ),
    ],
)  # fmt: skip
def test_refusals_have_reasons(problem, reason):
    assert reason in ALGORITHM.supports(problem, TARGET).reason


def grid_cases(exact: bool, every: int = 1) -> None:
    cases = [
        Case("cudnn", spec)
        for spec in taken()[::every]
        if np.prod(spec.output) * np.prod(spec.weight[1:]) < 4e4
    ]
    found, story = results(cases, exact)
    assert len(found) > 30
    wrong = [
        r.case.spec.key
        for r in found
        if not np.allclose(
            r.actual, r.expected, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-5
        )
    ]
    assert wrong == []
    # Each convolution is one call of the library, at load and in the run.
    assert story.count("run ") == 2 * len(cases)


@pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_the_grid_through_an_exported_module(every):
    grid_cases(exact=True, every=every)


EPILOGUES = [
    (), ("bias",), ("add",), ("bias", "relu"), ("bias", "add", "relu"), ("add", "bias"), ("bias", "clip(0.0, 6.0)"),
    # what cuDNN does not fuse runs as a kernel behind it
    ("relu", "bias"), ("bias", "leaky_relu(0.25)"), ("bias", "relu", "add"), ("add", "add"),
]  # fmt: skip


def test_epilogues_inside_and_behind_the_call():
    transposed = ConvSpec.of((1, 4, 5, 5), (4, 6, 3, 3), strides=(2, 2), transposed=True)
    steps = [tuple(map(Step.parse, names)) for names in EPILOGUES]
    cases = [Case("cudnn", spec, e) for spec in (PLAIN, transposed) for e in steps]
    found, _ = results(cases)
    for result in found:
        np.testing.assert_array_equal(result.actual, result.expected, err_msg=str(result.case))


def test_channels_last():
    """1-D to 3-D, groups, depthwise, transposed; every epilogue, inside and behind the call."""
    specs = (
        ConvSpec.of((2, 6, 9), (4, 3, 3), group=2, strides=(2,), pads=(1, 1)),
        ConvSpec.of((1, 4, 3, 4, 5), (6, 4, 2, 3, 3), pads=(0, 1, 1, 0, 1, 1)),
        ConvSpec.of((2, 8, 5, 6), (8, 1, 3, 3), group=8, pads=(1, 1, 1, 1)),
        ConvSpec.of((1, 4, 5, 5), (4, 6, 3, 3), strides=(2, 2), transposed=True),
    )
    knobs = tuple({**ALGORITHM.knobs(Problem(PLAIN), TARGET), "channels_last": 1}.items())
    steps = [tuple(map(Step.parse, names)) for names in EPILOGUES]
    cases = [Case("cudnn", spec, (), knobs) for spec in specs]
    cases += [Case("cudnn", PLAIN, e, knobs) for e in steps]
    found, _ = results(cases)
    for result in found:
        np.testing.assert_array_equal(result.actual, result.expected, err_msg=str(result.case))


def test_half_precision_is_channels_last_from_layer_to_layer():
    """Two layers of cuDNN with a sum between them: the image is copied into that order once, and out of it once."""
    x = cc.input("x", (1, 8, 6, 6), "float16")
    w = np.ones((8, 8, 3, 3), np.float16) / 8
    h = cc.conv2d(x, w, pads=1, name="first")
    net = cc.graph({"y": cc.conv2d(h + h, w, pads=1, name="second")}, name="two")
    planned = plan_graph(net, TARGET, Wishes.of(cudnn="require"), "")
    assert [c.knobs["channels_last"] for c in planned.plan.choices.values()] == [1, 1]
    program = emit(net, planned.plan, TARGET)
    copies = [call.kernel.symbol for call in program.calls if "reorder" in call.kernel.symbol]
    assert len(copies) == 2


def test_what_cudnn_took_is_named_by_knobs():
    problem = Problem(PLAIN)
    knobs = ALGORITHM.knobs(problem, TARGET)
    named = ALGORITHM.settled(knobs, "engine=28;knobs=2:1,17:4;workspace=1024")
    function, (text, *tensors) = ALGORITHM.question(problem, named, ["x", "w", "y"])
    assert (function, tensors) == ("convc_cudnn_plan", ["x", "w", "y"])
    assert "engine=28;knobs=17:4,2:1;" in text
    assert "engine=;knobs=;" in ALGORITHM.question(problem, knobs, ["x", "w", "y"])[1][0]
    # What it took is for reports; a limit bounds what it may take, which is asked for as before.
    assert "workspace=268435456;" in text
    facts = [properties_of(ALGORITHM, problem, TARGET, k) for k in (knobs, named, ALGORITHM.in_way(named, "none"), ALGORITHM.in_way(named, "small"))]  # fmt: skip
    assert [f.workspace for f in facts] == [256 << 20, 256 << 20, 0, 8 << 20]
    assert [f.known_workspace for f in facts] == [(256 << 20, True), (1024, False), (0, False), (8 << 20, True)]  # fmt: skip
    late = replace(problem, constant_weight=False)
    last = properties_of(ALGORITHM, late, TARGET, {**named, "channels_last": 1})
    weights = 4 * int(np.prod(PLAIN.weight))
    assert (last.workspace, *last.known_workspace) == ((256 << 20) + weights, 1024 + weights, False)
    assert properties_of(ALGORITHM, late, TARGET, named).known_workspace == (1024, False)
    # A bias and a residual go into the call, what does not is another kernel's.
    odd = Problem(PLAIN, (Step("bias"), Step("relu"), Step("add")))
    assert ALGORITHM.question(odd, knobs, ["x", "w", "b", "r", "y"])[1][1:] == ["x", "w", "b", "y"]


def test_knobs_are_legal_and_say_what_they_promise():
    problem = Problem(PLAIN)
    space = knob_space(ALGORITHM, problem, TARGET)
    assert space[0] == ALGORITHM.knobs(problem, TARGET)
    facts = [properties_of(ALGORITHM, problem, TARGET, knobs) for knobs in space]
    assert {f.deterministic for f in facts} == {False, True}
    assert {f.workspace for f in facts} == {0, 8 << 20, 256 << 20}
    assert {(k["transforms"], f.error == np.inf) for k, f in zip(space, facts, strict=True)} == {
        (0, False),
        (1, True),
    }
    found, story = results([Case("cudnn", PLAIN, (), tuple({**space[0], "engine": 0}.items()))])
    np.testing.assert_array_equal(found[0].actual, found[0].expected)
    assert "heuristics" not in story
    assert "run 0 on" in story


# ---- when it is chosen ----------------------------------------------------------------------------------------------


def graph():
    b = GraphBuilder("g")
    x = b.input("x", TensorType(PLAIN.data))
    w = b.constant(np.ones(PLAIN.weight, np.float32))
    return b.finish({"y": conv_node(b, x, w, PLAIN, name="layer")})


def chosen(**options):
    choice = select(graph(), TARGET, **options)["layer"]
    return choice.algorithm, choice.reason


def test_an_estimate_alone_does_not_choose_it():
    algorithm, _ = chosen()
    assert algorithm != "cudnn"
    row = next(r for r in select(graph(), TARGET)["layer"].candidates if r.algorithm == "cudnn")
    assert "needs cuDNN where it runs" in row.reason


def test_a_pin_a_policy_or_a_record_does():
    assert chosen(algo_for={"layer": "cudnn"}) == ("cudnn", "pinned by --algo-for layer")
    assert chosen(algo="cudnn")[0] == "cudnn"
    assert chosen(policy=Policy(require=("cudnn",)))[0] == "cudnn"
    assert chosen(policy=Policy(exclude=("cudnn",)))[0] != "cudnn"
    knobs = {**ALGORITHM.knobs(Problem(PLAIN), TARGET), "engine": 28}
    records = {Problem(PLAIN).key: (Measurement("cudnn", knobs, 1e-9, 1e-7),)}
    assert chosen(records=records)[0] == "cudnn"


def test_of_two_records_the_faster_one_is_taken_whichever_its_order():
    """On a device plain images are the rule: a record of theirs pays for no copies that nobody makes."""
    spec = ConvSpec.of((1, 64, 56, 56), (64, 64, 3, 3), pads=(1, 1, 1, 1))
    b = GraphBuilder("g")
    x = b.input("x", TensorType(spec.data))
    y = conv_node(b, x, b.constant(np.ones(spec.weight, np.float32)), spec, name="layer")
    graph, problem = b.finish({"y": y}), Problem(spec)
    direct = backend_of(TARGET).algorithm("direct").knobs(problem, TARGET)
    last = {**ALGORITHM.knobs(problem, TARGET), "channels_last": 1}
    for plain, blocked, wanted in ((8e-6, 15e-6, "direct"), (40e-6, 15e-6, "cudnn")):
        rows = (Measurement("direct", direct, plain, 1e-7), Measurement("cudnn", last, blocked, 1e-7))  # fmt: skip
        choice = select(graph, TARGET, records={problem.key: rows})["layer"]
        assert choice.algorithm == wanted
        assert {c.algorithm: c.seconds for c in choice.candidates}["direct"] == plain


def test_what_the_tuner_settled_is_in_plan_lock_and_module(tmp_path):
    """Engine and settings of the fastest record: nothing is searched where the module runs."""
    usual = ALGORITHM.knobs(Problem(PLAIN), TARGET)
    settled = ALGORITHM.settled(usual, "engine=28;knobs=17:8;workspace=16777216")
    # Of equal times the one that leaves less open comes first.
    records = {Problem(PLAIN).key: tuple(Measurement("cudnn", k, 1e-9, 1e-7) for k in (settled, usual))}  # fmt: skip
    plan = select(graph(), TARGET, records=records)
    assert dict(plan["layer"].knobs) == settled
    lock_of(graph(), plan, TARGET, "sha", {}).write(tmp_path / "g.lock")
    again = read_lock(tmp_path / "g.lock").choices(graph(), TARGET)
    assert dict(again["layer"].knobs) == settled
    knobs = tuple(again["layer"].knobs.items())
    found, story = results([Case("cudnn", PLAIN, (), knobs)])
    np.testing.assert_array_equal(found[0].actual, found[0].expected)
    assert "heuristics" not in story
    assert "run 28 on" in story


def test_a_deterministic_policy_asks_cudnn_for_that():
    choice = select(
        graph(), TARGET, policy=Policy(require=("cudnn",), deterministic=True, workspace_limit=0)
    )["layer"]
    assert choice.knobs["deterministic"] == 1
    assert choice.knobs["workspace_mib"] == 0


def test_a_pin_on_what_it_does_not_take_says_why():
    b = GraphBuilder("g")
    spec = ConvSpec.of((1, 4, 6, 6), (8, 4, 3, 3), pads=(0, 1, 1, 1))
    x = b.input("x", TensorType(spec.data))
    w = b.constant(np.ones(spec.weight, np.float32))
    odd = b.finish({"y": conv_node(b, x, w, spec, name="layer")})
    with pytest.raises(
        UnsupportedConvError, match="algorithm 'cudnn' cannot compute 'layer': pads must be equal"
    ):
        select(odd, TARGET, algo_for={"layer": "cudnn"})


def two_convolutions():
    """One that cuDNN takes and one whose pads it does not."""
    x = cc.input("x", (1, 4, 6, 6))
    w = np.ones((4, 4, 3, 3), np.float32)
    h = cc.conv2d(x, w, pads=1, name="even")
    return cc.graph({"y": cc.conv2d(h, w, pads=(0, 1, 1, 1), name="odd")}, name="two")


def planned(use, **pins):
    wishes = Wishes.of(algo_for=pins, cudnn=use)
    done = plan_graph(two_convolutions(), TARGET, wishes, "")
    return {n: (c.algorithm, c.reason) for n, c in done.plan.choices.items()}, done.options


def test_one_word_for_it_everywhere():
    auto, options = planned("auto")
    assert "cudnn" not in {algorithm for algorithm, _ in auto.values()} | set(options)
    preferred, options = planned("prefer")
    assert (preferred["even"][0], options["cudnn"]) == ("cudnn", "prefer")
    algorithm, reason = preferred["odd"]
    assert algorithm != "cudnn"
    assert reason.startswith("cudnn required, but pads must be equal at both ends of an axis; got")
    with pytest.raises(UnsupportedConvError, match="'cudnn' cannot compute 'odd': pads must be"):
        planned("require")
    required, _ = planned("require", odd="direct")
    assert {n: a for n, (a, _) in required.items()} == {"even": "cudnn", "odd": "direct"}
    with pytest.raises(InvalidKnobsError, match="must not be in both require and exclude"):
        wishes_with_cudnn("off", TARGET, {}, Policy(require=("cudnn",)))
    with pytest.raises(InputError, match="cudnn must be one of auto, off, prefer, require; got"):
        wishes_with_cudnn("maybe", TARGET, {}, Policy())
    with pytest.raises(InputError, match="cudnn must be auto or off for target llvm; got 'prefer'"):
        wishes_with_cudnn("prefer", parse_target("llvm"), {}, Policy())
    assert wishes_with_cudnn("off", parse_target("llvm"), {}, Policy()) == ({}, Policy())


def test_off_is_off_whatever_records_say():
    records = {
        Problem(PLAIN).key: (Measurement("cudnn", ALGORITHM.knobs(Problem(PLAIN), TARGET), 1e-9, 1e-7),)
    }  # fmt: skip
    _, policy = wishes_with_cudnn("off", TARGET, {}, Policy())
    assert chosen(records=records)[0] == "cudnn"
    assert chosen(records=records, policy=policy)[0] != "cudnn"


def test_from_the_dsl_to_a_module_that_runs():
    rng = np.random.default_rng(0)

    def weights(*shape):
        return rng.integers(-2, 3, shape).astype(np.float32)

    x = cc.input("x", (2, 3, 12, 12))
    h = cc.relu(cc.conv2d(x, weights(8, 3, 3, 3), pads=1, strides=2, name="stem"))
    h = h + cc.conv2d(h, weights(8, 1, 3, 3), pads=1, group=8, name="depthwise")
    net = cc.graph(
        {"y": cc.conv2d(cc.max_pool2d(h, 2), weights(4, 8, 1, 1), name="head")}, name="net"
    )
    image = rng.integers(-3, 4, (2, 3, 12, 12)).astype(np.float32)
    options = {"target": "cuda -arch=sm_90", "algo_for": {"stem": "cudnn", "depthwise": "cudnn"}}
    outputs, choices, story = worker().call(
        "tests.cudnn.candidate:compile_and_run", net, options, {"x": image}
    )
    np.testing.assert_array_equal(outputs["y"], interpret(net, {"x": image})["y"])
    assert {name: algorithm for name, (algorithm, _) in choices.items()}["stem"] == "cudnn"
    assert choices["head"][0] != "cudnn"
    assert story.count("run ") == 2
