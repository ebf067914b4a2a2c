"""`convc verify --per-layer` with a kernel that is made wrong: the layer is named, and the inputs that show it are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from convc.npz import load_npz
from convc.schedules import scalar
from tests.cli.command_line import Result

NET = """graph @net {
  %x = input : f32[1,4,8,8]
  %w = constant splat(0.25) : f32[4,4,3,3]
  %first = conv(%x, %w) {pads = [1, 1, 1, 1]}
  %bent = tanh(%first)
  %second = conv(%bent, %w) {pads = [1, 1, 1, 1]}
  %last = exp(%second)
  return %last as "y"
}
"""


def test_a_broken_kernel_is_named_and_its_inputs_are_kept(
    convc: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = scalar.UNARY["tanh"]
    monkeypatch.setitem(
        scalar.UNARY, "tanh", lambda x: scalar.map_elements(right(x), lambda v: v * 1.01)
    )
    model, module = tmp_path / "net.cvc", tmp_path / "net.so"
    model.write_text(NET, encoding="utf-8")
    assert convc("compile", model, "-o", module, "--threads", "1", "-q", "--no-verify").code == 0
    result = convc("verify", module, model, "-n", "1", "--per-layer")
    assert result.code == 4
    assert "The first layer that goes wrong is 'bent' (tanh): error 0.01" in result.err
    kept = tmp_path / "net-failing" / "inputs.npz"
    assert str(kept) in result.err.replace("\n", "")
    assert load_npz(kept)["x"].shape == (1, 4, 8, 8)
    # The kernel mended and the module made anew, the same inputs pass.
    monkeypatch.undo()
    assert convc("compile", model, "-o", module, "--threads", "1", "-q", "--no-verify").code == 0
    assert convc("verify", module, model, "--inputs", kept, "-q").code == 0
