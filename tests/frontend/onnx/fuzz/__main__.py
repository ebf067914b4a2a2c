"""`python -m tests.frontend.onnx.fuzz FIRST COUNT`: import mutants; write one line for each that is neither taken nor refused.

A child of the test, so that a crash is its death and no more: it writes the seed that it begins with.
"""

from __future__ import annotations

import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

from convc.errors import DTypeError, FrontendError, ShapeError
from convc.frontend.onnx import from_onnx
from tests.frontend.onnx.fuzz.mutations import mutant
from tests.frontend.onnx.fuzz.seeds import try_seeds

# onnx and NumPy take 0.5 GiB of addresses; the light models' own weights are splats.
LIMIT_BYTES = 4 << 30
LIMIT_SECONDS = 30
# What the command line answers with exit code 3.
REFUSALS = (FrontendError, ShapeError, DTypeError)


class _TookTooLong(Exception):  # noqa: N818
    """Raised by the alarm."""


def _alarm(number: int, frame: FrameType | None) -> None:
    raise _TookTooLong


def _tried(path: Path) -> str:
    """Return what came of a file: taken, refused, or what went wrong."""
    signal.alarm(LIMIT_SECONDS)
    try:
        from_onnx(path)
    except REFUSALS as error:
        return "refused" if str(error).strip() else "refused without a word"
    except BaseException as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {str(error)[:200]}"
    finally:
        signal.alarm(0)
    return "taken"


def main(first: int, count: int) -> None:
    """Try the seeds from `first` on."""
    signal.signal(signal.SIGALRM, _alarm)
    try_seeds(range(first, first + count), mutant, _tried, ("taken", "refused"), LIMIT_BYTES)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
