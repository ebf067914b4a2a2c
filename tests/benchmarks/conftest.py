"""Quick and alone: no peak and no pace is measured, blocks are short, and the cache is the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import machine_pace, run_facts
from tests.benchmarks.tiny_model import save_tiny


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(run_facts, "_peak", lambda threads: 100.0)
    monkeypatch.setattr(machine_pace, "_kernel", lambda threads: lambda: 1e-4)
    monkeypatch.setattr("benchmarks.interleave._BLOCK_SECONDS", 0.0)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "tiny.onnx")
