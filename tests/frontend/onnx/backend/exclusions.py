"""EXCLUSIONS: cases of ONNX's own suite that convc does not pass, by pattern, each with its reason. The list only shrinks."""

from __future__ import annotations

from fnmatch import fnmatch

__all__ = ["EXCLUSIONS", "excluded"]

# (pattern of case names, reason)
EXCLUSIONS = (
    ("test_bernoulli*", "random numbers"),
    ("test_image_decoder*", "decoding of image files"),
    ("test_scan_sum", "Scan-8, which has a batch axis and sequence lengths"),
)  # fmt: skip


def excluded(name: str) -> str:
    """Return why a case is excluded, or ""."""
    return next((reason for pattern, reason in EXCLUSIONS if fnmatch(name, pattern)), "")
