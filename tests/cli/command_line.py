"""Small models as text, and what one command answered."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

NET = """
graph @tiny {
  %x = input : f32[1,4,8,8]
  %w = constant splat(0.25) : f32[8,4,3,3]
  %b = constant splat(0.5) : f32[8]
  %c = conv(%x, %w, %b) {pads = [1, 1, 1, 1], epilogue = [bias]} : f32[1,8,8,8]
  %r = relu(%c) : f32[1,8,8,8]
  %m = reduce_mean(%r) {axes = [2, 3]} : f32[1,8,1,1]
  return %m as "y"
}
"""

# A batch that must be bound, two operators that nobody knows, and a file that is no model.
DYNAMIC = """
<ir_version: 8, opset_import: ["": 18]>
dynamic (float[N, 3, 6, 6] image) => (float[N, 3, 6, 6] y) { y = Relu(image) }
"""
UNSUPPORTED = """
<ir_version: 8, opset_import: ["": 18, "acme": 1]>
unsupported (float[1, 4] x) => (float[1, 4] y) { a = acme.Foo(x) b = Relu(a) y = acme.Bar(b) }
"""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout; anything else there fails."""
        return json.loads(self.out)


def error_of(result: Result) -> tuple[int, str, str]:
    """Return exit code, kind and message of the error in a JSON document, which is all that was printed."""
    error = result.document["error"]
    assert result.code == error["exit"]
    assert result.err == ""
    return error["exit"], error["kind"], error["message"]
