"""Convolution on panels of patches: every kind of geometry, both ways to read the patches, and nothing outside the operands."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te

from convc.ir import ConvSpec, GraphBuilder, Step, TensorType
from convc.schedules.algorithm import Problem
from convc.schedules.im2col import ALGORITHM, Blocks
from convc.schedules.layout import PLAIN
from convc.schedules.llvm import im2col as schedules
from convc.schedules.llvm.compiler import build
from convc.schedules.plan import Unsupported
from convc.schedules.policy import Policy
from convc.schedules.select import select
from convc.target import Target, parse_target
from tests.schedules.conv_module import Case, ConvModule, conv_node, whole_numbers
from tests.strategies import conv_specs
from tests.tolerance import assert_bounded, assert_exact, error_bound

HOST = parse_target(cores=1)
AVX512 = Target("llvm", "x86_64-linux-gnu", "x86-64-v4", (), 16, 32)
AVX2 = Target("llvm", "x86_64-linux-gnu", "x86-64-v3", (), 8, 16)
SSE = Target("llvm", "x86_64-linux-gnu", "x86-64-v2", (), 4, 16)


def conv(c, k, extents, kernel, *, n=1, s=1, p=0, d=1, g=1) -> ConvSpec:
    rank = len(extents)

    def each(value, count=rank):
        return (value,) * count if isinstance(value, int) else value

    return ConvSpec.of(
        (n, c, *extents),
        (k, c // g, *each(kernel)),
        strides=each(s),
        pads=each(p, 2 * rank),
        dilations=each(d),
        group=g,
    )


# Each once on panels and once on planes; pixels are no whole vectors, channels no whole tiles.
SPECS = {
    "batch, odd channels": conv(5, 7, (9, 11), 3, n=2, p=1),
    "7 x 7 in one block": conv(6, 40, (7, 7), 3, p=1),
    "rows longer than a vector": conv(3, 5, (5, 67), 3, p=1),
    "one pixel": conv(17, 19, (3, 3), 3),
    "pointwise, planes are the data": conv(9, 13, (4, 8), 1),
    "pointwise, stride": conv(6, 10, (9, 11), 1, s=2),
    "stride 2, pads that differ": conv(5, 8, (12, 13), 3, s=2, p=(0, 1, 2, 3)),
    "stride 3, dilation 2": conv(4, 6, (17, 19), 3, s=3, d=2, p=2),
    "stride beyond the filter": conv(4, 6, (11, 11), 2, s=3),
    "strides and dilations that differ": conv(4, 6, (15, 14), 3, s=(1, 2), d=(3, 1), p=2),
    "dilation as wide as the map": conv(4, 6, (9, 9), 3, d=8, p=8),
    "groups of 1 channel to 2": conv(6, 12, (8, 9), 3, p=1, g=6),
    "groups of 1 channel to 3, stride": conv(5, 15, (9, 8), 3, s=2, p=1, g=5),
    "groups of 2 channels": conv(8, 8, (7, 9), 3, p=1, g=4),
    "groups of 3 channels": conv(9, 9, (7, 9), 3, n=2, p=1, g=3),
    "groups of 5 channels": conv(10, 20, (7, 9), 3, p=1, g=2),
    "1-D": conv(5, 7, (83,), 5, n=2, p=(4, 1)),
    "1-D, stride, dilation": conv(4, 6, (90,), 9, s=4, d=3, p=3),
    "3-D": conv(3, 5, (4, 5, 6), (3, 2, 3), n=2, p=(1, 0, 1, 0, 1, 2)),
    "3-D, stride, dilation, groups": conv(4, 6, (6, 7, 9), 2, s=(1, 2, 2), d=(2, 1, 2), g=2),
}


def chosen(spec: ConvSpec, target: Target = HOST, **fixed: int) -> tuple[tuple[str, int], ...]:
    return tuple({**ALGORITHM.knobs(Problem(spec), target), **fixed}.items())


@pytest.fixture(scope="module")
def module() -> ConvModule:
    pairs = itertools.product(SPECS.values(), (0, 1))
    return ConvModule([Case("im2col", s, (), chosen(s, panel=panel)) for s, panel in pairs], HOST)


def test_whole_numbers_are_exact(module):
    results = module.run(exact=True)
    assert len(results) == 2 * len(SPECS)
    for result in results:
        assert_exact(result.actual, result.expected)


def test_normal_data_stay_within_the_bound(module):
    for result in module.run(exact=False):
        bound = error_bound("im2col", result.data, result.weight, result.case.spec, {})
        assert_bounded(result.actual, result.expected, bound)


@pytest.mark.parametrize("panel", [0, 1])
def test_epilogues_on_plain_results(panel):
    steps = (Step("bias"), Step("add"), Step("leaky_relu", (0.25,)), Step("add"))
    specs = [SPECS["groups of 5 channels"], SPECS["1-D"], SPECS["3-D"]]
    cases = [Case("im2col", spec, steps, chosen(spec, panel=panel)) for spec in specs]
    for result in ConvModule(cases, HOST).run(exact=True):
        assert_exact(result.actual, result.expected)


@st.composite
def settings_of(draw, spec: ConvSpec) -> tuple[tuple[str, int], ...]:
    """Return any legal knobs; what does not fit the registers is slow, not wrong."""
    *lead, width = spec.output[2:]
    return (
        ("rows", draw(st.integers(1, lead[-1] if lead else 1))),
        ("cols", draw(st.integers(1, width))),
        ("panel", draw(st.integers(0, 1))),
        ("channels", draw(st.integers(1, 5))),
        ("vectors", draw(st.integers(1, 3))),
        ("lanes", draw(st.sampled_from([4, 8, 16]))),
    )


@st.composite
def any_case(draw) -> Case:
    spec = draw(conv_specs(transposed=False))
    return Case(
        "im2col",
        spec,
        draw(st.sampled_from([(), (Step("bias"), Step("add"))])),
        draw(settings_of(spec)),
    )


@settings(deadline=None, max_examples=4, derandomize=True)
@given(st.lists(any_case(), min_size=4, max_size=4))
def test_any_knobs_give_the_same_numbers(cases):
    for result in ConvModule(cases, HOST).run(exact=True):
        assert_exact(result.actual, result.expected)


@pytest.mark.parametrize("panel", [0, 1])
def test_few_blocks_share_out_channels_instead(panel):
    target = HOST.with_cores(8)
    spec = SPECS["7 x 7 in one block"]
    knobs = chosen(spec, rows=7, cols=7, panel=panel, channels=4)
    func = te.create_prim_func(ALGORITHM.compute(Problem(spec), target, dict(knobs)))
    loops = str(schedules.schedule(func, dict(knobs), target)).count("T.parallel(")
    assert loops == 2 + panel  # planes, channels of the tiles, channels of the panel
    (result,) = ConvModule([Case("im2col", spec, (), knobs)], target).run(exact=True)
    assert_exact(result.actual, result.expected)


@pytest.mark.parametrize("cpu", ["x86-64-v2", "x86-64-v3"])
def test_other_vector_widths(cpu):
    target = parse_target("llvm", cpu)
    specs = [SPECS["batch, odd channels"], SPECS["groups of 3 channels"], SPECS["1-D"]]
    cases = [Case("im2col", s, (), chosen(s, target)) for s in specs]
    for result in ConvModule(cases, target).run(exact=True):
        assert_exact(result.actual, result.expected)


# ---- memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("panel", [0, 1])
@pytest.mark.parametrize("name", ["batch, odd channels", "pointwise, planes are the data", "3-D"])
def test_nothing_outside_the_operands_is_used_or_written(name, panel):
    spec = SPECS[name]
    knobs = dict(chosen(spec, panel=panel))
    func = te.create_prim_func(ALGORITHM.compute(Problem(spec), HOST, knobs))
    kernel = build(tvm.IRModule({"main": schedules.schedule(func, knobs, HOST)}), HOST)
    rng = np.random.default_rng(0)
    x, w = whole_numbers(rng, spec.data), whole_numbers(rng, spec.weight)
    guard = 1024  # elements; whole cache lines, so that operands stay aligned

    def guarded(array: np.ndarray) -> tvm.runtime.Tensor:
        padded = np.full(array.size + 2 * guard, np.nan, np.float32)
        padded[guard : guard + array.size] = array.reshape(-1)
        return tvm.runtime.tensor(padded)

    def inner(tensor: tvm.runtime.Tensor, shape: tuple[int, ...]) -> tvm.runtime.Tensor:
        window = np.from_dlpack(tensor)[guard : guard + math.prod(shape)].reshape(shape)
        return tvm.runtime.from_dlpack(window)

    data, result = guarded(x), guarded(np.zeros(spec.output, np.float32))
    packed = tvm.runtime.tensor(ALGORITHM.pack(w, Problem(spec), knobs))
    kernel["main"](inner(data, spec.data), packed, inner(result, spec.output))
    everything = result.numpy()
    assert np.isnan(everything[:guard]).all()
    assert np.isnan(everything[-guard:]).all()
    assert np.isfinite(everything[guard:-guard]).all()


@settings(deadline=None, max_examples=200, derandomize=True)
@given(conv_specs(transposed=False).flatmap(lambda s: st.tuples(st.just(s), settings_of(s))))
def test_planes_hold_all_that_is_read(case):
    spec, knobs = case
    blocks = Blocks.of(spec, dict(knobs))
    last = [
        (count - 1) * size + (k - 1) * d // s
        for count, size, k, d, s in zip(
            blocks.counts, blocks.size, spec.kernel, spec.dilations, spec.strides, strict=True
        )
    ]
    if dict(knobs)["panel"]:
        last[-1] += blocks.cols - 1
        if spec.rank > 1:
            last[-2] += blocks.rows - 1
        assert all(at < extent for at, extent in zip(last, blocks.extents, strict=True))
    else:
        position = int(np.ravel_multi_index(last, blocks.extents))
        assert position + blocks.points <= math.prod(blocks.extents)
    assert blocks.points >= (blocks.rows - 1) * blocks.pitch + blocks.cols


# ---- the choice ------------------------------------------------------------------------------------------------


def test_weights_are_packed_by_tiles_of_a_group():
    spec = conv(4, 6, (5, 5), (1, 2), g=2)
    weight = np.arange(24, dtype=np.float32).reshape(6, 2, 1, 2)
    packed = ALGORITHM.pack(weight, Problem(spec), {"channels": 2})
    assert packed.shape == (2, 2, 4, 2)
    assert_exact(packed[1, 0], weight[3:5].reshape(2, 4).T)
    assert_exact(packed[1, 1], np.stack([weight[5].reshape(4), np.zeros(4)]).T)


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (
            Problem(ConvSpec.of((1, 4, 5, 5), (4, 4, 2, 2), transposed=True)),
            "convolution must not be transposed",
        ),
        (
            Problem(ConvSpec.of((1, 4, 5, 5), (4, 4, 2, 2), dtype="float64")),
            "element type must be float32, or a half stored; got float64",
        ),
    ],
)
def test_refusals(problem, reason):
    assert ALGORITHM.supports(problem, AVX512) == Unsupported(reason)


def test_operands_are_plain():
    problem = Problem(SPECS["3-D"])
    operands = ALGORITHM.operands(problem, AVX512, ALGORITHM.knobs(problem, AVX512))
    assert (operands.data, operands.result) == (PLAIN, PLAIN)


@pytest.mark.parametrize("target", [AVX512, AVX2, SSE], ids=["avx512", "avx2", "sse"])
def test_chosen_tiles_fit_the_registers(target):
    for spec in SPECS.values():
        knobs = ALGORITHM.knobs(Problem(spec), target)
        channels, vectors = knobs["channels"], knobs["vectors"]
        assert channels * vectors + vectors + 1 <= target.registers
        assert channels <= spec.out_channels // spec.group


def test_panels_are_for_what_planes_would_waste():
    ends_of_rows = Problem(conv(128, 64, (33, 33), 3, p=12, d=12))
    few_channels = Problem(conv(128, 128, (56, 56), 3, p=1, g=32))
    assert ALGORITHM.knobs(ends_of_rows, AVX512)["panel"] == 1
    assert ALGORITHM.knobs(few_channels, AVX512)["panel"] == 0


def test_panels_stay_in_l2():
    spec = conv(512, 512, (14, 14), 3, p=2, d=2, g=2)
    knobs = ALGORITHM.knobs(Problem(spec), AVX512)
    panel = 4 * math.prod(spec.weight[1:]) * Blocks.of(spec, knobs).points
    assert not knobs["panel"] or panel < AVX512.l2_bytes


def test_an_uneven_share_of_blocks_costs_the_other_threads_time():
    problem = Problem(conv(8, 8, (5, 16), 1))
    knobs = {"rows": 1, "cols": 16, "panel": 0, "channels": 8, "vectors": 1, "lanes": 16}
    one = ALGORITHM.cycles(problem, AVX512, knobs)
    assert ALGORITHM.cycles(problem, AVX512.with_cores(2), knobs) > one


@pytest.mark.parametrize(
    "spec",
    [
        conv(272, 272, (28, 28), 1, g=4),
        conv(128, 128, (56, 56), 3, p=1, g=32),
        conv(64, 128, (28, 28), 3, p=1, g=64),
        conv(64, 64, (1000,), 9, p=4),
        conv(64, 64, (8, 28, 28), 3, s=2, p=1),
        conv(15, 10, (48, 48), 5, s=3, d=2, p=2, g=5),
    ],
    ids=lambda spec: spec.key,
)
def test_it_comes_before_generic_where_both_apply(spec):
    b = GraphBuilder("g")
    x = b.input("x", TensorType(spec.data))
    w = b.constant(np.ones(spec.weight, np.float32))
    graph = b.finish({"y": conv_node(b, x, w, spec, name="layer")})
    policy = Policy(include=("im2col", "generic"))
    choice = select(graph, AVX512, policy=policy)["layer"]
    assert choice.algorithm == "im2col"
