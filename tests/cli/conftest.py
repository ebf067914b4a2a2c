"""Small models on disk, and the command line run in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest

from convc.cli import invoke

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


@pytest.fixture
def convc(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def run(*arguments: object) -> Result:
        capsys.readouterr()
        code = invoke([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "tiny.cvc").write_text(NET)
    (folder / "broken.cvc").write_text("graph @g { %x = input : f32[1 }")
    (folder / "broken.onnx").write_bytes(b"no protobuf \xff\xff")
    for name, text in (("dynamic", DYNAMIC), ("unsupported", UNSUPPORTED)):
        onnx.save(onnx.parser.parse_model(text), folder / f"{name}.onnx")
    return folder


@pytest.fixture(scope="session")
def module(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny graph compiled by the command line."""
    path = tmp_path_factory.mktemp("modules") / "tiny.so"
    assert invoke(["compile", str(models / "tiny.cvc"), "-o", str(path), "-q", "--threads", "1"]) == 0
    return path
