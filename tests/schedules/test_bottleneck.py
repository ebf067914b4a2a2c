"""Chains: expand, depthwise and project as one kernel give the layers' results; when they are taken, and when not."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convc.errors import UnknownNameError
from convc.ir import ConvSpec, Graph, GraphBuilder, Step, TensorType
from convc.ir.reference import interpret
from convc.lock import lock_of, read_lock
from convc.lowering.build import build
from convc.lowering.emit import emit
from convc.runtime import load
from convc.schedules import bottleneck_model as model
from convc.schedules.algorithm import Problem
from convc.schedules.chains import chain_problem
from convc.schedules.plan import Chain, Plan
from convc.schedules.policy import Policy
from convc.schedules.select import is_convolution, problem_of, select
from convc.schedules.tuned import Measurement, Records
from convc.target import Target, parse_target
from tests.schedules.conv_module import conv_node, whole_numbers
from tests.tolerance import assert_exact

XEON = Target(
    "llvm", "x86_64-linux-gnu", "emeraldrapids", (), 16, 32, l2_bytes=1 << 20, l3_bytes=64 << 20
)
CLIP = (Step("bias"), Step("clip", (0.0, 6.0)))


def block(
    b: GraphBuilder,
    x: str,
    hidden: int,
    out: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    pads: tuple[int, ...] | None = None,
    dilation: int = 1,
    expand: bool = True,
    project: bool = True,
    residual: bool = False,
    steps: tuple[Step, ...] = CLIP,
    name: str = "",
) -> tuple[str, ...]:
    """Add the layers of a block; return their names."""
    rng = np.random.default_rng(len(name) + hidden)
    layers: list[str] = []

    def layer(x: str, weight: tuple[int, ...], stem: str, epilogue=steps, extras=(), **geometry) -> str:  # fmt: skip
        spec = ConvSpec.of(b.type(x).shape, weight, **geometry)
        w = b.constant(whole_numbers(rng, weight))
        operands = [b.constant(whole_numbers(rng, (weight[0],)))] if Step("bias") in epilogue else []  # fmt: skip
        made = conv_node(b, x, w, spec, epilogue, [*operands, *extras], name + stem)
        layers.append(made)
        return made

    y = x
    if expand:
        y = layer(y, (hidden, b.type(x).shape[1], 1, 1), "expand")
    pad = dilation * (kernel // 2)
    y = layer(
        y,
        (hidden, 1, kernel, kernel),
        "depthwise",
        strides=(stride, stride),
        pads=pads or (pad,) * 4,
        dilations=(dilation, dilation),
        group=hidden,
    )
    if project:
        end = (Step("bias"), Step("add")) if residual else (Step("bias"),)
        layer(y, (out, hidden, 1, 1), "project", end, [x] if residual else [])
    return tuple(layers)


def forced(graph: Graph, chains: list[tuple[str, ...]], target: Target, **knobs: int) -> Plan:
    """Return the plan in which these layers are chains, whatever the model says."""
    plan = select(graph, target)
    made = []
    for layers in chains:
        posed = chain_problem([problem_of(graph, graph[name]) for name in layers])
        assert model.supports(posed, target) is None
        made.append(Chain(layers, {**model.knobs(posed, target), **knobs}, "test"))
    return replace(plan, chains=tuple(made))


CASES = {
    "plain": ((1, 8, 14, 14), {"hidden": 48, "out": 8, "residual": True}),
    "odd_channels": ((1, 24, 9, 11), {"hidden": 40, "out": 24, "residual": True}),
    "strided": ((2, 16, 12, 30), {"hidden": 32, "out": 20, "stride": 2}),
    "wide_filter": ((1, 16, 10, 17), {"hidden": 64, "out": 16, "kernel": 5}),
    "uneven_pads": ((1, 16, 13, 13), {"hidden": 32, "out": 16, "stride": 2, "pads": (0, 0, 1, 1)}),
    "pads_of_one_side": ((1, 16, 8, 8), {"hidden": 32, "out": 16, "pads": (2, 3, 0, 1)}),
    "dilated": ((1, 16, 12, 12), {"hidden": 32, "out": 48, "dilation": 2}),
    "separable": ((1, 32, 12, 12), {"hidden": 32, "out": 24, "expand": False}),
    "strided_separable": ((1, 20, 12, 13), {"hidden": 20, "out": 24, "expand": False, "stride": 2}),
    "no_projection": ((1, 24, 12, 12), {"hidden": 72, "out": 0, "kernel": 5, "project": False}),
    "no_bias": ((1, 16, 6, 6), {"hidden": 32, "out": 16, "steps": (Step("relu"),)}),
}


def _cases(names: list[str]) -> tuple[Graph, list[tuple[str, ...]]]:
    b, chains, outputs = GraphBuilder("blocks"), [], {}
    for name in names:
        shape, options = CASES[name]
        x = b.input(f"x_{name}", TensorType(shape))
        chains.append(block(b, x, name=f"{name}_", **options))
        outputs[name] = chains[-1][-1]
    return b.finish(outputs), chains


@pytest.mark.parametrize("mcpu", ["host", "x86-64-v3"])
def test_a_chain_gives_its_layers_results(mcpu: str, tmp_path: Path):
    graph, chains = _cases(list(CASES))
    target = parse_target("llvm", mcpu, 2)
    built = build(emit(graph, forced(graph, chains, target), target), target)
    built.export(tmp_path / "blocks.so")
    rng = np.random.default_rng(0)
    inputs = {n.name: whole_numbers(rng, n.type.shape) for n in graph.inputs}
    expected = interpret(graph, inputs)
    for threads in (1, 2):
        actual = load(tmp_path / "blocks.so", threads=threads).run(inputs)
        for name in CASES:
            assert_exact(actual[name], expected[name])
    convolutions = [s for s in built.manifest.steps if s.algorithm]
    assert [s.algorithm for s in convolutions] == ["bottleneck"] * len(CASES)
    assert [s.node for s in convolutions] == [layers[-1] for layers in chains]


@pytest.mark.parametrize(
    "knobs", [{"rows": 1}, {"rows": 2, "strip": 5}, {"rows": 12, "group": 1, "cols": 3}]
)
def test_any_strip_and_tile_give_the_same_numbers(knobs: dict[str, int], tmp_path: Path):
    graph, chains = _cases(["wide_filter" if knobs["rows"] < 3 else "dilated"])
    target = parse_target("llvm", "host", 1)
    build(emit(graph, forced(graph, chains, target, **knobs), target), target).export(tmp_path / "m.so")  # fmt: skip
    rng = np.random.default_rng(1)
    inputs = {n.name: whole_numbers(rng, n.type.shape) for n in graph.inputs}
    actual, expected = load(tmp_path / "m.so", threads=1).run(inputs), interpret(graph, inputs)
    for name, value in expected.items():
        assert_exact(actual[name], value)


def test_functions_between_the_layers_keep_their_accuracy(tmp_path: Path):
    b = GraphBuilder("silu")
    x = b.input("x", TensorType((1, 16, 14, 14)))
    layers = block(b, x, 48, 16, steps=(Step("silu"),))
    graph, target = b.finish({"y": layers[-1]}), parse_target("llvm", "host", 1)
    rng = np.random.default_rng(2)
    inputs = {"x": rng.standard_normal((1, 16, 14, 14)).astype(np.float32)}
    results = {}
    for name, plan in (
        ("one", forced(graph, [layers], target)),
        ("three", replace(select(graph, target), chains=())),
    ):
        build(emit(graph, plan, target), target).export(tmp_path / f"{name}.so")
        results[name] = load(tmp_path / f"{name}.so", threads=1).run(inputs)["y"]
    expected = interpret(graph, inputs)["y"]
    scale = np.abs(expected).max()
    apart = np.abs(results["three"] - expected).max() / scale
    assert np.abs(results["one"] - expected).max() / scale <= 2 * apart


# ---- when -------------------------------------------------------------------------------------------------------


def mobile(**changed: object) -> tuple[Graph, tuple[str, ...]]:
    """MobileNetV2's second block, where e takes 4.8 MB."""
    b = GraphBuilder("g")
    x = b.input("x", TensorType((1, 16, 112, 112)))
    layers = block(b, x, 96, 24, stride=2, **changed)  # type: ignore[arg-type]
    return b.finish({"y": layers[-1]}), layers


def test_measured_times_decide_where_both_are_measured():
    graph, layers = mobile()
    problems = {name: problem_of(graph, graph[name]) for name in layers}
    chain = chain_problem(list(problems.values()))
    alone = {
        p.key: (Measurement(c.algorithm, c.knobs, 1e-4, 1e-7),)
        for name, p in problems.items()
        for c in [select(graph, XEON)[name]]
    }
    (_, second, *_) = model.space(chain, XEON)

    def together(seconds: float, error: float = 1e-7) -> Records:
        return {**alone, chain.key: (Measurement("bottleneck", second, seconds, error),)}

    (taken,) = select(graph, XEON, records=together(2.9e-4)).chains
    assert taken.layers == layers
    assert dict(taken.knobs) == dict(second)
    # What three kernels have beside their work: a border of zeros.
    assert "measured 1.05 x faster than 3" in taken.reason
    whole = [c.layers for c in select(graph, XEON, records=together(3.1e-4)).chains]
    assert layers not in whole
    # Where only the layers are measured, the model says by how much one kernel is faster: here by more than it may be wrong.
    (estimated,) = select(graph, XEON, records=alone).chains
    assert "estimated" in estimated.reason
    # A record of a chain alone gives its knobs; one that is not accurate enough gives nothing.
    only = {chain.key: together(1.0)[chain.key]}
    assert dict(select(graph, XEON, records=only).chains[0].knobs) == dict(second)
    inexact = {chain.key: together(1.0, error=1e-3)[chain.key]}
    assert dict(select(graph, XEON, records=inexact).chains[0].knobs) == dict(model.knobs(chain, XEON))  # fmt: skip


def test_data_that_pass_from_core_to_core_speak_for_one_kernel():
    """Measured alone, a layer has its data in all cores' caches; in the network part of it is where another core wrote it."""
    b = GraphBuilder("g")
    x = b.input("x", TensorType((1, 64, 14, 14)))
    layers = block(b, x, 384, 64)
    graph, target = b.finish({"y": layers[-1]}), replace(XEON, cores=2)
    problems = {name: problem_of(graph, graph[name]) for name in layers}
    chain = chain_problem(list(problems.values()))

    def records(chunks: int) -> Records:
        """Return records of 30 us a layer that shares its work out in that way, and of 114 us for the chain."""
        found = {}
        for name, problem in problems.items():
            chosen = select(graph, target)[name]
            knobs = {**chosen.knobs, "chunks": chunks}
            found[problem.key] = (Measurement(chosen.algorithm, knobs, 30e-6, 1e-7),)
        found[chain.key] = (Measurement("bottleneck", model.knobs(chain, target), 114e-6, 1e-7),)
        return found

    # 90 us alone, two launches, a border: 105 us; the two values of 301 KB between the layers take 23 us more.
    (taken,) = select(graph, target, records=records(1)).chains
    assert (
        "measured 1.12 x faster than 3 with 23 us for what passes from core to core" in taken.reason
    )
    assert select(graph, target, records=records(2)).chains == ()


def test_layers_whose_middle_does_not_fit_the_caches_become_one_kernel_and_say_so():
    graph, layers = mobile()
    plan = select(graph, XEON)
    assert [chain.layers for chain in plan.chains] == [layers]
    assert plan.chains[0].reason.startswith("one kernel with 'expand' and 'depthwise', estimated ")
    for name in layers:
        assert plan[name].reason.startswith(plan.chains[0].reason)
        assert f"alone: {plan[name].algorithm}" in plan[name].reason
    assert (
        model.workspace(
            chain_problem([problem_of(graph, graph[n]) for n in layers]), plan.chains[0].knobs
        )
        < 4 * 96 * 112 * 112
    )


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"algo": "direct"}, "every layer is pinned"),
        ({"algo_for": {"expand": "im2col", "project": "im2col"}}, "both neighbours are pinned"),
        ({"policy": Policy(exclude=("bottleneck",))}, "excluded"),
        ({"policy": Policy(include=("direct", "depthwise"))}, "not included"),
        ({"policy": Policy(require=("direct",))}, "something else is required"),
        ({"policy": Policy(workspace_limit=50_000)}, "its memory is too much"),
        ({"policy": Policy(prefer=("direct", "depthwise"))}, "others are preferred"),
    ],
)
def test_what_the_user_asks_for_goes_before_chains(options: dict, why: str):
    assert select(mobile()[0], XEON, **options).chains == (), why


def test_a_pinned_end_leaves_the_others_a_chain():
    graph, layers = mobile()
    plan = select(graph, XEON, algo_for={"project": "direct"})
    assert [chain.layers for chain in plan.chains] == [layers[:2]]
    assert plan["project"].reason == "pinned by --algo-for project"


def test_a_layer_is_part_of_one_chain():
    b = GraphBuilder("separable")
    y = b.input("x", TensorType((1, 32, 112, 112)))
    names: list[str] = []
    for i in range(3):
        layers = block(b, y, 32, 32, expand=False, name=f"{i}_")
        names += layers
        y = layers[-1]
    graph = b.finish({"y": y})
    chains = select(graph, XEON).chains
    inside = [name for chain in chains for name in chain.layers]
    assert len(inside) == len(set(inside)) > 3
    assert inside == [name for name in names if name in inside]
    program = emit(graph, select(graph, XEON), XEON)
    assert len([c for c in program.calls if c.algorithm]) == len(names) - len(inside) + len(chains)


def test_a_value_that_others_read_is_not_swallowed():
    for stem in ("expand", "depthwise"):
        b = GraphBuilder("g")
        x = b.input("x", TensorType((1, 16, 112, 112)))
        layers = block(b, x, 96, 24, stride=2)
        read = next(name for name in layers if name == stem)
        graph = b.finish({"y": layers[-1], "seen": read})
        for chain in select(graph, XEON).chains:
            assert stem not in chain.layers[:-1]


def test_devices_have_no_chains():
    graph, _ = mobile()
    assert select(graph, XEON).chains
    assert select(graph, parse_target("cuda -arch=sm_90")).chains == ()


def test_the_policy_knows_the_name_where_there_are_chains():
    with pytest.raises(UnknownNameError, match="botleneck"):
        select(mobile()[0], XEON, policy=Policy(exclude=("botleneck",)))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"residual": True}, "only the last layer may add"),
        ({"large": True}, "weights must take at most"),
        ({"wide": True}, "a row must have at most"),
        ({"strided": True}, "must be 1x1 with stride 1"),
    ],
)
def test_layers_that_cannot_be_one_kernel_say_why(changed: dict, reason: str):
    c, hidden, size, stride = 16, 96, 28, 1
    if "large" in changed:
        c, hidden = 512, 2048
    if "wide" in changed:
        size = 512
    if "strided" in changed:
        stride = 2
    before = ConvSpec.of((1, c, size, size), (hidden, c, 1, 1), strides=(stride, stride))
    middle = ConvSpec.of(before.output, (hidden, 1, 3, 3), pads=(1,) * 4, group=hidden)
    steps = (Step("add"),) if "residual" in changed else ()
    posed = chain_problem([Problem(before, steps), Problem(middle)])
    refusal = model.supports(posed, XEON)
    assert refusal is not None
    assert reason in refusal.reason


def test_a_lock_file_pins_chains(tmp_path: Path):
    graph, layers = mobile()
    target = parse_target("llvm", "x86-64-v4", 1)
    plan = forced(graph, [layers], target)
    lock_of(graph, plan, target, "hash", {}).write(tmp_path / "lock.json")
    again = read_lock(tmp_path / "lock.json").plan(graph, target, "hash")
    assert [(c.layers, dict(c.knobs), c.reason) for c in again.chains] == [
        (c.layers, dict(c.knobs), c.reason) for c in plan.chains
    ]


def test_every_option_fits_and_shares_out_evenly():
    for target, c, size in itertools.product((XEON, XEON.with_cores(2)), (16, 24), (28, 56)):
        b = GraphBuilder("g")
        x = b.input("x", TensorType((1, c, size, size)))
        layers = block(b, x, 6 * c, c)
        graph = b.finish({"y": layers[-1]})
        posed = chain_problem([problem_of(graph, graph[n]) for n in layers if is_convolution(graph[n])])  # fmt: skip
        knobs = model.knobs(posed, target)
        assert size % knobs["rows"] == 0
        assert (
            target.cores == 1
            or size // knobs["rows"] % target.cores == 0
            or size // knobs["rows"] >= 4
        )
        assert model.workspace(posed, knobs) <= target.l2_bytes


def test_layers_apart_count_what_bfloat16_saves_them():
    """vdpbf16ps adds two products a lane, which chains, computed in float32, do not."""
    zen4 = parse_target("llvm", "znver4", 1)
    for target, fewer in ((zen4, True), (parse_target("llvm", "cascadelake", 1), False)):
        problems = [
            Problem(ConvSpec.of((1, 64, 14, 14), (384, 64, 1, 1), dtype=dtype))
            for dtype in ("float32", "bfloat16")
        ]
        depthwise = [
            Problem(
                ConvSpec.of((1, 384, 14, 14), (384, 1, 3, 3), pads=(1,) * 4, group=384, dtype=d)
            )
            for d in ("float32", "bfloat16")
        ]
        whole, half = (chain_problem(pair) for pair in zip(problems, depthwise, strict=True))
        knobs = model.knobs(whole, target)
        single, pairs = (model.cycles_apart(chain, target, knobs) for chain in (whole, half))
        assert (pairs < 0.7 * single) == fewer
        assert model.cycles(half, target, knobs) <= model.cycles(whole, target, knobs)


def test_the_expansion_has_the_tile_that_suits_the_machine():
    zen4 = parse_target("llvm", "znver4", 1)
    for target, group in ((zen4, 1), (XEON, 2)):
        layers = [
            Problem(ConvSpec.of((1, 64, 28, 28), (384, 64, 1, 1))),
            Problem(ConvSpec.of((1, 384, 28, 28), (384, 1, 3, 3), pads=(1,) * 4, group=384)),
        ]
        assert model.knobs(chain_problem(layers), target)["group"] == group
