"""Types of 8 bits and less: every float16 to each format and back, as NumPy converts them, and what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from convc.compiler import compile
from convc.errors import UnsupportedModelError
from convc.frontend.onnx import from_onnx
from convc.frontend.onnx.narrow import NARROW, carried, natural
from convc.ir.reference import interpret

ONNX_NAMES = {
    "float8_e4m3fn": "float8e4m3fn",
    "float8_e4m3fnuz": "float8e4m3fnuz",
    "float8_e5m2": "float8e5m2",
    "float8_e5m2fnuz": "float8e5m2fnuz",
    "float4_e2m1fn": "float4e2m1",
    "int4": "int4",
    "uint4": "uint4",
    "int2": "int2",
    "uint2": "uint2",
}
EVERY_HALF = np.arange(2**16, dtype=np.uint16).view(np.float16)
EVERY_HALF[np.isnan(EVERY_HALF)] = np.nan  # signalling ones raise a flag when they are widened


def _model(body: str, inputs: str, outputs: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f'<ir_version: 13, opset_import: ["": 25]> g ({inputs}) => ({outputs}) {{ {body} }}'
    )


def _to(name: str, count: int, extra: str = "") -> onnx.ModelProto:
    kind = ONNX_NAMES[name]
    code = onnx.TensorProto.DataType.Value(kind.upper())
    return _model(f"y = Cast <to: int = {code}{extra}> (x)", f"float16[{count}] x", f"{kind}[{count}] y")  # fmt: skip


def _from(name: str, count: int) -> onnx.ModelProto:
    return _model("y = Cast <to: int = 1> (x)", f"{ONNX_NAMES[name]}[{count}] x", f"float[{count}] y")  # fmt: skip


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=True)


@pytest.mark.parametrize("name", [n for n in ONNX_NAMES if n.startswith("float8")])
def test_every_half_becomes_the_nearest(name: str) -> None:
    graph = from_onnx(_to(name, EVERY_HALF.size, ", saturate: int = 0"))
    got = natural(interpret(graph, {"x": EVERY_HALF})["y"].astype(np.uint8), name)
    with np.errstate(all="ignore"):
        wanted = EVERY_HALF.astype(NARROW[name][0])
    assert _same(got.astype(np.float32), wanted.astype(np.float32))
    kept = np.isfinite(got.astype(np.float32)) & (got.astype(np.float32) != 0)
    assert np.array_equal(carried(got)[kept], carried(wanted)[kept])


@pytest.mark.parametrize("name", [n for n in ONNX_NAMES if n.startswith("float8")])
def test_saturation_keeps_the_sign_and_nothing_infinite(name: str) -> None:
    x = np.array([1e4, -6e4, np.inf, -np.inf, 2.0], np.float16)
    graph = from_onnx(_to(name, x.size))
    got = natural(interpret(graph, {"x": x})["y"].astype(np.uint8), name).astype(np.float32)
    assert np.all(np.isfinite(got))
    assert np.array_equal(np.sign(got), np.sign(x))
    assert got[2] == -got[3] == np.max(got)


@pytest.mark.parametrize("name", [n for n in ONNX_NAMES if "int" in n])
def test_whole_numbers_keep_their_low_bits(name: str) -> None:
    x = np.arange(-40, 40).astype(np.float16)
    got = interpret(from_onnx(_to(name, x.size)), {"x": x})["y"]
    assert np.array_equal(got, carried(x.astype(NARROW[name][0])))


def test_compiled_as_interpreted() -> None:
    x = np.concatenate([EVERY_HALF[::97], np.array([0.0, -0.0, 448, 464], np.float16)])
    for name in ("float8_e4m3fn", "float8_e5m2fnuz", "float4_e2m1fn", "int4"):
        finite = np.nan_to_num(x, posinf=6, neginf=-6)
        x = finite if "int" in name else x
        graph = from_onnx(_to(name, x.size))
        codes = compile(graph, threads=1).run({"x": x})["y"]
        assert np.array_equal(codes, interpret(graph, {"x": x})["y"])
        back = from_onnx(_from(name, x.size))
        got = compile(back, threads=1).run({"x": codes})["y"]
        assert _same(got, natural(codes, name).astype(np.float32))


def test_moved_values_keep_their_type() -> None:
    model = _model(
        "t = Transpose (x) y = Cast <to: int = 1> (t)", "float8e5m2[2,3] x", "float[3,2] y"
    )
    codes = np.array([[60, 64, 68], [188, 192, 196]], np.uint8)
    got = interpret(from_onnx(model), {"x": codes})["y"]
    assert np.array_equal(got, np.array([[1, -1], [2, -2], [4, -4]]))


def test_arithmetic_of_narrow_types_is_refused() -> None:
    model = _model("y = Relu (x)", "float8e5m2[2] x", "float8e5m2[2] y")
    with pytest.raises(UnsupportedModelError, match="operand 'x' of type float8_e5m2"):
        from_onnx(model)
