"""What a choice rests on: records, like layers, the cost model, the policy; and agreement over the graph. Nothing is compiled."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from convc.errors import InvalidKnobsError, UnknownNameError, UnsupportedConvError
from convc.ir import ConvSpec, Graph, GraphBuilder, Step, TensorType
from convc.schedules.algorithm import Problem
from convc.schedules.packing import cycles
from convc.schedules.policy import Policy
from convc.schedules.properties import properties_of
from convc.schedules.select import candidates, problem_of, select
from convc.schedules.table import ALGORITHMS, algorithm_named
from convc.schedules.tuned import Measurement, distance, nearest
from convc.target import Target
from tests.schedules.conv_module import conv_node

ZEN4 = Target("llvm", "x86_64-linux-gnu", "znver4", (), 16, 32)
SPEC = ConvSpec.of((1, 64, 28, 28), (64, 64, 3, 3), pads=(1, 1, 1, 1))
PROBLEM = Problem(SPEC)


def net(spec: ConvSpec = SPEC, name: str = "layer") -> Graph:
    b = GraphBuilder("g")
    x = b.input("x", TensorType(spec.data))
    w = b.constant(np.ones(spec.weight, np.float32))
    return b.finish({"y": conv_node(b, x, w, spec, name=name)})


def record(algorithm: str, seconds: float, error: float = 1e-7, problem: Problem = PROBLEM, **changed):  # fmt: skip
    knobs = dict(algorithm_named(algorithm).knobs(problem, ZEN4)) | changed
    return Measurement(algorithm, knobs, seconds, error)


def choose(records=None, graph: Graph | None = None, **options):
    policy = options.pop("policy", None) or Policy(**options)
    return select(graph or net(), ZEN4, policy=policy, records=records or {})["layer"]


def test_a_record_beats_the_estimate_and_says_so():
    assert choose().source == "estimate"
    assert choose().algorithm == "winograd"
    slow = {PROBLEM.key: (record("winograd", 2e-3), record("direct", 1e-3))}
    choice = choose(slow)
    assert (choice.algorithm, choice.source, choice.because) == ("direct", "record", "")
    assert choice.reason.startswith("measured ")
    assert next(c.seconds for c in choice.candidates if c.algorithm == "direct") == 1e-3


def test_measured_settings_win_with_their_own_knobs():
    chosen = choose({PROBLEM.key: (record("direct", 1e-3), record("direct", 5e-4, cols=7))})
    assert chosen.knobs["cols"] == 7


def test_a_record_of_weights_of_run_time_is_charged_for_packing_them():
    """Measured is the kernel alone: `generic`, which reads them as they are, wins where packing costs more than the difference."""
    late = replace(PROBLEM, constant_weight=False)
    b = GraphBuilder("g")
    x, w = b.input("x", TensorType(SPEC.data)), b.input("w", TensorType(SPEC.weight))
    graph = b.finish({"y": conv_node(b, x, w, SPEC, name="layer")})
    knobs = algorithm_named("direct").knobs(late, ZEN4)
    packing = cycles("direct", late, ZEN4, knobs) / ZEN4.core.hertz
    assert packing > 2e-5
    rows = (
        record("direct", 1e-4, problem=late),
        record("generic", 1e-4 + packing / 2, problem=late),
    )
    chosen = choose({late.key: rows}, graph)
    assert chosen.algorithm == "generic"
    seconds = {c.algorithm: c.seconds for c in chosen.candidates}
    assert seconds["direct"] == pytest.approx(1e-4 + packing)


def test_a_record_that_is_too_wrong_is_never_chosen():
    records = {PROBLEM.key: (record("winograd", 1e-5, error=1e-3), record("direct", 1e-3))}
    assert choose(records).algorithm == "direct"
    assert choose(records, max_error=1e-2).algorithm == "winograd"


def test_a_record_with_knobs_of_another_time_is_not_used():
    records = {PROBLEM.key: (Measurement("direct", {"tile": 3}, 1e-9, 0.0),)}
    assert choose(records).source == "estimate"


def test_a_like_layer_corrects_the_estimate():
    other = Problem(ConvSpec.of((1, 64, 28, 28), (128, 64, 3, 3), pads=(1, 1, 1, 1)))
    assert distance(PROBLEM, other) == 1.0
    fast = algorithm_named("direct").cycles(other, ZEN4, record("direct", 1, problem=other).knobs)
    records = {other.key: (record("direct", fast / 3.6e9 / 10, problem=other), record("winograd", 1.0, problem=other))}  # fmt: skip
    choice = choose(records)
    assert (choice.algorithm, choice.source) == ("direct", "neighbour")
    assert choice.because == f"no record for {PROBLEM.key}"
    assert choose(records, when="per_shape").source == "estimate"
    assert choose(records, by="heuristic").algorithm == "winograd"


def test_another_epilogue_is_near_another_kind_is_not():
    biased = Problem(SPEC, (Step("bias"),))
    strided = Problem(ConvSpec.of((1, 64, 28, 28), (64, 64, 3, 3), strides=(2, 2)))
    known = [(p.key, p) for p in (biased, strided)]
    assert nearest(PROBLEM, known) == biased.key
    assert nearest(PROBLEM, known, same_shape=True) == biased.key
    assert nearest(PROBLEM, known[1:]) is None
    assert distance(PROBLEM, strided) == float("inf")


def test_keys_are_read_back():
    for problem in (
        PROBLEM,
        Problem(SPEC, (Step("bias"), Step("add"), Step("clip", (-1e-06, 6.0)))),
        Problem(SPEC, (), constant_weight=False),
        Problem(SPEC, (Step("relu"),), False, "float32"),
        Problem(ConvSpec.of((1, 4, 9), (4, 2, 3), group=2, transposed=True, output_padding=(0,))),
    ):
        assert Problem.parse(problem.key) == problem


def test_policies():
    assert choose(exclude=("winograd",)).algorithm != "winograd"
    assert choose(include=("direct", "generic")).algorithm == "direct"
    assert choose(require=("im2col",)).algorithm == "im2col"
    assert choose(require=("depthwise",)).algorithm == "winograd"  # it does not apply
    assert choose(workspace_limit=0).algorithm == "direct"
    assert choose(max_error=1.5e-6).knobs["m"] in (2, 4)
    assert choose(deterministic=True).algorithm == "winograd"
    assert choose(prefer=("direct",)).algorithm == "winograd"  # more than 10 % slower
    near = {PROBLEM.key: (record("winograd", 1e-3), record("direct", 1.05e-3))}
    assert choose(near, prefer=("direct",)).algorithm == "direct"
    rows = candidates(PROBLEM, ZEN4, Policy(exclude=("fft",)))
    assert {r.algorithm: r.reason for r in rows}["fft"] == "excluded by the policy"


@pytest.mark.parametrize("damage", ["pd1.1.1.1-", "st1x1-", "g1", "f32", "k64"])
def test_a_record_of_no_geometry_says_nothing(damage):
    """Damage that is still JSON, or another convc's name: the layer is chosen as without it."""
    for wrong in ("", "x", "0", "pd.1.1-", "g0", "clip(0.0 6.0)"):
        key = PROBLEM.key.replace(damage, wrong)
        assert choose({key + "+relu": (record("direct", 1e-9),)}).algorithm == choose().algorithm


def test_a_reason_says_which_way_the_times_differ():
    assert re.fullmatch(r"estimated \d\.\d\d x faster than \w+", choose().reason)
    near = {PROBLEM.key: (record("winograd", 1e-3), record("direct", 1.05e-3))}
    preferred = choose(near, prefer=("direct",)).reason
    assert preferred == "measured 1.05 x slower than winograd, which the policy leaves out"
    assert (
        "x slower than winograd, which the policy leaves out" in choose(require=("im2col",)).reason
    )


def test_a_layer_that_takes_its_neighbours_blocks_says_so():
    """Groups of 9 channels are faster in plain order, and slower with a copy on each side; in the caller's order there is none."""
    pointwise = ConvSpec.of((1, 72, 28, 28), (72, 9, 1, 1), group=8)
    depthwise = ConvSpec.of((1, 72, 28, 28), (72, 1, 3, 3), pads=(1, 1, 1, 1), group=72)
    b = GraphBuilder("g")
    x = b.input("x", TensorType(pointwise.data))
    for i, spec in enumerate((pointwise, depthwise, pointwise, depthwise)):
        x = conv_node(b, x, b.constant(np.ones(spec.weight, np.float32)), spec, name=f"l{i}")
    graph = b.finish({"y": x})
    alone = choose(graph=net(pointwise))
    among = select(graph, ZEN4)["l2"]
    assert (alone.algorithm, among.algorithm) == ("im2col", "direct")
    assert re.fullmatch(r"estimated 1\.\d\d x faster than direct", alone.reason)
    assert re.fullmatch(
        r"estimated 1\.\d\d x slower than im2col by itself, but in its neighbours' blocks of channels",
        among.reason,
    )


def test_policies_that_cannot_be():
    with pytest.raises(
        UnsupportedConvError,
        match=r"^policy must leave an algorithm for 'layer'; got none: depthwise: group",
    ):
        choose(include=("depthwise",))
    with pytest.raises(UnknownNameError, match="Did you mean 'winograd'"):
        choose(exclude=("winogard",))
    for wrong in ({"by": "guess"}, {"when": "twice"}, {"workspace_limit": -1}, {"max_error": 0.0}):
        with pytest.raises(InvalidKnobsError, match=r" must "):
            Policy(**wrong)
    with pytest.raises(InvalidKnobsError, match="both require and exclude; got fft"):
        Policy(require=("fft",), exclude=("fft",))


def test_lists_of_algorithms():
    assert Policy().with_algorithms("+winograd,-fft") == Policy(exclude=("fft",))
    assert Policy().with_algorithms("direct") == Policy(include=("direct",))
    assert Policy(exclude=("fft",)).with_algorithms("+fft") == Policy()
    assert Policy().with_algorithms("direct,winograd").document() == {"include": "direct,winograd"}
    with pytest.raises(InvalidKnobsError, match=r"must look like"):
        Policy().with_algorithms("+")


def test_a_pin_is_stronger_than_a_record():
    plan = select(net(), ZEN4, algo="direct", records={PROBLEM.key: (record("winograd", 1e-9),)})
    assert (plan["layer"].algorithm, plan["layer"].reason) == ("direct", "pinned by --algo direct")
    assert [name for name, _ in plan.untuned] == ["layer"]


@pytest.mark.parametrize(("c", "k"), [(32, 8), (960, 240), (240, 960)])
def test_a_map_of_one_point_is_no_work_for_the_plain_loops(c: int, k: int):
    problem = Problem(ConvSpec.of((1, c, 1, 1), (k, c, 1, 1)))
    direct, generic = (algorithm_named(name) for name in ("direct", "generic"))
    knobs = direct.knobs(problem, ZEN4), generic.knobs(problem, ZEN4)
    assert direct.cycles(problem, ZEN4, knobs[0]) < generic.cycles(problem, ZEN4, knobs[1])


def test_every_algorithm_has_properties():
    for algorithm in ALGORITHMS:
        for spec in (SPEC, ConvSpec.of((1, 32, 9, 9), (32, 1, 3, 3), group=32), ConvSpec.of((1, 8, 4, 4), (8, 8, 2, 2), strides=(2, 2), transposed=True)):  # fmt: skip
            problem = Problem(spec)
            if algorithm.supports(problem, ZEN4) is None:
                facts = properties_of(algorithm, problem, ZEN4, algorithm.knobs(problem, ZEN4))
                assert facts.flops > 0
                assert facts.workspace >= 0
                assert 0 < facts.error < 1e-4
    winograd = algorithm_named("winograd")
    errors = [properties_of(winograd, PROBLEM, ZEN4, winograd.with_tile(SPEC, ZEN4, m, 1)).error for m in (2, 4, 6)]  # fmt: skip
    assert errors == sorted(errors)
    assert problem_of(net(), net()["layer"]) == PROBLEM
