"""com.microsoft's attentions, as ONNX Runtime's optimisers write them for projections, products and a softmax.

    scores = softmax(scale Q K' + mask),  Y = scores V            for each of N heads

Without what a text generator keeps from call to call (past, present, rotary embeddings in the operator).

Source:
    github.com/microsoft/onnxruntime, docs/ContribOperators.md, "Attention", "MultiHeadAttention".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from convc.errors import InvalidModelError
from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.model_file import MICROSOFT
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.refusal import Unsupported
from convc.ir.ops.linear import AxisAttributes
from convc.ir.ops.shape import ReshapeAttributes, SliceAttributes, TransposeAttributes
from convc.ir.types import greatest_finite

__all__ = ["ROWS"]


def multi_head_attention(node: OperatorNode) -> str:
    """Write MultiHeadAttention of query (B, S, D), key (B, L, D) and value (B, L, E), with one bias of D + D + E for them."""
    heads = _heads(node)
    if not node.has(1) or not node.has(2) or node.type(0).rank != 3:
        raise Unsupported(f"packed operands {node.type(0)} (only query, key and value apart)")
    if any(node.type(i).rank not in (3, 4) for i in (1, 2)):
        raise InvalidModelError(f"MultiHeadAttention key and value must have 3 or 4 axes; got {node.type(1)} and {node.type(2)}.")  # fmt: skip
    parts = [node.value(i) for i in range(3)]
    biases = _cut(node, node.value(3), [node.type(0).shape[2]] * 2) if node.has(3) else [""] * 3
    split = [
        x if node.step_type(x).rank == 4 else _split(node, _plus(node, x, bias), heads)
        for x, bias in zip(parts, biases, strict=True)
    ]
    return _attend(node, split, mask=4, added=5)


def attention(node: OperatorNode) -> str:
    """Write Attention of x (B, S, C): query, key and value are x times parts of one matrix, (C, D + D + E)."""
    a = node.attributes
    heads = _heads(node)
    sizes = a.integers("qkv_hidden_sizes", ())
    a.only("do_rotary", 0)
    a.ignore("rotary_embedding_dim", "past_present_share_buffer")  # of what is refused
    if (node.type(0).rank, node.type(1).rank) != (3, 2):
        raise InvalidModelError(f"Attention must have an input of 3 axes and weights of 2; got {node.type(0)} and {node.type(1)}.")  # fmt: skip
    columns = node.type(1).shape[1]
    if (sum(sizes) if len(sizes) == 3 else columns // 3 * 3) != columns:
        raise InvalidModelError(f"Attention weights must have three parts, of qkv_hidden_sizes or equal; got {node.type(1)} and {sizes}.")  # fmt: skip
    product = node.step("matmul", [node.value(0), node.value(1)])
    parts = _cut(node, _plus(node, product, node.value(2) if node.has(2) else ""), sizes[:2] if len(sizes) == 3 else [columns // 3] * 2)  # fmt: skip
    return _attend(node, [_split(node, x, heads) for x in parts], mask=3, added=5)


def _heads(node: OperatorNode) -> int:
    """Return the number of heads, having refused what a text generator keeps."""
    held = {"MultiHeadAttention": (6, 7, 8, 9), "Attention": (4, 6)}[node.op_type]
    if any(node.has(i) for i in held):
        raise Unsupported("keys and values of earlier calls")
    if any(node.outputs[1:]):
        raise Unsupported("keys and values, or scores, as outputs")
    heads = node.attributes.integer("num_heads")
    if heads < 1:
        raise InvalidModelError(f"{node.op_type} num_heads must be 1 or more; got {heads}.")
    return heads


def _plus(node: OperatorNode, x: str, bias: str) -> str:
    return node.step("add", [x, bias]) if bias else x


def _cut(node: OperatorNode, x: str, sizes: Sequence[int]) -> list[str]:
    """Return three parts of the last axis: of these two sizes, and the rest."""
    *front, last = node.step_type(x).shape
    places = (0, sizes[0], sum(sizes), last)
    if min(sizes) < 1 or sum(sizes) >= last:
        raise InvalidModelError(f"{node.op_type} must have room for three parts, the first two of {list(sizes)}; got {node.step_type(x)}.")  # fmt: skip
    return [
        node.step(
            "slice",
            [x],
            SliceAttributes((*[0] * len(front), low), (*front, high), (1,) * (len(front) + 1)),
        )
        for low, high in itertools.pairwise(places)
    ]


def _split(node: OperatorNode, x: str, heads: int) -> str:
    """Return (B, S, N * H) as (B, N, S, H)."""
    batch, length, width = node.step_type(x).shape
    if width % heads:
        raise InvalidModelError(f"{node.op_type} num_heads must divide {width}; got {heads}.")
    apart = node.step("reshape", [x], ReshapeAttributes((batch, length, heads, width // heads)))
    return node.step("transpose", [apart], TransposeAttributes((0, 2, 1, 3)))


def _attend(node: OperatorNode, parts: Sequence[str], mask: int, added: int) -> str:
    """Write the products and the softmax of query, key and value (B, N, S or L, H); a mask and what is added are inputs."""
    query, key, value = parts
    dtype = node.step_type(query).dtype
    batch, heads, length, width = node.step_type(query).shape
    keys = node.step_type(key).shape[2]
    given = node.attributes.real("scale", 0.0)
    scale = node.literal(given or 1 / math.sqrt(width), dtype, "scale")
    filtered = node.attributes.real("mask_filter_value", -10000.0)
    across = node.step("transpose", [key], TransposeAttributes((0, 1, 3, 2)))
    scores = node.step("matmul", [node.step("mul", [query, scale]), across])
    if node.has(added):
        scores = node.step("add", [scores, node.value(added)])
    if node.has(mask):
        scores = node.step("add", [scores, _masked(node, mask, (batch, keys), filtered, dtype)])
    if node.attributes.flag("unidirectional", False):
        later = np.triu(np.full((length, keys), -greatest_finite(dtype)), 1 + keys - length)
        scores = node.step("add", [scores, node.literal(later, dtype, "later")])
    weights = node.step("softmax", [scores], AxisAttributes(3))
    heads_apart = node.step("matmul", [weights, value])
    rows = node.step("transpose", [heads_apart], TransposeAttributes((0, 2, 1, 3)))
    return node.emit(
        "reshape",
        [rows],
        ReshapeAttributes((batch, length, heads * node.step_type(value).shape[3])),
    )


def _masked(node: OperatorNode, index: int, shape: tuple[int, int], filtered: float, dtype: str) -> str:  # fmt: skip
    """Return what is added to scores: nothing for keys whose mask (B, L) is not zero."""
    if node.type(index).shape != shape:
        raise Unsupported(f"a mask {node.type(index)} (only one value a key, {shape})")
    zero = node.literal(0, node.type(index).dtype, "masked")
    left_out = node.step("equal", [node.value(index), zero])
    row = node.step("where", [left_out, node.literal(filtered, dtype, "filter"), node.literal(0.0, dtype, "kept")])  # fmt: skip
    return node.step("reshape", [row], ReshapeAttributes((shape[0], 1, 1, shape[1])))


NOTE: Final = "nothing kept from call to call"

ROWS: Final = (
    Converter("MultiHeadAttention", (1,), multi_head_attention, NOTE, domain=MICROSOFT),
    Converter("Attention", (1,), attention, NOTE, domain=MICROSOFT),
)
