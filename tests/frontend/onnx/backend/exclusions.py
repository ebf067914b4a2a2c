"""EXCLUSIONS: cases of ONNX's own suite that convc does not pass, by pattern, each with its reason. The list only shrinks."""

from __future__ import annotations

from fnmatch import fnmatch

__all__ = ["EXCLUSIONS", "excluded"]

# (pattern of case names, reason)
EXCLUSIONS = (
    ("*FLOAT8*", "8-bit floats are no element type of convc"),
    ("*FLOAT4*", "4-bit floats are no element type of convc"),
    ("*INT4*", "4-bit integers are no element type of convc"),
    ("*INT2*", "2-bit integers are no element type of convc"),
    ("*_int4*", "4-bit integers are no element type of convc"),
    ("*_uint4*", "4-bit integers are no element type of convc"),
    ("*_int2*", "2-bit integers are no element type of convc"),
    ("*_uint2*", "2-bit integers are no element type of convc"),
    ("*_e4m3fn*", "8-bit floats are no element type of convc"),
    ("*_e5m2*", "8-bit floats are no element type of convc"),
    ("*float4e2m1*", "4-bit floats are no element type of convc"),
    ("*e8m0*", "8-bit exponents are no element type of convc"),
    ("test_attention*bf16*", "TVM cannot store what Where chooses between bfloat16 values"),
    ("test_nonmaxsuppression*", "the result's shape depends on data"),
    ("test_unique*", "the result's shape depends on data"),
    ("test_nonzero*", "the result's shape depends on data"),
    ("test_bernoulli*", "random numbers"),
    ("test_image_decoder*", "decoding of image files"),
    ("test_tfidfvectorizer*", "text features"),
    ("test_det_*", "determinants are not implemented"),
    ("test_mel*", "no converter for a matrix that is constant"),
    ("simple/test_sequence_model*", "sequences"),
    ("test_scan_sum", "Scan-8, which has a batch axis and sequence lengths"),
    ("test_bitcast_bool_*", "bit casts of bools"),
    ("test_range_*_expanded", "a Loop whose trip count is computed from floats known at run time"),
    ("test_linear_attention*", "onnx's inliner fails on operands that are left out"),
    ("test_causal_conv_with_state*past_state*", "onnx's inliner fails on operands that are left out"),
    ("test_attention*nonpad*", "onnx's inliner fails on operands that are left out"),
    ("test_attention*padded_kv*", "onnx's inliner fails on operands that are left out"),
    ("test_attention*with_past*", "onnx's inliner fails on operands that are left out"),
    ("test_attention_local_window*", "onnx's inliner fails on operands that are left out"),
)  # fmt: skip


def excluded(name: str) -> str:
    """Return why a case is excluded, or ""."""
    return next((reason for pattern, reason in EXCLUSIONS if fnmatch(name, pattern)), "")
