"""python -m benchmarks.families.checking FILE: compile one file and compare it, in a process that ends with its memory."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

import numpy as np

from benchmarks.families.row import TOLERANCE
from convc.compiler import compile
from convc.errors import InvalidModelError, ToolchainError
from convc.frontend.onnx import from_onnx
from convc.inputs import random_inputs
from convc.ir.reference import interpret
from convc.onnxruntime_peer import OnnxRuntimePeer
from convc.verify import compare

__all__ = ["check"]


def _peer_errors(
    path: Path,
    fed: dict[str, np.ndarray],
    ours: dict[str, np.ndarray],
    exact: dict[str, np.ndarray],
) -> dict[str, object]:
    """Return how far we are from ONNX Runtime, and how far it is from float64 itself; nothing without it."""
    try:
        theirs = OnnxRuntimePeer(path).run(fed)
    except (ToolchainError, InvalidModelError):
        return {}
    return {
        "peer_error": max(
            compare(n, ours[n], theirs[n], TOLERANCE).max_relative_error for n in ours
        ),
        "peer_exact": max(
            compare(n, theirs[n], exact[n], TOLERANCE).max_relative_error for n in ours
        ),
    }


def _processor_seconds() -> float:
    """Return the seconds of all cores that this process and its children had: other work on the machine does not move them much."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def check(path: Path) -> dict[str, object]:
    """Return the processor's seconds to compile a file for one thread, and the errors of one random input."""
    began = _processor_seconds()
    graph = from_onnx(path)
    model = compile(graph, threads=1)
    seconds = _processor_seconds() - began
    fed = random_inputs(model.manifest.inputs, 0)
    ours = {n: np.asarray(v) for n, v in model.run(fed).items()}
    exact = interpret(graph, fed)
    for name, value in exact.items():
        # Random weights must not have lost the data: equal or infinite outputs would prove nothing.
        if not np.isfinite(value).all() or np.ptp(value) == 0:
            return {"failure": f"output '{name}' must be finite and not constant in float64."}
    error = max(compare(n, ours[n], exact[n], TOLERANCE).max_relative_error for n in exact)
    return {
        "compile_seconds": round(seconds, 1),
        "error": error,
        **_peer_errors(path, fed, ours, exact),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(check(Path(sys.argv[1]))) + "\n")
