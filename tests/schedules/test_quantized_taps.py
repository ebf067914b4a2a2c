"""Depthwise layers of bytes, four taps an instruction: exact for every filter, stride, width and number of channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convc.compiler import compile
from convc.ir import GraphBuilder, TensorType
from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.ir.reference import interpret
from convc.ir.spec import ConvSpec
from convc.schedules import quantized_taps
from convc.target import parse_target

# (channels, data, filter, geometry)
CASES: tuple[tuple[int, tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    (16, (9, 9), (3, 3), {"pads": (1, 1, 1, 1)}),
    (40, (8, 30), (3, 3), {"pads": (1, 1, 1, 1)}),
    (20, (12, 3), (3, 3), {"pads": (1, 1, 1, 1)}),
    (24, (7, 7), (3, 3), {}),
    (16, (15, 17), (3, 3), {"pads": (1, 1, 1, 1), "strides": (2, 2)}),
    (16, (14, 14), (3, 3), {"pads": (0, 0, 1, 1), "strides": (2, 2)}),
    (16, (10, 13), (5, 5), {"pads": (2, 2, 2, 2)}),
    (24, (11, 12), (5, 5), {"pads": (2, 2, 2, 2), "strides": (2, 2)}),
    (16, (12, 21), (7, 7), {"pads": (3, 3, 3, 3)}),
    (16, (14, 13), (9, 9), {"pads": (4, 4, 4, 4), "strides": (3, 3)}),
    (16, (9, 11), (4, 4), {"pads": (1, 2, 2, 1)}),
    (16, (9, 11), (2, 2), {"strides": (1, 3)}),
    (16, (6, 23), (1, 5), {"pads": (0, 2, 0, 2)}),
    (16, (12, 6), (5, 1), {"pads": (2, 0, 2, 0), "dilations": (1, 3)}),
    (16, (12, 9), (3, 3), {"pads": (2, 1, 2, 1), "dilations": (2, 1)}),
    (32, (5, 9), (1, 1), {}),
    (20, (33,), (3,), {"pads": (1, 1)}),
    (16, (29,), (9,), {"pads": (4, 4), "strides": (2,)}),
    (8, (4, 5, 9), (3, 3, 3), {"pads": (1,) * 6}),
    (16, (3, 3), (7, 7), {"pads": (3, 3, 3, 3)}),
)


@pytest.mark.parametrize("mcpu", ["host", "cascadelake"])
def test_sums_are_exact(mcpu: str) -> None:
    """cascadelake permutes bytes in two instructions."""
    rng = np.random.default_rng(0)
    b, outputs, feeds = GraphBuilder("bytes"), {}, {}
    for i, (channels, data, filter, geometry) in enumerate(CASES):
        shape = (1 + i % 2, channels, *data)
        x = b.input(f"x{i}", TensorType(shape, "uint8"))
        feeds[x] = rng.integers(0, 256, shape).astype(np.uint8)
        products = float(np.prod(filter))
        operands = [
            x,
            b.constant(rng.integers(-128, 128, (channels, 1, *filter)).astype(np.int8), f"w{i}"),
            b.constant(rng.integers(-9000, 9000, channels).astype(np.int32), f"b{i}"),
            b.constant((rng.uniform(1, 3, channels) * 3e-3 / products**0.5).astype(np.float32), f"f{i}"),
        ]  # fmt: skip
        form = QuantizedConvAttributes(**geometry, group=channels, pad=11 * i, zero=100)
        outputs[f"y{i}"] = b.add("conv_quantized", operands, form, f"y{i}")
    graph = b.finish(outputs)
    compiled = compile(graph, threads=2, mcpu=mcpu)
    assert {s.node for s in compiled.manifest.steps if s.reason == "four taps an instruction"} == set(outputs)  # fmt: skip
    got, exact = compiled.run(feeds), interpret(graph, feeds)
    for name, wanted in exact.items():
        np.testing.assert_array_equal(got[name], wanted, err_msg=f"{name}: {CASES[int(name[1:])]}")
        assert len(np.unique(wanted)) > 30, name


def test_what_it_is_for() -> None:
    def spec(**geometry: Any) -> ConvSpec:
        return ConvSpec.of((1, 32, 28, 28), (32, 1, 3, 3), group=32, dtype="int32", **geometry)

    zen4, skylake = parse_target("llvm", "znver4"), parse_target("llvm", "skylake-avx512")
    assert quantized_taps.applies(spec(), zen4)
    assert not quantized_taps.applies(spec(), skylake)
    assert not quantized_taps.applies(spec(dilations=(2, 2)), zen4)


@pytest.mark.parametrize("mcpu", ["host", "skylake-avx512"])
@pytest.mark.parametrize(
    "geometry", [{}, {"dilations": (1, 2), "strides": (2, 1)}], ids=["near", "apart"]
)
def test_filters_larger_than_the_data(mcpu: str, geometry: dict[str, Any]) -> None:
    """What stands around the data is the zero point, so sums are over taps; those of floats may leave padding out."""
    rng = np.random.default_rng(0)
    b = GraphBuilder("bytes")
    operands = [
        b.input("x", TensorType((2, 20, 3, 4), "uint8")),
        b.constant(rng.integers(-128, 128, (20, 1, 7, 5)).astype(np.int8), "w"),
        b.constant(rng.integers(-9000, 9000, 20).astype(np.int32), "b"),
        b.constant(rng.uniform(1e-3, 3e-3, 20).astype(np.float32), "f"),
    ]
    form = QuantizedConvAttributes(pads=(3, 3, 3, 4), group=20, pad=131, zero=100, **geometry)
    graph = b.finish({"y": b.add("conv_quantized", operands, form, "y")})
    feeds = {"x": rng.integers(0, 256, (2, 20, 3, 4)).astype(np.uint8)}
    wanted = interpret(graph, feeds)["y"]
    np.testing.assert_array_equal(compile(graph, mcpu=mcpu).run(feeds)["y"], wanted)
    assert len(np.unique(wanted)) > 30


@pytest.mark.parametrize(
    ("size", "stride", "columns"), [(112, 1, 4), (112, 2, 4), (28, 1, 4), (7, 1, 7), (5, 2, 3)]
)
def test_tiles_store_whole_groups(size: int, stride: int, columns: int) -> None:
    target = parse_target("llvm", "znver4", cores=1)
    spec = ConvSpec.of((1, 32, size, size), (32, 1, 3, 3), pads=(1,) * 4, strides=(stride,) * 2, group=32)  # fmt: skip
    knobs = quantized_taps.knobs(spec, target)
    assert knobs["cols"] == columns
    assert spec.output[2] % knobs["rows"] == 0
