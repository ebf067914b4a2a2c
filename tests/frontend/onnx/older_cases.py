"""OLDER_CASES: models in ONNX's text form for the versions of operators that neither CASES nor ONNX's own suite reach."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import ModelProto

__all__ = ["OLDER_CASES", "OlderCase"]


@dataclass(frozen=True)
class OlderCase:
    """An operator at some versions.

    Attributes:
        op: the operator.
        versions: its `since_version`s.
        text: the graph, from its inputs on.
        peer: onnx.reference lacks these versions, or has only the newest meaning: ONNX Runtime is the oracle.
    """

    op: str
    versions: tuple[int, ...]
    text: str
    peer: bool = False

    def model(self, version: int) -> ModelProto:
        text = f'<ir_version: 8, opset_import: ["": {max(version, 7)}]> g {self.text}'
        return onnx.parser.parse_model(text)


def _unary(op: str, versions: tuple[int, ...], before: str = "u = Identity(x)") -> OlderCase:
    text = f"(float[3, 5] x) => (float[3, 5] y) {{ {before} y = {op}(u) }}"
    return OlderCase(op.partition(" ")[0], versions, text)


def _compared(op: str, versions: tuple[int, ...], type: str = "float") -> OlderCase:
    body = f"a = Cast <to = {6 if type == 'int32' else 1}> (x) b = Cast <to = {6 if type == 'int32' else 1}> (w) y = {op}(a, b)"
    return OlderCase(op, versions, f"(float[3, 5] x, float[5] w) => (bool[3, 5] y) {{ {body} }}")


def _reduced(op: str, before: str = "u = Identity(x)") -> tuple[OlderCase, ...]:
    head = "(float[2, 3, 4] x) => (float[2, 1, 4] y)"
    return (
        OlderCase(op, (1, 11, 13), f"{head} {{ {before} y = {op} <axes = [1]> (u) }}"),
        OlderCase(op, (1, 11, 13), f"(float[2, 3, 4] x) => (float[3] y) {{ {before} y = {op} <axes = [0, 2], keepdims = 0> (u) }}"),
        OlderCase(op, (18,), f"{head} {{ {before} a = Constant <value = int64[1] {{1}}> () y = {op}(u, a) }}"),
    )  # fmt: skip


_POSITIVE = "p = Abs(x) c = Constant <value = float {1.5}> () u = Add(p, c)"
_BYTES = "p = Abs(x) u = Cast <to = 2> (p)"  # uint8


def _weights(rows: int, columns: int) -> str:
    values = (f"{(7 * i % 11 - 5) / 6:.3f}" for i in range(rows * columns))
    return f"Constant <value = float[1, {rows}, {columns}] {{{', '.join(values)}}}> ()"


def _recurrent(op: str, gates: int, outputs: str) -> OlderCase:
    """Two hidden units, three inputs."""
    body = f"w = {_weights(2 * gates, 3)} r = {_weights(2 * gates, 2)} {outputs} = {op} <hidden_size = 2> (x, w, r)"
    head = "(float[4, 2, 3] x) => (float[4, 1, 2, 2] y, float[1, 2, 2] h)"
    return OlderCase(op, (7, 14), f"{head} {{ {body} }}")


_PLACES = "i = Constant <value = int64[2, 2] {0, 2, 1, 0}> ()"
_LOOP = """(float[4] x) => (float[4] y, float[3, 4] all)
    { n = Constant <value = int64 {3}> () t = Constant <value = bool {1}> ()
      y, all = Loop (n, t, x) <body = turn (int64 i, bool c, float[4] a) => (bool d, float[4] b, float[4] e)
          { d = Identity(c) f = Cast <to = 1> (i) b = Mul(a, f) e = Add(b, a) }> }"""
_IF = """(float[4] x) => (float[4] y)
    { zero = Constant <value = float {0.0}> () total = ReduceMax <keepdims = 0> (x) c = Greater(total, zero)
      y = If (c) <then_branch = yes () => (float[4] a) { a = Neg(x) }, else_branch = no () => (float[4] b) { b = Abs(x) }> }"""
_SCAN = """(float[4] x, float[3, 4] s) => (float[4] y, float[3, 4] all)
    { y, all = Scan <num_scan_inputs = 1, body = turn (float[4] a, float[4] e) => (float[4] b, float[4] f)
          { b = Add(a, e) f = Mul(b, e) }> (x, s) }"""

OLDER_CASES = (
    *(_unary(op, (7,), "u = Tanh(x)") for op in ("Acos", "Asin")),
    *(_unary(op, (7,)) for op in ("Atan", "Sin", "Tan")),
    *(_unary(op, (9,)) for op in ("Asinh", "Sinh", "Cosh")),
    _unary("Acosh", (9,), _POSITIVE),
    _unary("Atanh", (9,), "u = Tanh(x)"),
    _unary("Celu <alpha = 0.7>", (12,)),
    _unary("ThresholdedRelu <alpha = 0.4>", (10,)),
    *(OlderCase(op, (1, 11, 12), f"(float[3, 5, 2] x) => (int64[3, 2] y) {{ y = {op} <axis = 1, keepdims = 0> (x) }}") for op in ("ArgMax", "ArgMin")),
    OlderCase("BitShift", (11,), f'(float[3, 5] x) => (uint8[3, 5] y) {{ {_BYTES} y = BitShift <direction = "LEFT"> (u, u) }}'),
    OlderCase("Compress", (9, 11), "(float[3, 4] x) => (float[2, 4] y) { c = Constant <value = bool[3] {1, 0, 1}> () y = Compress <axis = 0> (x, c) }"),
    OlderCase("CumSum", (11,), "(float[3, 4] x) => (float[3, 4] y) { a = Constant <value = int32 {1}> () y = CumSum <exclusive = 1, reverse = 1> (x, a) }"),
    OlderCase("DeformConv", (19,), "(float[1, 2, 4, 4] x, float[3, 2, 2, 2] w, float[1, 8, 3, 3] o) => (float[1, 3, 3, 3] y) { y = DeformConv(x, w, o) }"),
    OlderCase("DequantizeLinear", (10, 13), f"(float[3, 5] x) => (float[3, 5] y) {{ {_BYTES} s = Constant <value = float {{0.25}}> () z = Constant <value = uint8 {{3}}> () y = DequantizeLinear(u, s, z) }}", peer=True),
    OlderCase("DequantizeLinear", (19, 21, 23, 24, 25), f"(float[3, 5] x) => (float[3, 5] y) {{ {_BYTES} s = Constant <value = float {{0.25}}> () z = Constant <value = uint8 {{3}}> () y = DequantizeLinear(u, s, z) }}"),
    OlderCase("DequantizeLinear", (13,), f"(float[3, 5] x) => (float[3, 5] y) {{ {_BYTES} s = Constant <value = float[3] {{0.25, 0.5, 2.0}}> () z = Constant <value = uint8[3] {{3, 0, 1}}> () y = DequantizeLinear <axis = 0> (u, s, z) }}", peer=True),
    OlderCase("DequantizeLinear", (19, 21, 23, 24, 25), f"(float[3, 5] x) => (float[3, 5] y) {{ {_BYTES} s = Constant <value = float[3] {{0.25, 0.5, 2.0}}> () z = Constant <value = uint8[3] {{3, 0, 1}}> () y = DequantizeLinear <axis = 0> (u, s, z) }}"),
    OlderCase("QuantizeLinear", (13, 19, 21, 23, 24, 25), "(float[3, 5] x) => (uint8[3, 5] y) { s = Constant <value = float[5] {0.25, 0.5, 2.0, 0.03, 1.0}> () z = Constant <value = uint8[5] {128, 0, 255, 100, 7}> () y = QuantizeLinear <axis = 1> (x, s, z) }"),
    OlderCase("QLinearMatMul", (10,), f"(float[3, 5] x, uint8[5, 2] w) => (uint8[3, 2] y) {{ {_BYTES} s = Constant <value = float {{0.25}}> () z = Constant <value = uint8 {{3}}> () y = QLinearMatMul(u, s, z, w, s, z, s, z) }}"),
    OlderCase("Einsum", (12,), '(float[2, 3, 4] x, float[2, 4, 5] w) => (float[2, 3, 5] y) { y = Einsum <equation = "bij,bjk->bik"> (x, w) }'),
    _compared("Equal", (7,), "int32"),
    _compared("Equal", (11,)),
    *(_compared(op, (7, 9)) for op in ("Greater", "Less")),
    *(_compared(op, (12,)) for op in ("GreaterOrEqual", "LessOrEqual")),
    OlderCase("EyeLike", (9,), "(float[3, 5] x) => (float[3, 5] y) { y = EyeLike <k = 1> (x) }"),
    _recurrent("RNN", 1, "y, h"),
    _recurrent("GRU", 3, "y, h"),
    _recurrent("LSTM", 4, "y, h"),
    OlderCase("Gather", (11,), f"(float[3, 4] x) => (float[2, 2, 4] y) {{ {_PLACES} y = Gather <axis = -2> (x, i) }}"),
    OlderCase("GatherElements", (11,), f"(float[3, 4] x) => (float[2, 2] y) {{ {_PLACES} y = GatherElements <axis = 0> (x, i) }}", peer=True),
    OlderCase("GatherND", (11, 12), f"(float[3, 4] x) => (float[2] y) {{ {_PLACES} y = GatherND(x, i) }}"),
    OlderCase("GatherND", (12,), "(float[2, 3, 4] x) => (float[2, 4] y) { i = Constant <value = int64[2, 1] {2, -1}> () y = GatherND <batch_dims = 1> (x, i) }"),
    OlderCase("GlobalLpPool", (2,), "(float[2, 3, 4, 5] x) => (float[2, 3, 1, 1] y) { y = GlobalLpPool <p = 3> (x) }", peer=True),
    OlderCase("LpPool", (2, 11, 18), "(float[2, 3, 6, 5] x) => (float[2, 3, 3, 2] y) { y = LpPool <kernel_shape = [2, 3], strides = [2, 2], p = 1> (x) }"),
    OlderCase("LpNormalization", (1,), "(float[3, 4] x) => (float[3, 4] y) { y = LpNormalization <axis = 0, p = 1> (x) }", peer=True),
    *(OlderCase("GridSample", (v,), f'(float[1, 2, 4, 5] x, float[1, 3, 3, 2] g) => (float[1, 2, 3, 3] y) {{ y = GridSample <mode = "{mode}", padding_mode = "border"> (x, g) }}', peer=v == 16) for v, mode in ((16, "bilinear"), (20, "linear"))),
    OlderCase("Hardmax", (1, 11), "(float[2, 3, 4] x) => (float[2, 3, 4] y) { y = Hardmax(x) }", peer=True),
    OlderCase("Hardmax", (1, 11), "(float[2, 3, 4] x) => (float[2, 3, 4] y) { y = Hardmax <axis = 2> (x) }", peer=True),
    OlderCase("If", (1, 11, 13, 16, 19, 21, 23, 24, 25), _IF),
    OlderCase("Loop", (1, 11, 13, 16, 19, 21, 23, 24, 25), _LOOP),
    OlderCase("Scan", (9, 11, 16, 19, 21, 23, 24, 25), _SCAN),
    OlderCase("IsInf", (10,), "(float[3, 5] x) => (bool[3, 5] y) { z = Constant <value = float {0.0}> () r = Relu(x) d = Div(x, z) y = IsInf <detect_negative = 0> (d) }"),
    OlderCase("IsNaN", (9, 13), "(float[3, 5] x) => (bool[3, 5] y) { l = Log(x) y = IsNaN(l) }"),
    OlderCase("MaxUnpool", (9, 11), "(float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y) { p, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x) y = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]> (p, i) }"),
    OlderCase("Mod", (10,), "(float[3, 5] x, float[5] w) => (float[3, 5] y) { y = Mod <fmod = 1> (x, w) }"),
    OlderCase("NegativeLogLikelihoodLoss", (12,), '(float[3, 5] x) => (float[3] y) { t = Constant <value = int64[3] {1, 0, 4}> () y = NegativeLogLikelihoodLoss <reduction = "none"> (x, t) }'),
    OlderCase("OneHot", (9, 11), f"(float[3] x) => (float[3, 4] y) {{ {_BYTES} i = Cast <to = 7> (u) d = Constant <value = int64 {{4}}> () v = Constant <value = float[2] {{-1.0, 2.0}}> () y = OneHot(i, d, v) }}"),
    OlderCase("OptionalHasElement", (18,), "(float[3] x) => (bool y) { y = OptionalHasElement(x) }"),
    *_reduced("ReduceL1"),
    *_reduced("ReduceL2"),
    *_reduced("ReduceSumSquare"),
    *_reduced("ReduceProd"),
    *_reduced("ReduceLogSum", _POSITIVE),
    *_reduced("ReduceLogSumExp"),
    OlderCase("ReverseSequence", (10,), "(float[4, 3] x) => (float[4, 3] y) { n = Constant <value = int64[3] {1, 3, 4}> () y = ReverseSequence(x, n) }"),
    *(OlderCase("RoiAlign", v, f"(float[1, 2, 6, 6] x) => (float[2, 2, 2, 3] y) {{ b = Constant <value = float[2, 4] {{0.0, 0.5, 4.0, 5.0, 1.0, 1.0, 3.5, 4.5}}> () i = Constant <value = int64[2] {{0, 0}}> () y = RoiAlign <output_height = 2, output_width = 3, sampling_ratio = 2, spatial_scale = 0.9 {mode}> (x, b, i) }}", peer=True)
      for v, mode in (((10, 16), ""), ((16,), ', coordinate_transformation_mode = "output_half_pixel"'))),
    OlderCase("ScatterElements", (11, 13, 16), f"(float[3, 4] x, float[2, 2] u) => (float[3, 4] y) {{ {_PLACES} y = ScatterElements <axis = 1> (x, i, u) }}"),
    OlderCase("ScatterElements", (16,), f'(float[3, 4] x, float[2, 2] u) => (float[3, 4] y) {{ {_PLACES} y = ScatterElements <axis = 1, reduction = "add"> (x, i, u) }}'),
    OlderCase("ScatterND", (11, 13, 16), f"(float[3, 4] x, float[2] u) => (float[3, 4] y) {{ {_PLACES} y = ScatterND(x, i, u) }}"),
    OlderCase("ScatterND", (16,), f'(float[3, 4] x, float[2] u) => (float[3, 4] y) {{ {_PLACES} y = ScatterND <reduction = "mul"> (x, i, u) }}'),
    OlderCase("TopK", (1,), "(float[3, 5] x) => (float[3, 2] y, int64[3, 2] i) { y, i = TopK <axis = 1, k = 2> (x) }"),
    OlderCase("TopK", (10, 11), "(float[3, 5] x) => (float[2, 5] y, int64[2, 5] i) { k = Constant <value = int64[1] {2}> () y, i = TopK <axis = 0> (x, k) }"),
    OlderCase("TopK", (11,), "(float[3, 5] x) => (float[3, 2] y, int64[3, 2] i) { k = Constant <value = int64[1] {2}> () y, i = TopK <largest = 0> (x, k) }"),
    OlderCase("NonZero", (9,), "(float[3, 5] x) => (int64[2, n] y) { r = Relu(x) y = NonZero(r) }"),
    OlderCase("NonMaxSuppression", (10,), "(float[1, 6, 4] x, float[1, 2, 6] s) => (int64[n, 3] y) { m = Constant <value = int64[1] {2}> () o = Constant <value = float[1] {0.1}> () y = NonMaxSuppression <center_point_box = 1> (x, s, m, o) }"),
)  # fmt: skip
