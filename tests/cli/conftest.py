"""Small models on disk, and the command line run in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from convc.cli import invoke
from tests.cli.command_line import DYNAMIC, NET, UNSUPPORTED, Result


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
    assert (
        invoke(["compile", str(models / "tiny.cvc"), "-o", str(path), "-q", "--threads", "1"]) == 0
    )
    return path
