"""Taps as channels: the folded convolution equals the convolution, on arrays and on the emulated device; which layers are computed so."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convc.explaining import explain
from convc.ir import ConvSpec, Graph, Step
from convc.ir.ops.conv import convolve
from convc.ir.ops.pool import MaxPoolAttributes
from convc.ir.reference import interpret
from convc.schedules.algorithm import Problem
from convc.schedules.cuda.backend import BACKEND
from convc.schedules.cuda.folded_taps import Folding, foldings
from convc.schedules.cuda.tensor_core_folded import folding_of
from convc.target import parse_target
from tests.cuda_emulation.emulation import compile_and_run
from tests.lowering.net import RELU, Net
from tests.schedules.cuda.cuda_convolutions import TARGET, Trial, check

ALGORITHM = BACKEND.algorithm("tensor_core_folded")
EPILOGUE = (Step("bias"), Step("add"), Step("relu"))


def folded_data(folding: Folding, x: np.ndarray) -> np.ndarray:
    """Return what `Folding.data` is to compute, without the zeros that fill blocks."""
    spec, shape = folding.spec, folding.folded.data
    rank = spec.rank
    # Zeros enough around it, so that each tap of each point is a slice.
    ends = [n * g + u * d for n, g, u, d in zip(shape[2:], folding.grid, folding.taps, spec.dilations, strict=True)]  # fmt: skip
    around = np.pad(x, [(0, 0), (0, 0), *zip(spec.pads[:rank], ends, strict=True)])
    parts = []
    for taps in itertools.product(*map(range, folding.taps)):
        firsts = [f * d for f, d in zip(taps, spec.dilations, strict=True)]
        cut = [slice(first, first + n * g, g) for first, n, g in zip(firsts, shape[2:], folding.grid, strict=True)]  # fmt: skip
        parts.append(around[(slice(None), slice(None), *cut)])
    return np.stack(parts, 2).reshape(shape)


@st.composite
def convolutions(draw, most_taps: int = 7) -> ConvSpec:
    rank = draw(st.integers(2, 3))
    axis = st.tuples(st.integers(1, most_taps), st.integers(1, 4), st.integers(1, 2), st.integers(0, 3), st.integers(0, 3), st.integers(0, 9))  # fmt: skip
    axes = [draw(axis) for _ in range(rank)]
    kernel, strides, dilations, begins, ends, _ = zip(*axes, strict=True)
    data = [max(1, (r - 1) * d + 1 + m - b - e) for r, _, d, b, e, m in axes]
    n, c, k = draw(st.integers(1, 2)), draw(st.integers(1, 7)), draw(st.integers(1, 3))
    return ConvSpec.of((n, c, *data), (k, c, *kernel), strides=strides, dilations=dilations, pads=(*begins, *ends), dtype="float16")  # fmt: skip


@given(spec=convolutions(), data=st.data())
def test_the_folded_convolution_is_the_convolution(spec, data):
    """Whatever taps are folded, not only those worth it."""
    taps = tuple(data.draw(st.integers(1, r)) for r in spec.kernel)
    folding = Folding(spec, taps)
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-4, 5, shape).astype(np.float64) for shape in (spec.data, spec.weight))
    assert folding.folded.output == spec.output
    found = convolve(folded_data(folding, x), folding.weight(w), folding.folded)
    np.testing.assert_array_equal(found, convolve(x, w, spec))


@given(spec=convolutions())
def test_foldings_are_fewer_blocks_for_more_data(spec):
    found = foldings(spec)
    assert all(f.blocks < Folding(spec, (1,) * spec.rank).blocks for f in found)
    for before, behind in itertools.pairwise(found):
        assert before.elements <= behind.elements
        assert before.blocks > behind.blocks


# First layers: ResNet's, MobileNet's, patches, a line, a volume with dilations, one channel; pads that differ, points beyond the last tap.
LAYERS = (
    ConvSpec.of((2, 3, 15, 13), (24, 3, 7, 7), strides=(2, 2), pads=(3, 3, 3, 3), dtype="float16"),
    ConvSpec.of((1, 3, 12, 11), (20, 3, 3, 3), strides=(2, 2), pads=(0, 1, 1, 0), dtype="bfloat16"),
    ConvSpec.of((2, 3, 9, 8), (16, 3, 4, 4), strides=(4, 4), dtype="float16"),
    ConvSpec.of((1, 2, 29), (16, 2, 9), strides=(5,), pads=(4, 3), dtype="float16"),
    ConvSpec.of((1, 1, 4, 7, 6), (8, 1, 2, 3, 3), strides=(1, 2, 1), dilations=(1, 1, 2), pads=(1, 0, 2, 0, 1, 2), dtype="bfloat16"),
    ConvSpec.of((2, 1, 10, 9), (16, 1, 5, 5), pads=(2, 2, 2, 2), dtype="float16"),
)  # fmt: skip


def by_folding(spec: ConvSpec) -> list[Mapping[str, int]]:
    """Return a setting of each folding, of sums in parts and of warpgroups where it has such."""
    kinds: dict[tuple, Mapping[str, int]] = {}
    for knobs in ALGORITHM.space(Problem(spec), TARGET):
        if knobs["pixels"] <= 64:
            fold = folding_of(spec, knobs).taps
            kinds.setdefault((fold, min(knobs["split"], 2), knobs["group"]), knobs)
    return list(kinds.values())


@pytest.mark.parametrize("spec", LAYERS, ids=lambda spec: spec.key)
def test_every_folding_on_the_device(spec):
    trials = [Trial("tensor_core_folded", spec, EPILOGUE, knobs) for knobs in by_folding(spec)]
    assert {folding_of(spec, t.setting).taps for t in trials} == {f.taps for f in foldings(spec)}
    check(trials, exact=True)


def test_a_network_whose_first_layer_is_folded():
    """One step reads the plain image; behind it lie blocks of channels."""
    net = Net("float16")
    a = net.conv(net.image(2, 3, 14, 14), 32, 7, 3, name="stem", steps=(RELU,))
    graph = net.finish({"y": net.conv(a, 24, 1, name="second")})
    data = net.array(2, 3, 14, 14)
    pins = {"stem": "tensor_core_folded", "second": "tensor_core_blocked"}
    outputs, choices = compile_and_run(graph, {"x": data}, target="cuda -arch=sm_90", algo_for=pins)
    assert {name: algorithm for name, (algorithm, _) in choices.items()} == pins
    expected = interpret(graph, {"x": data})["y"].astype(np.float64)
    assert np.abs(outputs["y"] - expected).max() <= 2.0**-10 * np.abs(expected).max()


def before_blocks(n: int, k: int, taps: int, stride: int, pad: int) -> Graph:
    """Return a first layer, one that reads blocks, and a pool, behind which there is little to copy."""
    net = Net("float16")
    x = net.image(n, 3, 224, 224)
    stem = net.conv(x, k, taps, pad, name="stem", strides=(stride, stride))
    second = net.conv(stem, 64, 1, name="second")
    extents = net.type(second).shape[2:]
    return net.finish({"y": net.add("max_pool", [second], MaxPoolAttributes(extents, extents))})


def taken(graph: Graph) -> dict[str, str]:
    """Return layer -> algorithm, untuned."""
    reports = explain(graph, target="cuda -arch=sm_90", logs=())
    return {r.node: c.algorithm for r in reports for c in r.candidates if c.chosen}


@pytest.mark.parametrize(
    ("n", "k", "taps", "stride", "pad"),
    [(1, 64, 7, 2, 3), (32, 64, 7, 2, 3), (32, 32, 3, 2, 1), (32, 768, 16, 16, 0)],
)
def test_first_layers_are_folded_untuned(n, k, taps, stride, pad):
    """Of ResNet-50, MobileNetV2 and a vision transformer, before a layer that reads blocks."""
    assert taken(before_blocks(n, k, taps, stride, pad))["stem"] == "tensor_core_folded"


def test_two_taps_of_stride_1_are_folded_and_nine_are_not():
    """Six channels fill a block as three do, so two taps cost no byte more than the copy into blocks; nine are 27, four blocks a point."""
    assert taken(before_blocks(32, 64, 3, 1, 1))["stem"] == "tensor_core_folded"
    spec = ConvSpec.of((32, 3, 224, 224), (64, 3, 3, 3), pads=(1, 1, 1, 1), dtype="float16")
    two = folding_of(spec, ALGORITHM.knobs(Problem(spec), TARGET))
    assert two.taps == (1, 2)
    # In blocks of 8 channels; pads are part of it.
    assert two.elements == 32 * 8 * 226 * 226


@pytest.mark.parametrize("sm", [80, 120])
def test_parts_of_sums_that_no_device_ran_by_warps_are_not_taken_untuned(sm):
    """Of 12 parts, which the model finds fastest here, ptxas spills on sm_80."""
    spec = ConvSpec.of((1, 7, 28, 28), (16, 7, 11, 11), strides=(4, 4), pads=(5, 5, 5, 5), dtype="float16")  # fmt: skip
    problem, target = Problem(spec), parse_target(f"cuda -arch=sm_{sm}")
    fastest = min(ALGORITHM.space(problem, target), key=lambda k: ALGORITHM.cycles(problem, target, k))  # fmt: skip
    assert fastest["split"] == 12
    assert ALGORITHM.knobs(problem, target)["split"] in (1, 2, 4, 8, 16)


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (ConvSpec.of((1, 8, 9, 9), (8, 8, 3, 3), dtype="float16"), "input channels must be fewer than a block's 8; got 8"),
        (ConvSpec.of((1, 3, 9, 9), (8, 3, 1, 1), dtype="float16"), "taps folded into channels must leave fewer blocks to a sum; got a filter of (1, 1)"),
        (ConvSpec.of((1, 3, 9, 9), (8, 3, 3, 3)), "element type must be float16, bfloat16; got float32"),
        (ConvSpec.of((1, 3, 9, 9), (3, 16, 2, 2), strides=(2, 2), transposed=True, dtype="float16"), "convolution must be of one group and not transposed; got group 1, transposed"),
    ],
)  # fmt: skip
def test_what_is_not_folded_has_a_reason(problem, reason):
    answer = ALGORITHM.supports(Problem(problem), TARGET)
    assert answer is not None
    assert answer.reason == reason


@pytest.mark.parametrize("name", ["tensor_core_blocked", "tensor_core_folded"])
def test_blocks_that_int32_cannot_index_are_refused(name):
    """Three channels are fewer than 2^31 elements, in blocks of eight they are 2^32."""
    spec = ConvSpec.of((32, 3, 4096, 4096), (64, 3, 7, 7), strides=(8, 8), pads=(3, 3, 3, 3), dtype="float16")  # fmt: skip
    answer = BACKEND.algorithm(name).supports(Problem(spec), TARGET)
    assert answer is not None
    assert answer.reason == "a tensor must have fewer than 2147483648 elements; got 4294967296"


def test_foldings_whose_blocks_int32_cannot_index_are_left_out():
    """All taps are 27 channels, fewer than 2^31 elements, and 32 in blocks, more."""
    spec = ConvSpec.of((4, 3, 4104, 4104), (16, 3, 3, 3), dtype="float16")
    assert [f.elements < 2**31 for f in foldings(spec)] == [True, False]
    assert all(math.prod(f.folded.data) < 2**31 for f in foldings(spec))
    found = {folding_of(spec, k).taps for k in ALGORITHM.space(Problem(spec), TARGET)}
    assert found == {foldings(spec)[0].taps}
