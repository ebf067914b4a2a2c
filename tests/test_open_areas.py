"""Modules with an open height and width: right at every size, on code for a few; what has a size written into it is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from convc.cli import invoke
from convc.compiler import compile
from convc.errors import (
    InputError,
    InvalidModelError,
    PackageError,
    ShapeError,
    UnsupportedModelError,
)
from convc.runtime import load
from convc.runtime.area_module import AreaModule

BODY = """a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, k)  r = Relu(a)  p = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(r)
  c = Conv<pads=[1,1,1,1]>(p, l)  s = Add(c, p)  g = GlobalAveragePool(s)  e = Sigmoid(g)  m = Mul(s, e)  y = Softmax<axis=1>(m)"""


def model(body: str = BODY, more: str = "") -> onnx.ModelProto:
    text = f'<ir_version: 8, opset_import: ["": 18]> g (float[1,3,H,W] x) => (float y) <{more}> {{ {body} }}'
    made = onnx.parser.parse_model(text.replace("<>", ""))
    rng = np.random.default_rng(0)
    for name, shape in (("k", (24, 3, 3, 3)), ("l", (24, 24, 3, 3))):
        if f", {name})" in body:
            values = (rng.normal(size=shape) / 4).astype(np.float32)
            made.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return made


SHAPES = {"x": (1, 3, "H=8..40", "W=8..36")}


@pytest.fixture(scope="module")
def module() -> AreaModule:
    seen: list[tuple[str, int, int]] = []
    made = compile(model(), shapes=SHAPES, threads=1, progress=lambda *at: seen.append(at))
    assert [at for at in seen if at[0] == "import"][1:] == [("import", i, 5) for i in range(5)]
    loaded = made.load(threads=1)
    assert isinstance(loaded, AreaModule)
    return loaded


QUANTISED = """q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  v = DequantizeLinear<axis=0>(kq, ws)
  a = Conv<pads=[1,1,1,1], strides=[2,2]>(d, v)  r = Relu(a)  rq = QuantizeLinear(r, s, z)  rd = DequantizeLinear(rq, s, z)
  p = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(rd)  pq = QuantizeLinear(p, s, z)  pd = DequantizeLinear(pq, s, z)
  w = DequantizeLinear<axis=1>(lq, ws)  u = DequantizeLinear<axis=0>(lq, ws)
  t = ConvTranspose<strides=[2,2], pads=[1,1,0,0]>(pd, w)  tq = QuantizeLinear(t, s, z)  td = DequantizeLinear(tq, s, z)  c = Conv<pads=[1,1,1,1]>(td, u)  cq = QuantizeLinear(c, s, z)  cd = DequantizeLinear(cq, s, z)
  e = Add(cd, td)  eq = QuantizeLinear(e, s, z)  y = DequantizeLinear(eq, s, z)"""


def test_a_quantised_model_is_the_same_at_every_size() -> None:
    rng = np.random.default_rng(3)
    constants = {
        "s": np.array(0.03, np.float32),
        "z": np.array(110, np.uint8),
        "ws": rng.uniform(0.001, 0.004, 20).astype(np.float32),
        "kq": rng.integers(-127, 128, (20, 3, 3, 3)).astype(np.int8),
        "lq": rng.integers(-127, 128, (20, 20, 3, 3)).astype(np.int8),
    }

    def made() -> onnx.ModelProto:
        source = model(QUANTISED)
        source.graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in constants.items())  # fmt: skip
        return source

    compiled = compile(made(), shapes=SHAPES, threads=1)
    assert sum(s.op == "conv_quantized" for s in compiled.manifest.steps) == 3
    module = compiled.load(threads=1)
    for size in ((40, 36), (21, 18), (13, 29)):
        fixed = compile(made(), shapes={"x": (1, 3, *size)}, threads=1).load(threads=1)
        x = image(*size)
        wanted = fixed(x)
        np.testing.assert_array_equal(module(x), wanted)
        assert len(np.unique(wanted)) > 50


def test_a_layer_of_bytes_with_taps_far_apart_is_the_same_at_every_size() -> None:
    """Taps that are dead at small sizes are at work at others."""
    body = """q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  w = DequantizeLinear<axis=0>(f, ws)
      a = Conv<pads=[12,12,12,12], dilations=[12,12]>(d, w)  aq = QuantizeLinear(a, s, z)  y = DequantizeLinear(aq, s, z)"""
    rng, made = np.random.default_rng(3), model(body)
    for name, value in {
        "s": np.array(0.03, np.float32),
        "z": np.array(110, np.uint8),
        "ws": rng.uniform(0.001, 0.004, 20).astype(np.float32),
        "f": rng.integers(-127, 128, (20, 3, 3, 3)).astype(np.int8),
    }.items():
        made.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    module = compile(made, shapes=SHAPES, threads=1).load(threads=1)
    for size in ((40, 36), (13, 29), (8, 8)):
        fixed = compile(made, shapes={"x": (1, 3, *size)}, threads=1).load(threads=1)
        np.testing.assert_array_equal(module(image(*size)), fixed(image(*size)))


def image(*size: int) -> np.ndarray:
    return np.random.default_rng(sum(size)).normal(size=(1, 3, *size)).astype(np.float32)


def test_every_size_is_right(module: AreaModule) -> None:
    assert (module.areas, module.least) == (((20, 18), (40, 36)), (8, 8))
    session = onnxruntime.InferenceSession(model().SerializeToString(), providers=["CPUExecutionProvider"])  # fmt: skip
    for size in ((40, 36), (20, 18), (21, 18), (8, 8), (39, 9), (9, 35), (17, 13)):
        x = image(*size)
        expected = session.run(None, {"x": x})[0]
        y = module(x)
        assert isinstance(y, np.ndarray)
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5, err_msg=str(size))
        target = np.empty_like(y)
        assert module.run({"x": x}, outputs={"y": target})["y"] is target
        np.testing.assert_array_equal(target, y)
    assert len(module.profile({"x": image(9, 9)}, 1)) > 5


@pytest.mark.parametrize("algo", ["winograd", "fft"])
def test_what_a_pool_leaves_beyond_is_in_no_tile_of_a_layer(algo: str) -> None:
    """The maximum of nothing is minus infinity, and a layer without padding reads whole tiles."""
    body = "a = Conv<pads=[1,1,1,1]>(x, k)  p = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(a)  y = Conv(p, l)"
    made = model(body)
    peer = onnxruntime.InferenceSession(made.SerializeToString())
    areas = compile(made, shapes=SHAPES, threads=1, algo=algo).load(threads=1)
    for size in ((10, 13), (17, 22), (40, 31)):
        x = image(*size)
        np.testing.assert_allclose(areas(x), *peer.run(None, {"x": x}), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(41, 36), (40, 37), (7, 8), (8, 7)])
def test_other_sizes_are_refused(module: AreaModule, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=rf"from 8 x 8 to 40 x 36; got {size[0]} x {size[1]}"):
        module(image(*size))


def test_wrong_inputs_are_refused(module: AreaModule) -> None:
    with pytest.raises(InputError, match="inputs must be x; got z"):
        module.run({"z": image(8, 8)})
    with pytest.raises(InputError, match="must have shape"):
        module(np.zeros((2, 3, 40, 36), np.float32))
    with pytest.raises(InputError, match="one height and width"):
        module(np.zeros((3, 9), np.float32))
    with pytest.raises(InputError, match="by position"):
        module()


TRAPS = [
    ("r = Relu(x) y = Reshape(r, s)", "int64[3] s = {1, 3, 1440}", r"%y must compute each place .* reshape does not"),
    ("a = Conv<pads=[1,1,1,1]>(x, k) y = Slice(a, b, s, i)", "int64[1] b = {0}, int64[1] s = {36}, int64[1] i = {2}", "it cuts out rows"),
    ('q = Shape(x) n = Slice(q, t, f) a = Conv<pads=[1,1,1,1]>(x, k) h = ReduceMax(n) w = Concat<axis=0>(b, h, h) y = Resize<mode="linear">(a, , , w)',
     "int64[1] t = {2}, int64[1] f = {4}, int64[2] b = {1, 24}", "does not follow from one height or width"),
    # What is computed from height and width, but for a Resize: a divisor, a bound, a branch, a pad.
    ("q = Shape<start=2>(x) n = ReduceProd<keepdims=0>(q) f = Cast<to=1>(n) r = ReduceMean<keepdims=1>(x, t) y = Div(r, f)",
     "int64[2] t = {2, 3}", r"must be the same for every height and width; it is not for \(40, 36\) and"),
    ("q = Shape<start=2, end=3>(x) f = Cast<to=1>(q) z = Squeeze(f) y = Clip(x, l, z)", "float l = {0}", "must be the same for every height and width"),
    ("q = Shape<start=2, end=3>(x) c = Greater(q, t) d = Squeeze(c) y = If(d) <then_branch = u () => (p) { p = Relu(x) }, else_branch = v () => (p) { p = Neg(x) }>",
     "int64[1] t = {12}", "a condition that follows from an open height or width"),
    ("q = Shape<start=2>(x) m = Mod(q, t) e = Concat<axis=0>(z, z, m) y = Pad(x, e)",
     "int64[2] t = {2, 2}, int64[3] z = {0, 0, 0}", r"attributes of %y \(pad\) must be the same"),
    ("a = Relu(x) y = Slice(a, b, s, i)", "int64[1] b = {0}, int64[1] s = {40}, int64[1] i = {2}", ""),
]  # fmt: skip


@pytest.mark.parametrize(("body", "more", "text"), TRAPS)
def test_a_size_written_into_a_model_is_named(body: str, more: str, text: str) -> None:
    if not text:  # a slice of up to 40 rows is none of at most 40
        assert compile(model(body, more), shapes=SHAPES, threads=1, areas=[(40, 36)]).sources
        return
    with pytest.raises((ShapeError, UnsupportedModelError), match=text):
        compile(model(body, more), shapes=SHAPES, threads=1)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((1, 3, "H", 36), r"range for an open height or width, as in H=64\.\.512; got H"),
        ((1, 3, "H=9..8", 36), "range"),
        (("N", 3, "H=8..9", 36), "numbers for N and C"),
        ((1, 3, "H=8..9"), "must be N, C, H, W"),
    ],
)
def test_shapes_that_cannot_be(shape: tuple, text: str) -> None:
    with pytest.raises(InvalidModelError, match=text):
        compile(model(), shapes={"x": shape})


RESIZED = """
  a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, k)  half = Relu(a)
  all = Shape(x)  size = Slice(all, two, four)  all_half = Shape(half)  nc = Slice(all_half, zero, two)
  to = Concat<axis=0>(nc, size)  up = Resize<mode="linear", coordinate_transformation_mode="half_pixel">(half, , , to)
  near = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(half, , , to)
  less = Sub(size, one)  part = Div(less, eight)  more = Add(part, one)  few = Concat<axis=0>(nc, more)
  shrunk = Resize<mode="linear", antialias=1>(up, , , few)
  again = Resize<mode="cubic", coordinate_transformation_mode="align_corners">(shrunk, , , to)
  mean = GlobalAveragePool(half)  one_point = Conv(mean, m)  nc8 = Shape<end=2>(one_point)  to8 = Concat<axis=0>(nc8, size)  wide = Resize<mode="linear">(one_point, , , to8)
  joined = Concat<axis=1>(up, near, again, wide)  y = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(joined)
  bigger = Resize<mode="linear", coordinate_transformation_mode="pytorch_half_pixel">(half, , scales)
  fixed = Resize<mode="linear">(half, , , sizes)  z = GlobalMaxPool(bigger)
"""


def test_what_is_resized_follows_height_and_width() -> None:
    """To the extents of the input, to arithmetic on them, by a scale, from one point, and to what is written in the model."""
    more = (
        "int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] four = {4}, int64[1] eight = {8}, "
        "float[4] scales = {1, 1, 1.5, 1.75}, int64[4] sizes = {1, 24, 7, 9}"
    )
    text = f'<ir_version: 8, opset_import: ["": 18]> g (float[1,3,H,W] x) => (float y, float z, float fixed) <{more}> {{ {RESIZED} }}'
    made = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in (("k", (24, 3, 3, 3)), ("m", (8, 24, 1, 1))):
        values = (rng.normal(size=shape) / 4).astype(np.float32)
        made.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    module = compile(made, shapes=SHAPES, threads=1).load(threads=1)
    assert isinstance(module, AreaModule)
    assert [t.name for t in module.inputs] == ["x"]
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])  # fmt: skip
    for size in ((40, 36), (21, 18), (8, 8), (39, 9), (17, 13), (40, 36)):
        x = image(*size)
        for name, value, theirs in zip("yz.", module(x), session.run(None, {"x": x}), strict=True):
            np.testing.assert_allclose(value, theirs, rtol=1e-4, atol=1e-5, err_msg=f"{name} {size}")  # fmt: skip


def test_areas_must_reach_the_largest() -> None:
    with pytest.raises(InvalidModelError, match="one of 40 x 36"):
        compile(model(), shapes=SHAPES, areas=[(20, 20)])


def test_areas_are_within_the_range_and_for_open_shapes_only(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match=r"from 8 x 8 to 40 x 36; got 64 x 64"):
        compile(model(), shapes=SHAPES, areas=[(40, 36), (64, 64)], threads=1)
    with pytest.raises(InputError, match=r"for an open height and width; got \[\(8, 8\)\] for shapes that are fixed"):  # fmt: skip
        compile(model(), shapes={"x": (1, 3, 16, 16)}, areas=[(8, 8)], threads=1)
    one = compile(model(), shapes=SHAPES, areas=[(40, 36)], threads=1)
    for form, name in (("bundle", "b"), ("static", "b.a")):
        with pytest.raises(PackageError, match=f"format must be 'so' .*; got '{form}'"):
            one.export(tmp_path / name, format=form)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "fcn.onnx", tmp_path / "fcn.so"
    onnx.save(model("a = Conv<pads=[1,1,1,1]>(x, k)  y = Relu(a)"), path)

    def run(*arguments: object) -> tuple[int, str]:
        code = invoke([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    code, text = run(
        "compile",
        path,
        "-o",
        out,
        "--shape",
        "x:1x3xH=4..12xW=4..9",
        "--area",
        "12x9",
        "--dtype",
        "bf16",
    )
    assert code == 0, text
    assert "from 4 x 4 to 12 x 9, on code for 12 x 9" in text
    code, text = run("inspect", out)
    assert (
        code,
        "areas    any height and width from 4 x 4 to 12 x 9, on code for 12 x 9" in text,
    ) == (0, True), text
    code, text = run("inspect", path, "--shape", "x:1x3xH=12..4xW=4..9")
    assert (code, "from the least to the greatest extent; got 12..4" in text) == (2, True), text
    code, text = run("verify", out, path, "-n", "1")
    assert (code, "2 runs" in text) == (0, True), text
    failed = run("verify", out, path, "-n", "1", "--tolerance", "1e-9", "--per-layer")
    assert failed[0] == 4
    assert "The first layer that goes wrong is 'a'" in failed[1]
    assert load(out)(image(5, 7)).shape == (1, 24, 5, 7)
    assert run("verify", out, path, "--shape", "1x3x6x5")[0] == 0
    assert run("bench", out, "--iterations", "2", "--warmup", "1ms", "--no-peak")[0] == 0
    assert run("run", out, "-i", "random")[0] == 0
    shape = ("--shape", "x:1x3xH=4..12xW=4..9")
    code, text = run("explain", path, *shape)
    assert (code, "for 12 x 9" in text, "for 6 x 5" in text) == (0, True, True), text
    code, text = run("tune", path, *shape, "--list-tasks")
    assert (code, "h12w9" in text, "h6w5" in text) == (0, True, True), text
    code, text = run("tune", path, *shape, "--area", "12x9", "--list-tasks")
    assert (code, "h12w9" in text, "h6w5" in text) == (0, True, False), text
    assert run("compile", path, "-o", out, *shape, "--area", "12")[0] == 2
    lock, before = tmp_path / "convc.lock", out.read_bytes()
    code, text = run("compile", path, "-o", out, *shape, "--lock", lock)
    assert (code, "--lock must be with one --area" in text) == (2, True), text
    assert out.read_bytes() == before
    one = (*shape, "--area", "12x9")
    assert run("compile", path, "-o", out, *one, "--lock", lock)[0] == 0
    before = out.read_bytes()
    assert run("compile", path, "-o", out, *one, "--locked", lock)[0] == 0
    assert out.read_bytes() == before
