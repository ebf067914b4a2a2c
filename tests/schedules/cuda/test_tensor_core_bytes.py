"""Layers of bytes on tensor cores: exact in every form, against the integers of the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import te

from convc.ir import Graph, GraphBuilder
from convc.ir.ops.quantized import QuantizedConvAttributes, quantized_spec
from convc.ir.reference import interpret
from convc.ir.types import TensorType
from convc.schedules.cuda import compiler, nvcc
from convc.schedules.cuda.backend import BACKEND
from convc.schedules.cuda.depthwise_bytes import ALGORITHM as DEPTHWISE
from convc.schedules.cuda.row_tiles import row_registers
from convc.schedules.cuda.tensor_core_bytes import ALGORITHM as BYTES
from convc.schedules.cuda.tensor_core_bytes_folded import ALGORITHM as FOLDED
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.quantized_algorithm import QuantizedAlgorithm
from convc.target import parse_target
from tests.cuda_emulation.emulation import OWN_PASSES, Case, compile_and_run, run_cases
from tests.schedules.cuda.cuda_convolutions import TARGET, in_blocks

SAME = {"pads": (1, 1, 1, 1)}
# Factors of few bits: products are exact, so that it is the same whether a compiler makes multiply-adds of them (nvcc does) or not.
ADDED = {"added": (0.75, 0.625, -31.25), "own_least": -90, "own_greatest": 100}


@dataclass(frozen=True)
class Layer:
    """A layer of bytes: shapes of data and weights, its attributes, and what its knobs are to be, those of the model without."""

    data: tuple[int, ...]
    weight: tuple[int, ...]
    form: Mapping[str, Any] = field(default_factory=dict)
    wanted: Mapping[str, int] = field(default_factory=dict)
    algorithm: QuantizedAlgorithm = BYTES

    @property
    def attributes(self) -> QuantizedConvAttributes:
        return QuantizedConvAttributes(**{"pad": 117, "zero": 3, **self.form})

    @property
    def spec(self):
        types = TensorType(self.data, "uint8"), TensorType(self.weight, "int8")
        return quantized_spec(*types, self.attributes)

    def knobs(self, target=TARGET) -> Knobs:
        if not self.wanted:
            return self.algorithm.knobs(self.spec, target)
        space = self.algorithm.space(self.spec, target)
        fits = (k for k in space if self.wanted.items() <= k.items())
        return min(fits, key=lambda k: self.algorithm.cycles(self.spec, target, k))

    def operands(self) -> dict[str, np.ndarray]:
        """Return x, w, b, f and, where something is added, r; all values a byte has, and results all over it."""
        rng, (k, *_) = np.random.default_rng(len(self.data) + sum(self.weight)), self.weight
        terms = np.prod(self.weight[1:])
        arrays = {
            "x": rng.integers(0, 256, self.data).astype(np.uint8),
            "w": rng.integers(-128, 128, self.weight).astype(np.int8),
            "b": rng.integers(-9000, 9000, k).astype(np.int32),
            "f": (rng.uniform(0.5, 1.5, k) / (2e2 * np.sqrt(terms))).astype(np.float32),
        }
        if self.attributes.dynamic:
            arrays["b"] = -arrays["w"].sum(tuple(range(1, self.spec.rank + 2)), dtype=np.int32)
            arrays["z"] = np.array(117, np.int32)
        if self.attributes.added:
            arrays["r"] = rng.integers(0, 256, self.spec.output).astype(np.uint8)
        return arrays

    def graph(self) -> Graph:
        b, arrays = GraphBuilder("layer"), self.operands()
        names = [
            b.input(n, TensorType(a.shape, str(a.dtype))) if n in "xrz" else b.constant(a, n)
            for n, a in arrays.items()
        ]
        return b.finish({"y": b.add("conv_quantized", names, self.attributes, "y")})

    def expected(self) -> np.ndarray:
        arrays = self.operands()
        return interpret(self.graph(), {n: arrays[n] for n in arrays if n in "xrz"})["y"]

    def scheduled(self, target=TARGET):
        knobs = self.knobs(target)
        tensors = self.algorithm.compute(self.spec, self.attributes, target, knobs)
        func = te.create_prim_func(list(tensors))
        return BACKEND.schedules[self.algorithm.name](func, knobs, target)

    def case(self) -> Case:
        x, w, *others = self.operands().values()
        knobs = self.knobs()
        packed = self.algorithm.pack(w, self.spec, knobs)
        x = in_blocks(x, self.algorithm.operands(self.spec, TARGET, knobs).data.block)
        x = x.view(np.int32) if self.algorithm is DEPTHWISE else x
        return Case(self.scheduled(), (x, packed, *(in_blocks(o, 16) for o in others)))


def check(layers: list[Layer], **options: Any) -> None:
    outcomes = run_cases([layer.case() for layer in layers], config=compiler.OPTIONS, build=OWN_PASSES, **options)  # fmt: skip
    for layer, outcome in zip(layers, outcomes, strict=True):
        assert not outcome.error, f"{layer}: {outcome.error[:800]}"
        expected = layer.expected()
        (result,) = outcome.outputs
        blocked = in_blocks(expected, 16)
        if layer.attributes.dtype == "float32":
            np.testing.assert_allclose(result, blocked, rtol=3 * 2**-24, err_msg=str(layer))
        else:
            np.testing.assert_array_equal(result, blocked, err_msg=str(layer))
            assert len(np.unique(expected)) > 60, layer


# 1x1, 3x3, strided, dilated, grouped; channels that fill no block; lines and volumes; a byte's largest sums.
LAYERS = [
    Layer((2, 64, 9, 7), (32, 64, 1, 1), {"zero": 128}),
    Layer((1, 48, 8, 9), (40, 48, 3, 3), {**SAME, "least": 3}),
    Layer((2, 3, 12, 10), (20, 3, 5, 5), {"pads": (2, 1, 1, 2), "strides": (2, 2), "pad": 255}),
    Layer((1, 32, 9, 9), (16, 32, 3, 3), {"pads": (2, 2, 2, 2), "dilations": (2, 2), "pad": 0}),
    Layer((1, 64, 6, 7), (32, 32, 3, 3), {**SAME, "group": 2, "dtype": "int8", "zero": -9, "least": -100}),
    Layer((2, 20, 15), (24, 20, 3), {"pads": (1, 1)}),
    Layer((1, 16, 4, 5, 6), (16, 16, 3, 3, 3), {"pads": (1,) * 6}),
    Layer((1, 33, 7, 7), (18, 33, 1, 1), {"strides": (2, 2), "dtype": "float32"}),
    Layer((2, 40, 9, 8), (40, 1, 3, 3), {**SAME, "group": 40}, {}, DEPTHWISE),
    Layer((1, 16, 11, 10), (16, 1, 5, 5), {"pads": (2, 1, 2, 1), "strides": (2, 2), "group": 16, "least": 3, "dtype": "int8"}, {}, DEPTHWISE),
    Layer((1, 32, 10, 10), (32, 1, 3, 3), {**SAME, **ADDED, "strides": (1, 2), "group": 32, "dilations": (2, 1)}, {"held": 0}, DEPTHWISE),
    Layer((2, 20, 15), (20, 1, 3), {"pads": (1, 1), "group": 20, "dtype": "float32"}, {}, DEPTHWISE),
    Layer((2, 3, 13, 12), (24, 3, 7, 7), {"strides": (2, 2), "pads": (3,) * 4}, {}, FOLDED),
    Layer((1, 1, 9, 11), (16, 1, 5, 3), {"pads": (2, 1, 0, 1), "least": 3}, {}, FOLDED),
]  # fmt: skip


def test_layers_are_exact() -> None:
    check(LAYERS)


def test_what_is_added_is_added() -> None:
    """Of whole tiles and of such that pixels and channels do not fill, in one kernel and with parts of sums in a second one."""
    check([
        Layer((1, 32, 8, 8), (32, 32, 1, 1), ADDED),
        Layer((1, 20, 7, 9), (24, 20, 3, 3), {**SAME, **ADDED, "least": 3}),
        Layer((1, 64, 5, 5), (24, 64, 3, 3), {**SAME, **ADDED}, {"split": 4}),
    ])  # fmt: skip


@pytest.mark.parametrize("split", [1, 2, 4])
@pytest.mark.parametrize("stages", [2, 3, 4])
def test_settings_are_exact(stages: int, split: int) -> None:
    """Every tile of a warp in one of the steps."""
    tiles = [(16, 16), (16, 64), (32, 32), (64, 16), (64, 64)]
    common = {"stages": stages, "split": split, "group": 1}
    check([
        Layer((1, 128, 9, 9), (64, 128, 3, 3), SAME, {"warp_pixels": p, "warp_channels": c, "step": 64 << (i % 2), **common})
        for i, (p, c) in enumerate(tiles)
    ])  # fmt: skip


@pytest.mark.parametrize("stages", [2, 3, 5])
def test_warpgroups_are_exact(stages: int) -> None:
    """One group and several, whole sums and parts, patches of several taps through L1; a map that fills no tile."""
    tiles = [(64, 16, 1, 0), (64, 64, 2, 1), (128, 32, 1, 1)]
    check([
        Layer((1, 128, 9, 9), (48, 128, 3, 3), SAME, {"group": 4, "stages": stages, "pixels": p, "channels": c, "split": s, **({"cached": 1} if through_l1 else {})})
        for p, c, s, through_l1 in tiles
    ])  # fmt: skip


def test_sums_are_whole_where_floats_are_not() -> None:
    """Products of one sign: sums beyond 2^24, which differ by one."""
    layer = Layer((1, 1024, 1, 16), (16, 1024, 1, 1), {"dtype": "float32"})
    x, w = np.full((1, 1024, 1, 16), 255, np.uint8), np.full((16, 1024, 1, 1), -128, np.int8)
    x[0, 0, 0] -= np.arange(16, dtype=np.uint8)
    w[:, 0] = 1
    packed = BYTES.pack(w, layer.spec, layer.knobs())
    rest = np.zeros((1, 16), np.int32), np.ones((1, 16), np.float32)
    case = Case(layer.scheduled(), (in_blocks(x, 16), packed, *rest))
    (outcome,) = run_cases([case], config=compiler.OPTIONS, build=OWN_PASSES)
    assert not outcome.error
    sums = np.einsum("nchw,kcij->nkhw", x.astype(np.int64), w.astype(np.int64))
    assert np.abs(sums).min() > 2**24
    np.testing.assert_array_equal(outcome.outputs[0], in_blocks(sums.astype(np.float32), 16))


@pytest.mark.parametrize(
    ("group", "text", "other"),
    [
        (1, "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32", "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32"),
        (1, "0x75757575u", "0x00000000u"),
        (1, "lane / 16 * 8 + lane % 8", "lane % 16 / 8 * 8 + lane % 8"),
        (4, "m64n32k32.s32.u8.s8", "m64n32k32.s32.s8.s8"),
    ],
    ids=["signs", "what lies outside", "fragments", "signs of warpgroups"],
)  # fmt: skip
def test_a_fault_is_found(group: int, text: str, other: str) -> None:
    layer = Layer((1, 64, 9, 9), (32, 64, 3, 3), SAME, {"split": 1, "group": group, "channels": 32})
    config = {"config": compiler.OPTIONS, "build": OWN_PASSES}
    (outcome,) = run_cases([layer.case()], spoil=(text, other, 0), **config)
    assert outcome.error or not np.array_equal(outcome.outputs[0], in_blocks(layer.expected(), 16))


@pytest.mark.parametrize(
    ("layer", "arch", "reason"),
    [
        (LAYERS[0], "75", "sm must be at least 80 for tensor cores; got 75"),
        (Layer((1, 16, 8, 8), (16, 1, 3, 3), {"group": 16}), "90", "input channels of a group must be a multiple of 16; got 1"),
        (Layer((1, 32, 8, 8), (16, 16, 3, 3), {"group": 2}), "90", "output channels of a group or phase must be a multiple of 16; got 8"),
        (Layer((1, 16, 8, 8), (16, 16, 3, 3), {"transposed": True}), "90", "convolution must not be transposed"),
        (Layer((1, 16, 8, 8), (16, 16, 3, 3), {}, {}, FOLDED), "90", "input channels must be fewer than a block's 16; got 16"),
        (Layer((1, 3, 8, 8), (16, 3, 1, 1), {}, {}, FOLDED), "90", "taps folded into channels must leave fewer blocks to a sum; got a filter of (1, 1)"),
    ],
)  # fmt: skip
def test_what_it_does_not_take_has_a_reason(layer: Layer, arch: str, reason: str) -> None:
    answer = layer.algorithm.supports(layer.spec, parse_target(f"cuda -arch={arch}"))
    assert answer == Unsupported(reason)


def test_a_network_hands_blocks_from_layer_to_layer() -> None:
    """Plain images in and out, a residual, a depthwise layer, a transposed one in plain loops, another border of the same data."""
    rng = np.random.default_rng(1)
    b = GraphBuilder("net")
    x = b.input("x", TensorType((2, 3, 9, 9), "uint8"))

    def layer(name: str, data: str, weight: tuple[int, ...], *others: str, **form: Any) -> str:
        k = weight[0]
        operands = [
            b.constant(rng.integers(-128, 128, weight).astype(np.int8), f"w{name}"),
            b.constant(rng.integers(-9000, 9000, k).astype(np.int32), f"b{name}"),
            b.constant((rng.uniform(0.5, 1.5, k) / (200 * np.sqrt(np.prod(weight[1:])))).astype(np.float32), f"f{name}"),
        ]  # fmt: skip
        return b.add("conv_quantized", [data, *operands, *others], QuantizedConvAttributes(**form), name)  # fmt: skip

    y = layer("y", x, (32, 3, 3, 3), **SAME, pad=117, zero=100)
    z = layer("z", y, (32, 1, 3, 3), **SAME, pad=100, zero=90, group=32)
    z = layer("t", z, (32, 32, 1, 1), transposed=True, pad=90, zero=90)
    u = layer("u", z, (32, 32, 1, 1), y, zero=80, **ADDED)
    v = layer("v", u, (20, 32, 3, 3), **SAME, pad=80, dtype="float32")
    graph = b.finish({"u": u, "v": v})
    feeds = {"x": rng.integers(0, 256, (2, 3, 9, 9)).astype(np.uint8)}
    outputs, _ = compile_and_run(graph, feeds, target="cuda -arch=sm_90")
    expected = interpret(graph, feeds)
    np.testing.assert_array_equal(outputs["u"], expected["u"])
    np.testing.assert_allclose(outputs["v"], expected["v"], rtol=3 * 2**-24)


def test_zero_points_of_run_time() -> None:
    """Of whole sums, and of such in parts, which another kernel adds up."""
    form = {"dynamic": True, "dtype": "float32", "pad": 0}
    whole, parts = Layer((2, 40, 5, 5), (24, 40, 1, 1), form), Layer((1, 2048, 3, 3), (16, 2048, 1, 1), form)  # fmt: skip
    assert whole.knobs()["split"] == 1 < parts.knobs()["split"]
    for layer in (whole, parts):
        feeds = {n: a for n, a in layer.operands().items() if n in "xz"}
        outputs, _ = compile_and_run(layer.graph(), feeds, target="cuda -arch=sm_90")
        np.testing.assert_allclose(outputs["y"], layer.expected(), rtol=3 * 2**-24)


# Layers of ResNet-50, at batch 1 and 32: 1x1, 3x3, strided, a small map with a long sum, with a residual; a group.
NETS = [
    Layer((32, 256, 14, 14), (256, 256, 3, 3), SAME),
    Layer((32, 64, 56, 56), (256, 64, 1, 1), ADDED),
    Layer((32, 128, 56, 56), (128, 128, 3, 3), {**SAME, "strides": (2, 2)}),
    Layer((1, 512, 7, 7), (512, 512, 3, 3), SAME),
    Layer((1, 1024, 14, 14), (256, 1024, 1, 1), {"least": 3}),
    Layer((32, 3, 224, 224), (64, 3, 7, 7), {"strides": (2, 2), "pads": (3,) * 4}, {}, FOLDED),
    Layer((8, 24, 56, 56), (48, 24, 3, 3), SAME),
    Layer((8, 48, 28, 28), (128, 48, 3, 3), {**SAME, "strides": (2, 2)}),
    Layer((8, 80, 14, 14), (200, 80, 5, 5), {"pads": (2,) * 4}),
    Layer((8, 128, 28, 28), (128, 32, 3, 3), {**SAME, "group": 4}),
]


# Of MobileNetV2.
DEPTHWISE_LAYERS = [Layer((32, 144, 56, 56), (144, 1, 3, 3), {**SAME, "group": 144}, {}, DEPTHWISE)]


@pytest.mark.skipif(nvcc.find_nvcc() is None, reason="there is no nvcc")
@pytest.mark.parametrize("sm", [80, 90])
def test_kernels_spill_nothing(sm: int) -> None:
    target = parse_target(f"cuda -arch=sm_{sm}")
    functions = {
        f"k{i}": n.scheduled(target).with_attr("global_symbol", f"k{i}")
        for i, n in enumerate([*NETS, *DEPTHWISE_LAYERS])
    }
    found = nvcc.resources(compiler.source_of(compiler.build(tvm.IRModule(functions), target)), sm)
    assert {k: r for k, r in found.items() if r.spill_bytes or r.stack_bytes} == {}
    for i, layer in enumerate(NETS):
        # No more than the model grants a tile, so that occupancy is what it says.
        assert found[f"k{i}_kernel"].registers <= 1.25 * row_registers(layer.knobs(target)), layer
