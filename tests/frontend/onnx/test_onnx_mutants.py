"""Broken files are taken or refused with words: never a crash, a hang, or boundless memory. A slice on every run, 10,000 behind slow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from convc.errors import ConvcError
from convc.frontend.onnx import from_onnx
from tests.frontend.onnx.fuzz.mutations import mutant

# Seeds that once went wrong: no outputs, names that are no text, parameters of other lengths, shapes and versions beyond integers; then
# old opsets with types that contradict each other, an operand left out, element types that do not exist, a node without outputs, a body
# with an unknown operator in it.
FOUND = (91, 120, 192, 258, 1113, 1126, 20014, 428, 905, 2743, 4422, 8568)
ROOT = Path(__file__).parents[3]


def _wrong(first: int, count: int, seconds: float) -> list[str]:
    """Return what went wrong with the mutants of some seeds, in a process of its own."""
    command = [sys.executable, "-m", "tests.frontend.onnx.fuzz", str(first), str(count)]
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


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 10_000, 500))
def test_ten_thousand_mutants(first: int) -> None:
    assert _wrong(first, 500, 3600) == []
