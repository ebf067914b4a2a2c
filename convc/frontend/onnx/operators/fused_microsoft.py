"""Operators of com.microsoft that ONNX Runtime writes for several of ONNX's own when it saves an optimised model.

Each is written as those it stands for, so that a model means the same whether it was saved before or behind ONNX Runtime's
optimiser (`SessionOptions.optimized_model_filepath`, up to ORT_ENABLE_EXTENDED; beyond that layouts are one machine's).

Source:
    github.com/microsoft/onnxruntime, docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.model_file import MICROSOFT
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.operators.activations import swish, tanh_gelu
from convc.frontend.onnx.operators.conv import conv
from convc.frontend.onnx.operators.linear import gemm, scaled_matmul
from convc.frontend.onnx.operators.norms import along_last
from convc.frontend.onnx.refusal import Unsupported
from convc.ir import Step
from convc.ir.ops.elementwise import UNARY
from convc.ir.ops.linear import ReduceAttributes

__all__ = ["ROWS"]

# Names of activations -> ours, and ONNX's defaults of their parameters.
_ACTIVATIONS: Final[dict[str, tuple[str, tuple[float, ...]]]] = {
    "Relu": ("relu", ()),
    "Sigmoid": ("sigmoid", ()),
    "Tanh": ("tanh", ()),
    "Softplus": ("softplus", ()),
    "HardSwish": ("hard_swish", ()),
    "LeakyRelu": ("leaky_relu", (0.01,)),
    "Elu": ("elu", (1.0,)),
    "HardSigmoid": ("hard_sigmoid", (0.2, 0.5)),
    "Clip": ("clip", (float("-inf"), float("inf"))),
}


def _activation(node: OperatorNode, given: tuple[float, ...]) -> tuple[Step, ...]:
    """Return the activation that an attribute names, with its parameters as far as they are given; none for ""."""
    name = node.attributes.text("activation", "", ("", *_ACTIVATIONS))
    if not name:
        return ()
    ours, defaults = _ACTIVATIONS[name]
    return (Step(ours, (*given, *defaults[len(given) :])[: len(defaults)]),)


def fused_conv(node: OperatorNode) -> str:
    """Write FusedConv: activation(conv(X, W) + B + Z)."""
    behind = _activation(node, node.attributes.reals("activation_params", ()))
    if not node.has(3):
        return conv(node, behind=behind)
    return conv(node, (node.value(3),), (Step("add"), *behind))


def fused_gemm(node: OperatorNode) -> str:
    """Write FusedGemm: activation(alpha A' B' + beta C)."""
    a = node.attributes
    given = [a.real(n) for n in ("activation_alpha", "activation_beta", "activation_gamma") if n in a]  # fmt: skip
    behind = _activation(node, tuple(given))
    if not behind:
        return gemm(node)
    (step,) = behind
    y = gemm(node.inner("gemm"))
    return node.emit(step.name, [y], UNARY[step.name].attributes(*step.arguments))


def fused_matmul(node: OperatorNode) -> str:
    """Write FusedMatMul: alpha A' B'."""
    a = node.attributes
    for name in ("transBatchA", "transBatchB"):
        a.only(name, 0)
    return scaled_matmul(node, a.flag("transA", False), a.flag("transB", False), a.real("alpha", 1.0))  # fmt: skip


def gelu(node: OperatorNode) -> str:
    """Write Gelu: x/2 * (1 + erf(x / sqrt 2))."""
    return node.emit("gelu", [node.value()])


def bias_gelu(node: OperatorNode) -> str:
    """Write BiasGelu, whose bias is added first."""
    return node.emit("gelu", [_sum(node, (0, 1))])


def fast_gelu(node: OperatorNode) -> str:
    """Write FastGelu, whose bias is added first if there is one: the approximation by tanh."""
    return tanh_gelu(node, _sum(node, (0,), 1))


def _sum(node: OperatorNode, needed: tuple[int, ...], optional: int | None = None) -> str:
    """Return the sum of the operands that an operator needs, and of one that it may have."""
    first, *others = map(node.value, needed)
    if optional is not None and node.has(optional):
        others.append(node.value(optional))
    for other in others:
        first = node.step("add", [first, other])
    return first


def skip_layer_normalization(node: OperatorNode) -> tuple[str, ...]:
    """Write SkipLayerNormalization: the sum of input, skip and bias, and that normalised along its last axis."""
    total = _sum(node, (0, 1), 4)
    wide, scale = (node.cast(x, _wide(node)) for x in (total, node.value(2)))
    bias = node.cast(node.value(3), _wide(node)) if node.has(3) else None
    y = along_last(node.inner("norm"), wide, scale, bias, node.attributes.real("epsilon", 1e-12))
    return _with_sum(node, y, total)


def skip_simplified_layer_normalization(node: OperatorNode) -> tuple[str, ...]:
    """Write SkipSimplifiedLayerNormalization: the same sum over its root mean square."""
    total = _sum(node, (0, 1), 3)
    x = node.cast(total, _wide(node))
    square = node.step("mul", [x, x])
    mean = node.step("reduce_mean", [square], ReduceAttributes((node.step_type(x).rank - 1,)))
    epsilon = node.literal(node.attributes.real("epsilon", 1e-12), _wide(node), "epsilon")
    root = node.step("sqrt", [node.step("add", [mean, epsilon])])
    y = node.step("mul", [node.step("div", [x, root]), node.cast(node.value(2), _wide(node))])
    return _with_sum(node, y, total)


def _wide(node: OperatorNode) -> str:
    """Return the type that norms are taken in."""
    return "float64" if node.type().dtype == "float64" else "float32"


def _with_sum(node: OperatorNode, y: str, total: str) -> tuple[str, ...]:
    """Return the results: the norm's, mean and deviation, which only training reads, and the sum."""
    if any(node.outputs[1:3]):
        raise Unsupported("mean and inv_std_var as outputs")
    y = node.cast(y, node.type().dtype)
    return (y, "", "", total)[: len(node.outputs)]


def _row(name: str, convert: Callable[[OperatorNode], str | tuple[str, ...]], note: str = "") -> Converter:  # fmt: skip
    return Converter(name, (1,), convert, note, domain=MICROSOFT)


ROWS: Final = (
    _row("FusedConv", fused_conv),
    _row("FusedGemm", fused_gemm),
    _row("FusedMatMul", fused_matmul, "no transposed batches"),
    _row("TransposeMatMul", fused_matmul),
    _row("Gelu", gelu),
    _row("BiasGelu", bias_gelu),
    _row("FastGelu", fast_gelu),
    _row("QuickGelu", lambda node: swish(node, 1.702)),
    _row("SkipLayerNormalization", skip_layer_normalization),
    _row("SkipSimplifiedLayerNormalization", skip_simplified_layer_normalization),
)
