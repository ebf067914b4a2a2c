"""Broken files are taken or refused with words: never a crash, a hang, or boundless memory. A slice on every run, 10,000 behind slow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from convc.errors import ConvcError
from convc.frontend.onnx import from_onnx
from convc.schedules import scalar
from tests.frontend.onnx.fuzz import compiling
from tests.frontend.onnx.fuzz.mutations import mutant

# Seeds that once went wrong: no outputs, names that are no text, parameters of other lengths, shapes and versions beyond integers; then
# old opsets with types that contradict each other, an operand left out, element types that do not exist, a node without outputs, a body
# with an unknown operator in it.
FOUND = (91, 120, 192, 258, 1113, 1126, 20014, 428, 905, 2743, 4422, 8568)
ROOT = Path(__file__).parents[3]


def _wrong(first: int, count: int, seconds: float, module: str = "") -> list[str]:
    """Return what went wrong with the mutants of some seeds, in a process of its own."""
    name = f"tests.frontend.onnx.fuzz{module}"
    command = [sys.executable, "-m", name, str(first), str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    lines = done.stdout.splitlines()
    wrong = [line for line in lines if line.startswith("WRONG")]
    if done.returncode or not lines[-1].startswith("done"):
        wrong.append(f"died with {done.returncode} at {lines[-1]}: {done.stderr[-500:]}")
    return wrong


@pytest.mark.parametrize("seed", FOUND)
def test_what_once_went_wrong_is_refused(seed: int) -> None:
    _, data = mutant(seed)
    with pytest.raises(ConvcError, match=r"must|cannot"):
        from_onnx(onnx.load_model_from_string(data))


def test_a_slice_of_the_mutants() -> None:
    assert _wrong(20_000, 40, 300) == []


def test_a_slice_of_what_survives_compiles_and_is_right() -> None:
    """Operators in one or two places other ones: what the importer takes must compile, run, and be what float64 gives."""
    assert _wrong(20_000, 12, 900, ".compiling") == []


def test_a_wrong_kernel_of_a_survivor_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The test above can fail."""
    right = scalar.UNARY["tanh"]
    monkeypatch.setitem(scalar.UNARY, "tanh", lambda x: scalar.map_elements(right(x), lambda v: v * 1.01))  # fmt: skip
    path = tmp_path / "tanh.onnx"
    onnx.save(onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 18]> g (float[3] x) => (float[3] y) { y = Tanh(x) }'), path)  # fmt: skip
    assert compiling.tried(path).startswith("'y' is 0.01 off")
    monkeypatch.undo()
    assert compiling.tried(path) == "right"


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 4_000, 500))
def test_thousands_of_survivors(first: int) -> None:
    assert _wrong(first, 500, 3600, ".compiling") == []


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 10_000, 500))
def test_ten_thousand_mutants(first: int) -> None:
    assert _wrong(first, 500, 3600) == []
