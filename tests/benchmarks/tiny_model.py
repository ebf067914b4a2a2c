"""A model of two nodes, with a batch of the caller's choice."""

from __future__ import annotations

from pathlib import Path

import onnx

__all__ = ["save_tiny"]

TINY = """
<ir_version: 8, opset_import: ["": 18]>
tiny (float[{batch}, 8, 6, 6] x) => (float[{batch}, 8, 6, 6] y) <float[8, 8, 1, 1] w = {{{weights}}}> {{
  h = Conv(x, w)
  y = Relu(h)
}}
"""


def save_tiny(path: Path, batch: str = "1") -> Path:
    weights = ", ".join(str((7 * i) % 11 - 5) for i in range(64))
    onnx.save(onnx.parser.parse_model(TINY.format(batch=batch, weights=weights)), path)
    return path
