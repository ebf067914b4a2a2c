"""Pools behind convolutions: when one kernel is taken, what is said of it, and what tuning and locks do with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from convc.errors import TuningError
from convc.ir import ConvSpec, Graph
from convc.ir.ops.pool import MaxPoolAttributes
from convc.ir.text import parse
from convc.lock import lock_of, read_lock
from convc.schedules import pooled_model as model
from convc.schedules.algorithm import Problem
from convc.schedules.backend import backend_of
from convc.schedules.plan import Plan, Unsupported
from convc.schedules.policy import Policy
from convc.schedules.pooled import NAME, Pooled, padded
from convc.schedules.pooled_choice import best_setting, pool_behind
from convc.schedules.properties import properties_of
from convc.schedules.select import problem_of, select
from convc.schedules.tuned import Measurement, Untuned
from convc.schedules.winograd import ALGORITHM as WINOGRAD
from convc.target import Target, parse_target
from convc.tuning.tasks import chain_tasks_of

XEON = Target(
    "llvm", "x86_64-linux-gnu", "emeraldrapids", (), 16, 32, l2_bytes=1 << 20, l3_bytes=64 << 20
)


def network(pool: str, *, conv: str = "", ends: str = "return %z", shape: str = "1,64,224,224") -> Graph:  # fmt: skip
    return parse(
        f"""graph @g {{ %x = input : f32[{shape}]  %w = constant splat(0.5) : f32[64,{shape.split(",")[1]},3,3]
        %y = conv(%x, %w) {{pads = [1, 1, 1, 1]{conv}}}  %z = {pool}  {ends} }}"""
    )


PAIR = "max_pool(%y) {kernel = [2, 2], strides = [2, 2]}"


def test_a_pool_that_waits_for_memory_joins_the_convolution_and_both_say_so():
    plan = select(network(PAIR), XEON)
    (chain,) = plan.chains
    assert (chain.layers, chain.kind) == (("y", "z"), NAME)
    assert plan["y"].reason.endswith(chain.reason)
    assert chain.reason.startswith("one kernel with 'z', estimated 1.")


@pytest.mark.parametrize(
    "graph",
    [
        network(PAIR, ends="return %z, %y"),
        network(PAIR, ends="%r = relu(%y)  return %z, %r"),
        network("max_pool(%x) {kernel = [2, 2], strides = [2, 2]}", ends="return %z, %y"),
    ],
    ids=["an output", "another reader", "not behind it"],
)
def test_what_others_read_stays_in_memory(graph: Graph):
    plan = select(graph, XEON)
    assert plan.chains == ()
    assert "apart" not in plan["y"].reason


@pytest.mark.parametrize(
    ("graph", "options", "reason"),
    [
        (network(PAIR), {"algo": "im2col"}, "only direct and winograd compute strips of rows; not im2col"),
        (network("reduce_mean(%y) {axes = [2, 3]}"), {}, "a mean must be of at most 1023 elements; got 50176"),
        (network("max_pool(%y) {kernel = [224, 2]}"), {"algo": "winograd"}, "no strip of rows fits the L2 cache"),
        (network(PAIR), {"policy": Policy(workspace_limit=1000), "algo": "direct"}, "workspace must be at most 1000 bytes; got "),
        (network(PAIR, conv=", dilations = [2, 2]"), {"algo": "winograd"}, "winograd's tiles of a dilated filter are no rows"),
    ],
)  # fmt: skip
def test_pools_that_stay_apart_say_why(graph: Graph, options: dict, reason: str):
    plan = select(graph, XEON, **options)
    assert plan.chains == ()
    assert f"; 'z' apart: {reason}" in plan["y"].reason


def posed_by(graph: Graph) -> Pooled:
    behind = pool_behind(graph, graph["y"], problem_of(graph, graph["y"]))
    assert behind is not None
    return behind[1]


def test_a_pool_takes_no_tile_that_is_less_accurate_than_the_policy_allows():
    graph = network(PAIR, shape="1,64,150,150")
    layer = posed_by(graph).layer
    limit = properties_of(WINOGRAD, layer, XEON, WINOGRAD.with_tile(layer.spec, XEON, 4, 1)).error
    assert select(graph, XEON)["y"].knobs["m"] == 5
    strict = select(graph, XEON, policy=Policy(max_error=limit))
    assert strict["y"].algorithm == "winograd"
    assert properties_of(WINOGRAD, layer, XEON, strict["y"].knobs).error <= limit


@pytest.mark.parametrize(("rows", "pads"), [(3, 1), (5, 2)])
def test_both_apart_compute_no_row_that_the_pool_pads(rows: int, pads: int):
    window = MaxPoolAttributes((rows, rows), (1, 1), (pads,) * 4, (1, 1))
    layer = posed_by(network(PAIR, shape="1,64,7,7")).layer
    assert padded(Pooled(layer, window), {"strip": 0}) == layer
    assert padded(Pooled(layer, window), {"strip": 7}).spec.output[2] == 7 + 2 * pads


def test_threads_share_out_strips_and_not_the_parts_of_the_layer_alone():
    spec = ConvSpec.of((1, 16, 24, 24), (48, 16, 3, 3), pads=(1,) * 4)
    posed = Pooled(Problem(spec), MaxPoolAttributes((2, 2), (2, 2), (0,) * 4, (1, 1)))
    direct = backend_of(XEON).algorithm("direct")

    def cycles(cores: int, strip: int, chunks: int) -> float:
        knobs = {"data_block": 16, "block": 16, "rows": 2, "cols": 4, "vectors": 1}
        knobs |= {"strip": strip, "chunks": chunks}
        return model.cycles(posed, direct, XEON.with_cores(cores), knobs)

    # 4 strips of 3 groups of channels are even, whatever three parts of rows of the layer alone would be.
    assert cycles(2, 3, chunks=3) == pytest.approx(cycles(2, 3, chunks=1))
    # 2 strips of 3 groups are 6 parts for 4 threads; but 2 where each is one thread's.
    assert cycles(4, 6, chunks=2) > 1.2 * cycles(4, 6, chunks=1)


def test_the_workspace_of_winograd_counts_beside_the_rows_of_a_strip():
    graph = network(PAIR)
    posed = posed_by(graph)
    own = WINOGRAD.knobs(posed.layer, XEON)
    best = best_setting(posed, WINOGRAD, own, XEON, Policy(), others=True)
    assert not isinstance(best, Unsupported)
    needed = model.properties(posed, WINOGRAD, XEON, best[0]).workspace
    alone = properties_of(WINOGRAD, padded(posed, best[0]), XEON, best[0]).workspace
    rows = best[0]["rows"] * best[0]["m"] * best[0]["vectors"] * best[0]["block"] * 224
    assert needed == alone + 4 * rows
    bounded = best_setting(posed, WINOGRAD, own, XEON, Policy(workspace_limit=needed - 1), others=True)  # fmt: skip
    assert isinstance(bounded, Unsupported) or (
        model.properties(posed, WINOGRAD, XEON, bounded[0]).workspace < needed
    )
    none = best_setting(posed, WINOGRAD, own, XEON, Policy(workspace_limit=1000), others=True)
    assert isinstance(none, Unsupported)
    assert none.reason.startswith("workspace must be at most 1000 bytes; got ")


def test_images_alone_have_rows():
    line = parse(
        """graph @g { %x = input : f32[1,16,4096]  %w = constant splat(0.5) : f32[16,16,3]
        %y = conv(%x, %w)  %z = max_pool(%y) {kernel = [2]}  return %z }"""
    )
    volume = parse(
        """graph @g { %x = input : f32[1,16,16,64,64]  %w = constant splat(0.5) : f32[16,16,3,3,3]
        %y = conv(%x, %w)  %z = max_pool(%y) {kernel = [2, 2, 2]}  return %z }"""
    )
    for graph in (line, volume):
        plan = select(graph, XEON)
        assert plan.chains == ()
        assert "; 'z' apart: the convolution must be 2-D and not transposed" in plan["y"].reason


@pytest.mark.parametrize(
    "policy",
    [
        Policy(exclude=(NAME,)),
        Policy(include=("direct", "winograd")),
        Policy(require=("winograd",)),
    ],
)
def test_what_the_user_asks_for_goes_first(policy: Policy):
    assert select(network(PAIR), XEON, policy=policy).chains == ()


def test_devices_have_none():
    assert select(network(PAIR), parse_target("cuda -arch=sm_90")).chains == ()


def test_a_pinned_layer_keeps_its_algorithm_and_its_pool():
    plan = select(network(PAIR), XEON, algo_for={"y": "direct"})
    assert plan["y"].algorithm == "direct"
    assert [c.layers for c in plan.chains] == [("y", "z")]


def test_measured_times_decide_where_one_kernel_and_two_are_measured():
    graph = network(PAIR)
    behind = pool_behind(graph, graph["y"], problem_of(graph, graph["y"]))
    assert behind is not None
    own = select(graph, XEON, policy=Policy(exclude=(NAME,)))["y"]
    other = {**own.knobs, "rows": 1, "strip": 2}

    def plan(together: float, apart: float, error: float = 1e-7) -> Plan:
        rows = [
            Measurement(own.algorithm, other, together, error),
            Measurement(own.algorithm, {**own.knobs, "strip": 0}, apart, 1e-7),
        ]
        return select(graph, XEON, records={behind[1].key: tuple(rows)})

    faster = plan(1.0, 1.25)
    assert dict(faster.chains[0].knobs) == {"strip": 2}
    assert faster["y"].knobs["rows"] == 1
    assert "measured 1.25 x faster than two" in faster.chains[0].reason
    slower = plan(1.25, 1.0)
    assert slower.chains == ()
    assert "'z' apart: one kernel measured 0.80 x faster than two" in slower["y"].reason
    # Without a measured time of both the model decides.
    assert "estimated" in plan(1.0, 1.25, error=1.0).chains[0].reason


def test_what_a_network_says_of_the_two_decides():
    graph = network(PAIR)
    behind = pool_behind(graph, graph["y"], problem_of(graph, graph["y"]))
    assert behind is not None
    own = select(graph, XEON, policy=Policy(exclude=(NAME,)))["y"]
    for strip in (0, 2):
        untuned = Untuned(own.algorithm, {**own.knobs, "strip": 2}, 1.0)
        row = Measurement(own.algorithm, {**own.knobs, "strip": strip}, 0.9, 1e-7, untuned)
        plan = select(graph, XEON, records={behind[1].key: (row,)})
        assert [dict(c.knobs) for c in plan.chains] == [{"strip": 2}] * bool(strip)
        assert "the fastest measured in a network" in plan["y"].reason


def test_a_measured_tile_is_kept_where_its_strips_pay():
    graph = network(PAIR)
    problem = problem_of(graph, graph["y"])
    own = select(graph, XEON, policy=Policy(exclude=(NAME,)))["y"]
    # Slower by the model than another tile, but measured: as long as no record says more, its own strips are compared.
    slower = {**own.knobs, "planes": 0, "rows": 1}
    plan = select(
        graph, XEON, records={problem.key: (Measurement(own.algorithm, slower, 1.0, 1e-7),)}
    )
    assert plan["y"].source == "record"
    assert dict(plan["y"].knobs) == slower
    assert [dict(c.knobs) for c in plan.chains] == [{"strip": 2}]


def test_the_tuner_measures_one_kernel_and_two():
    graph = network(PAIR)
    (task,) = chain_tasks_of(graph, XEON, Policy())
    assert task.layers == ("y > z",)
    settings = task.subject.settings(XEON, Policy())
    assert {s.algorithm for s in settings} == {"direct", "winograd"}
    assert {bool(s.knobs["strip"]) for s in settings if s.algorithm == "direct"} == {False, True}
    assert [s.seconds for s in settings] == sorted(s.seconds for s in settings)
    assert chain_tasks_of(graph, XEON, Policy(exclude=(NAME,))) == ()
    assert task.subject.settings(XEON, Policy(exclude=(NAME,))) == []


def test_a_lock_keeps_it(tmp_path: Path):
    graph = network(PAIR)
    plan = select(graph, XEON)
    lock_of(graph, plan, XEON, "hash", {}).write(tmp_path / "pools.lock")
    again = read_lock(tmp_path / "pools.lock").plan(graph, XEON, "hash")
    assert again.chains == plan.chains
    assert again["y"].knobs == plan["y"].knobs


@pytest.fixture(scope="module")
def planned() -> Plan:
    return select(network(PAIR, shape="1,64,150,150"), XEON)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"kind": "pool"}, "kind must be bottleneck or gated or pooled; got 'pool'"),
        ({"knobs": {}}, "knobs must be strip; got none"),
        ({"knobs": {"strip": 2, "rows": 2}}, "knobs must be strip; got rows, strip"),
        ({"knobs": {"strip": 0}}, "strip must be rows that "),
        ({"layers": ("y", "gone")}, "layers must be in the graph; got 'gone'"),
        ({"layers": ("z", "y")}, "layers must be a convolution and the pool that alone reads it; got z, y"),
        ({"layers": ("y",)}, "layers must be a convolution and the pool that alone reads it; got y"),
        ({"kind": "gated"}, "layers must scale channels and convolve what alone is scaled; got y, z"),
        ({"kind": "bottleneck"}, "layers must be two or three convolutions; got y, z"),
    ],
)  # fmt: skip
def test_a_damaged_lock_is_refused(planned: Plan, damage: dict[str, Any], message: str):
    graph = network(PAIR, shape="1,64,150,150")
    lock = lock_of(graph, planned, XEON, "hash", {})
    (chain,) = lock.chains
    lock = msgspec.structs.replace(lock, chains=(msgspec.structs.replace(chain, **damage),))
    with pytest.raises(TuningError, match=re.escape(message)) as error:
        lock.plan(graph, XEON, "hash")
    assert str(error.value).endswith("Write a new one with --lock.")


def test_a_lock_has_a_layer_in_one_chain(planned: Plan):
    graph = network(PAIR, shape="1,64,150,150")
    lock = lock_of(graph, planned, XEON, "hash", {})
    lock = msgspec.structs.replace(lock, chains=lock.chains * 2)
    with pytest.raises(TuningError, match="a layer must be in one chain; got 'y' in two"):
        lock.plan(graph, XEON, "hash")


def test_no_number_of_threads_takes_less_than_no_time():
    spec = ConvSpec.of((1, 16, 112, 112), (64, 16, 3, 3), pads=(1,) * 4)
    posed = Pooled(Problem(spec), MaxPoolAttributes((2, 2), (2, 2), (0,) * 4, (1, 1)))
    for cores in (1, 8, 64):
        target = XEON.with_cores(cores)
        for rows in (1, 7, 14):
            knobs = {**WINOGRAD.with_tile(spec, target, 4, rows, planes=1), "strip": 2 * rows}
            assert model.cycles(posed, WINOGRAD, target, knobs) > 0
