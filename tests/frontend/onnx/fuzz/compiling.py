"""`python -m tests.frontend.onnx.fuzz.compiling FIRST COUNT`: import, compile and run mild mutants; a line for each that goes wrong.

What survives the import must compile, run, and give what float64 gives. A child of the test, as `__main__`.
"""

from __future__ import annotations

import signal
import sys
import traceback
from pathlib import Path

import numpy as np

from convc.compiler import compile
from convc.frontend.onnx import from_onnx
from convc.inputs import random_inputs
from convc.ir.graph import Graph
from convc.ir.reference import interpret
from convc.verify import compare
from tests.frontend.onnx.fuzz.__main__ import LIMIT_BYTES, REFUSALS
from tests.frontend.onnx.fuzz.case_mutants import case_mutant
from tests.frontend.onnx.fuzz.seeds import try_seeds

# Of this process: a machine with other work only takes longer.
LIMIT_SECONDS = 120
# Operands larger than a cache are no other code, and a minute of NumPy.
_MOST_ELEMENTS = 1 << 22
# float32's, where no case sums more than some hundred products; and a few roundings of half types.
_TOLERANCES = {"float16": 2e-2, "bfloat16": 6e-2}


def _alarm(number: int, frame: object) -> None:
    raise TimeoutError(f"took more than {LIMIT_SECONDS} s of a core")


def _differs(graph: Graph) -> str:
    """Return what a graph's compiled module gives that float64 does not."""
    made = compile(graph, threads=1)
    fed = random_inputs(made.manifest.inputs, 0)
    with np.errstate(all="ignore"):
        ours, exact = made.run(fed), interpret(graph, fed)
    for output in graph.outputs:
        y, reference = np.asarray(ours[output.name]), exact[output.name]
        if y.shape != reference.shape:
            return f"'{output.name}' has shape {y.shape}, not {reference.shape}"
        tolerance = _TOLERANCES.get(graph[output.value].type.dtype, 1e-4)
        error = compare(output.name, y, reference, tolerance)
        if not error.max_relative_error <= tolerance:
            return f"'{output.name}' is {error.max_relative_error:.2g} off, {error.mismatches} of {error.elements}"
    return ""


def tried(path: Path) -> str:
    """Return `right`, `refused`, `too large`, or what goes wrong with a file."""
    signal.setitimer(signal.ITIMER_PROF, LIMIT_SECONDS)
    try:
        try:
            graph = from_onnx(path)
        except REFUSALS as error:
            return "refused" if str(error).strip() else "refused without a word"
        if sum(n.type.size for n in graph.nodes) > _MOST_ELEMENTS:
            return "too large"
        return _differs(graph) or "right"
    except BaseException as error:
        # Refusals, too: there is nothing to refuse in what was imported.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {str(error)[:300]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def main(first: int, count: int) -> None:
    """Try the seeds from `first` on."""
    signal.signal(signal.SIGPROF, _alarm)
    try_seeds(
        range(first, first + count),
        case_mutant,
        tried,
        ("right", "refused", "too large"),
        LIMIT_BYTES,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
