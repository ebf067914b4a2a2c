"""Convolutions of bytes give every sum exactly, with the instruction for four products and without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convc.compiler import compile
from convc.ir import GraphBuilder, TensorType
from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.ir.passes import run_passes
from convc.ir.reference import interpret
from convc.schedules.quads import has_dot
from convc.target import parse_target

CASES: tuple[tuple[Any, Any, Any], ...] = (
    ((1, 3, 15, 15), (20, 3, 3, 3), {"pads": (1, 1, 1, 1), "strides": (2, 2)}),
    ((2, 32, 9, 9), (40, 32, 1, 1), {}),
    # The last block has two quads of channels, or one that is not whole.
    ((2, 24, 9, 9), (40, 24, 1, 1), {}),
    ((1, 33, 9, 9), (16, 33, 1, 1), {"strides": (2, 2)}),
    # Rows of dense layers: whole blocks, a part of one, one quad.
    ((37, 32, 1, 1), (40, 32, 1, 1), {}),
    ((19, 24, 1, 1), (16, 24, 1, 1), {}),
    ((61, 3, 1, 1), (9, 3, 1, 1), {}),
    ((1, 64, 7, 7), (64, 32, 3, 3), {"group": 2, "pads": (1, 1, 1, 1)}),
    ((1, 24, 8, 8), (24, 1, 3, 3), {"group": 24, "pads": (1, 1, 1, 1), "dilations": (2, 2)}),
    ((1, 40, 13, 11), (40, 1, 5, 5), {"group": 40, "pads": (2, 2, 2, 2), "strides": (2, 2)}),
    ((2, 16, 21), (16, 1, 3), {"group": 16, "pads": (1, 1)}),
    ((1, 8, 5, 6, 7), (8, 1, 3, 3, 3), {"group": 8, "pads": (1,) * 6}),
    ((1, 8, 7, 7), (8, 1, 7, 7), {"group": 8}),
    ((1, 16, 30), (24, 16, 5), {"pads": (2, 2)}),
    ((1, 8, 5, 6, 7), (8, 8, 3, 3, 3), {"pads": (1,) * 6}),
    # One to three channels, whose rows are rows of bytes; 3x3 taps of three channels are quads of channels.
    ((1, 3, 19, 21), (20, 3, 7, 7), {"pads": (3, 3, 3, 3), "strides": (2, 2), "pad": 117}),
    ((2, 1, 9, 37), (24, 1, 3, 3), {"pads": (1, 1, 1, 1)}),
    ((1, 1, 100), (16, 1, 18), {"strides": (4,)}),
    ((1, 2, 3, 9, 10), (8, 2, 3, 3, 3), {"pads": (1,) * 6, "pad": 9}),
)

_UP = {"transposed": True, "strides": (2, 2), "pad": 117}

TRANSPOSED: tuple[tuple[Any, Any, Any], ...] = (
    # A U-Net's: each phase is one tap. Then a decoder's, two taps an axis.
    ((2, 32, 7, 9), (32, 20, 2, 2), _UP),
    ((1, 24, 7, 15), (24, 40, 4, 4), {**_UP, "pads": (1, 1, 1, 1)}),
    # Phases of one and of two taps; with as many results, and without.
    ((1, 16, 6, 9), (16, 16, 3, 3), {**_UP, "pads": (1, 1, 1, 1), "output_padding": (1, 1)}),
    ((2, 3, 6, 9), (3, 24, 3, 3), _UP),
    # Groups in one block, groups of whole blocks, one channel a group.
    ((1, 24, 5, 9), (24, 6, 4, 4), {**_UP, "pads": (1, 1, 1, 1), "group": 4}),
    ((1, 32, 5, 9), (32, 16, 3, 3), {**_UP, "pads": (1, 0, 0, 1), "group": 2}),
    ((1, 24, 9, 8), (24, 1, 4, 4), {**_UP, "pads": (1, 1, 1, 1), "group": 24}),
    # Phases that no tap reaches, taps a dilation apart; lines and volumes; one point.
    ((1, 16, 6, 9), (16, 8, 2, 2), {**_UP, "strides": (3, 3), "output_padding": (1, 0)}),
    ((1, 16, 6, 9), (16, 8, 3, 3), {**_UP, "dilations": (2, 2), "pads": (1, 1, 1, 1)}),
    ((1, 16, 6, 9), (16, 8, 3, 3), {"transposed": True, "pads": (1, 1, 1, 1), "pad": 9}),
    ((2, 16, 21), (16, 24, 4), {**_UP, "strides": (2,), "pads": (1, 1)}),
    ((1, 8, 3, 4, 5), (8, 8, 2, 2, 2), {**_UP, "strides": (2, 2, 2)}),
    ((2, 20, 1, 1), (20, 24, 4, 4), _UP),
)


@pytest.mark.parametrize("mcpu", ["host", "x86-64-v3"])
@pytest.mark.parametrize("cases", [CASES, TRANSPOSED], ids=["forward", "transposed"])
def test_sums_are_exact(mcpu: str, cases: tuple[tuple[Any, Any, Any], ...]) -> None:
    rng = np.random.default_rng(0)
    b, outputs, feeds = GraphBuilder("bytes"), {}, {}
    for i, (shape, weight, geometry) in enumerate(cases):
        x = b.input(f"x{i}", TensorType(shape, "uint8"))
        feeds[x] = rng.integers(0, 256, shape).astype(np.uint8)
        k = weight[1] * geometry.get("group", 1) if geometry.get("transposed") else weight[0]
        operands = [
            x,
            b.constant(rng.integers(-128, 128, weight).astype(np.int8), f"w{i}"),
            b.constant(rng.integers(-500, 500, k).astype(np.int32), f"b{i}"),
            b.constant(rng.uniform(1e-4, 1e-2, k).astype(np.float32), f"f{i}"),
        ]
        rounded = QuantizedConvAttributes(**geometry, zero=3, least=3)
        sums = QuantizedConvAttributes(**geometry, dtype="float32")
        outputs[f"y{i}"] = b.add("conv_quantized", operands, rounded, f"y{i}")
        outputs[f"z{i}"] = b.add("conv_quantized", operands, sums, f"z{i}")
    graph = b.finish(outputs)
    compiled = compile(graph, threads=1, mcpu=mcpu)
    got, exact = compiled.run(feeds), interpret(graph, feeds)
    depthwise = {
        s.node
        for s in compiled.manifest.steps
        if s.reason in ("exact sums in float32", "four taps an instruction")
    }
    of_one = {
        i
        for i, (_, weight, geometry) in enumerate(cases)
        if geometry.get("group") == weight[0] and not geometry.get("transposed")
    }
    assert depthwise == {f"{stem}{i}" for i in of_one for stem in "yz"}
    for name in outputs:
        if name.startswith("y"):
            np.testing.assert_array_equal(got[name], exact[name])
            assert len(np.unique(got[name])) > min(50, got[name].size // 2)
        else:  # the sum and the factor are each rounded to float32, and their product
            np.testing.assert_allclose(got[name], exact[name], rtol=3 * 2**-24)


@pytest.mark.parametrize("mcpu", ["host", "x86-64-v3"])
def test_padding_and_what_is_added(mcpu: str) -> None:
    """What lies around the data is their zero point, of one reader as of another; bytes added to a result are rounded once more."""
    rng = np.random.default_rng(2)
    b = GraphBuilder("sums")
    x = b.input("x", TensorType((2, 20, 9, 9), "uint8"))
    r = b.input("r", TensorType((2, 20, 9, 9), "uint8"))
    pads = {"pads": (1, 1, 1, 1)}

    def layer(name: str, data: str, other: str = "", **form: Any) -> str:
        group = form.get("group", 1)
        operands = [
            data,
            b.constant(
                rng.integers(-128, 128, (20, 20 // group, 3, 3)).astype(np.int8), f"w{name}"
            ),
            b.constant(rng.integers(-9000, 9000, 20).astype(np.int32), f"b{name}"),
            b.constant(rng.uniform(1e-3, 2e-3, 20).astype(np.float32), f"f{name}"),
            *([other] if other else []),
        ]
        return b.add("conv_quantized", operands, QuantizedConvAttributes(**pads, **form), name)

    bounds = {"own_least": -90, "own_greatest": 100}
    y = layer("y", x, pad=117, zero=100)
    # The same data with another border, depthwise, and what is added in three kinds of kernels.
    z = layer("z", x, y, pad=3, zero=70, least=70, added=(0.75, 0.625, -31.25), **bounds)
    # Factors whose products are rounded: to what multiply-adds make of them.
    u = layer("u", z, r, pad=70, zero=80, added=(0.51, 1.27, -160.3), **bounds)
    v = layer("v", u, z, pad=80, zero=60, group=20, added=(0.5, 0.5, -35.0), **bounds)
    w = layer("w", u, v, zero=60, added=(0.37, 0.41, -30.7), dtype="int8", least=-100, **bounds)
    graph = b.finish({"y": y, "z": z, "u": u, "v": v, "w": w})
    feeds = {n: rng.integers(0, 256, (2, 20, 9, 9)).astype(np.uint8) for n in ("x", "r")}
    compiled = compile(graph, threads=1, mcpu=mcpu)
    got, exact = compiled.run(feeds), interpret(graph, feeds)
    for name, wanted in exact.items():
        np.testing.assert_array_equal(got[name], wanted, err_msg=name)
        assert len(np.unique(wanted)) > 50, name


@pytest.mark.parametrize("pad", [0, 77])
@pytest.mark.parametrize(("extents", "taps"), [((1, 6, 7), (1, 3, 3)), ((2, 6, 7), (3, 3, 3))])
def test_taps_that_read_padding_alone(pad: int, extents: Any, taps: Any) -> None:
    """They are dropped, with what they add in the bias, or skipped by the tiles that read nothing else."""
    rng = np.random.default_rng(3)
    b = GraphBuilder("volumes")
    x = b.input("x", TensorType((1, 20, *extents), "uint8"))
    operands = [
        x,
        b.constant(rng.integers(-128, 128, (24, 20, 3, 3, 3)).astype(np.int8), "w"),
        b.constant(rng.integers(-9000, 9000, 24).astype(np.int32), "b"),
        b.constant(rng.uniform(1e-3, 2e-3, 24).astype(np.float32), "f"),
    ]
    form = QuantizedConvAttributes(pads=(1,) * 6, pad=pad, zero=100)
    graph = b.finish({"y": b.add("conv_quantized", operands, form, "y")})
    layer = run_passes(graph)["y"]
    assert run_passes(graph)[layer.inputs[1]].type.shape == (24, 20, *taps)
    compiled = compile(graph, threads=1)
    (step,) = (s for s in compiled.manifest.steps if s.op == "conv_quantized")
    assert bool(step.knobs.get("clip")) == (pad == 0)
    feeds = {"x": rng.integers(0, 256, (1, 20, *extents)).astype(np.uint8)}
    exact = interpret(graph, feeds)["y"]
    np.testing.assert_array_equal(compiled.run(feeds)["y"], exact)
    assert len(np.unique(exact)) > 50


def test_quads_are_for_cpus_that_have_the_instruction() -> None:
    assert has_dot(parse_target("llvm", "cascadelake"))
    assert not has_dot(parse_target("llvm", "skylake-avx512"))
    assert not has_dot(parse_target("llvm", "alderlake"))


@pytest.mark.parametrize("mcpu", ["host", "x86-64-v3"])
def test_tables_of_bytes(mcpu: str) -> None:
    """Rows of whole vectors of 64, 32 and 16 bytes, plain rows and rows of blocks, with channels that fill no block; lines; no rows."""
    rng = np.random.default_rng(4)
    b, outputs, feeds = GraphBuilder("tables"), {}, {}
    for dtype in ("uint8", "int8"):
        info = np.iinfo(dtype)
        for shape in (
            (2, 20, 3, 8),
            (1, 24, 5, 6),
            (1, 16, 5, 5),
            (1, 20, 21),
            (3, 100),
            (96,),
            (9,),
            (),
        ):
            name = f"{dtype}_{'x'.join(map(str, shape))}"
            x = b.input(f"x_{name}", TensorType(shape, "uint8"))
            feeds[x] = np.asarray(rng.integers(0, 256, shape), np.uint8)
            values = rng.integers(info.min, info.max + 1, 256).astype(dtype)
            table = b.constant(values, f"t_{name}")
            outputs[f"plain_{name}"] = b.add("lookup", [x, table], name=f"plain_{name}")
            if len(shape) != 4:
                continue
            # Between convolutions: in blocks, the second time with zeros around them.
            one = b.constant(np.eye(shape[1], dtype=np.int8)[:, :, None, None], f"w_{name}")
            rest = [
                b.constant(np.zeros(shape[1], np.int32), f"b_{name}"),
                b.constant(np.ones(shape[1], np.float32), f"f_{name}"),
            ]
            form = QuantizedConvAttributes(greatest=255)
            y = b.add("conv_quantized", [x, one, *rest], form, f"y_{name}")
            z = b.add("lookup", [y, table], name=f"z_{name}")
            if dtype == "uint8":
                wide = b.constant(
                    rng.integers(-9, 9, (shape[1], shape[1], 3, 3)).astype(np.int8), f"v_{name}"
                )
                form = QuantizedConvAttributes(pads=(1,) * 4, dtype="float32")
                z = b.add("conv_quantized", [z, wide, *rest], form, f"u_{name}")
            outputs[f"blocked_{name}"] = z
    graph = b.finish(outputs)
    got, exact = compile(graph, threads=1, mcpu=mcpu).run(feeds), interpret(graph, feeds)
    for name in outputs:
        np.testing.assert_array_equal(got[name], exact[name], err_msg=name)


def test_transposed_in_plain_loops() -> None:
    """Where weights are no constants the layer is computed as its definition reads."""
    rng = np.random.default_rng(6)
    b, outputs, feeds = GraphBuilder("plain"), {}, {}
    for i, (shape, weight, geometry) in enumerate(TRANSPOSED[:7]):
        k = weight[1] * geometry.get("group", 1)
        feeds |= {
            f"x{i}": rng.integers(0, 256, shape).astype(np.uint8),
            f"w{i}": rng.integers(-128, 128, weight).astype(np.int8),
            f"b{i}": rng.integers(-500, 500, k).astype(np.int32),
            f"f{i}": rng.uniform(1e-4, 1e-2, k).astype(np.float32),
        }
        operands = [
            b.input(name, TensorType(feeds[name].shape, str(feeds[name].dtype)))
            for name in list(feeds)[-4:]
        ]
        outputs[f"y{i}"] = b.add("conv_quantized", operands, QuantizedConvAttributes(**geometry))
    graph = b.finish(outputs)
    got, exact = compile(graph, threads=1).run(feeds), interpret(graph, feeds)
    for name in outputs:
        np.testing.assert_array_equal(got[name], exact[name], err_msg=name)
