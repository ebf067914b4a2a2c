"""ONNX Runtime: CPU provider, all graph optimisations (its default), one inter-op thread."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.onnx_file import OnnxFile
from benchmarks.peers.peer import Array, Infer, Peer
from convc.onnxruntime_peer import OnnxRuntimePeer

__all__ = ["ROW", "KernelProfile"]


def _load(model: OnnxFile, threads: int) -> Infer:
    session = OnnxRuntimePeer(model.path, threads).session
    names = [t.name for t in model.inputs]

    def infer(inputs: Sequence[Array]) -> Sequence[Array]:
        return list(map(np.asarray, session.run(None, dict(zip(names, inputs, strict=True)))))

    return infer


ROW = Peer("onnxruntime", ("onnxruntime",), _load)


class KernelProfile:
    """A session that records how long its kernels take, by ONNX Runtime's own clock.

    It is one apart from the session that is timed as a whole, since recording costs a few microseconds a node.
    """

    def __init__(self, model: OnnxFile, threads: int, folder: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(str(model.path), options, providers=providers)
        self._names = [t.name for t in model.inputs]

    def infer(self, inputs: Sequence[Array]) -> None:
        """Run once."""
        self._session.run(None, dict(zip(self._names, inputs, strict=True)))

    def finish(self, operators: Sequence[str], calls: Sequence[int]) -> float | None:
        """Return the median seconds of the kernels of these operators in these of its calls; the session ends.

        None if there was none, or not one in each call.
        """
        events = json.loads(Path(self._session.end_profiling()).read_text())
        times = [
            event["dur"] * 1e-6
            for event in events
            if event.get("cat") == "Node" and event["args"].get("op_name") in operators
        ]
        made = max(calls, default=-1) + 1
        return statistics.median(times[c] for c in calls) if made and len(times) >= made else None
