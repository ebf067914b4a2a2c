"""MetaSchedule on one layer, in a process of its own that is ended when its time is up: what it has measured until then is on disk.

FOLDER afterwards holds TVM's JSON database, which grows with every batch, and `progress.jsonl`: a line when the search begins, and one
a batch with the seconds since then, the measurements, how many failed, and the least time so far.

MetaSchedule has its own search space, cost model (XGBoost) and evolutionary search, all as they come. Two things are changed in its
favour. Candidates are built and timed in this process, for 10 ms each: its default builder starts processes that import all CUDA
intrinsics, 23 to 40 s each, which its own limit of 30 s then ends. And those intrinsics are not imported here, either.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import tvm
from tvm.ir.utils import derived_object

from benchmarks.metaschedule.workload import Workload

__all__ = ["DATABASE", "PROGRESS", "build_like_metaschedule", "main"]

DATABASE: Final = ("database_workload.json", "database_tuning_record.json")
PROGRESS: Final = "progress.jsonl"
_REPEAT_MS: Final = 10
_NEVER: Final = 1_000_000
_INTRINSICS: Final = "tvm.s_tir.tensor_intrin"


def _meta_schedule() -> Any:
    """Return TVM's package with the intrinsics of x86 alone."""
    package = types.ModuleType(_INTRINSICS)
    package.__path__ = [str(Path(tvm.__file__).parent / "s_tir" / "tensor_intrin")]
    sys.modules[_INTRINSICS] = package
    __import__(f"{_INTRINSICS}.x86")
    from tvm.s_tir import meta_schedule

    return meta_schedule


def build_like_metaschedule(mod: tvm.IRModule, target: Any) -> Any:
    """Return what MetaSchedule's `default_build` makes of a scheduled module."""
    mod = tvm.s_tir.transform.RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(mod)
    return tvm.tirx.build(mod, target=target)


def _builder(ms: Any) -> Any:
    """Return a builder in this process."""

    @derived_object
    class Builder(ms.builder.PyBuilder):
        def build(self, build_inputs: Sequence[Any]) -> list[Any]:
            rows = []
            for one in build_inputs:
                try:
                    path = Path(tempfile.mkdtemp(prefix="metaschedule-")) / "kernel.so"
                    build_like_metaschedule(one.mod, one.target).export_library(str(path))
                    rows.append(ms.builder.BuilderResult(str(path), None))
                # TVM raises almost every class there is for a kernel that it cannot build; MetaSchedule counts them.
                except Exception as error:
                    rows.append(ms.builder.BuilderResult(None, str(error)[:2000]))
            return rows

    return Builder()


def _runner(ms: Any) -> Any:
    """Return a runner that times kernels here."""
    from tvm.s_tir.meta_schedule.runner.local_runner import default_alloc_argument
    from tvm.s_tir.meta_schedule.runner.utils import run_evaluator_common

    config = ms.runner.EvaluatorConfig(number=3, repeat=1, min_repeat_ms=_REPEAT_MS)

    @derived_object
    class Future(ms.runner.PyRunnerFuture):
        def __init__(self, answer: Any) -> None:
            super().__init__()
            self.answer = answer

        def done(self) -> bool:
            return True

        def result(self) -> Any:
            return self.answer

    @derived_object
    class Runner(ms.runner.PyRunner):
        def run(self, runner_inputs: Sequence[Any]) -> list[Any]:
            rows = []
            for one in runner_inputs:
                kernel, device = tvm.runtime.load_module(one.artifact_path), tvm.cpu(0)
                Path(one.artifact_path).unlink()
                Path(one.artifact_path).parent.rmdir()
                arguments = default_alloc_argument(device, [a.as_json() for a in one.args_info], 1)
                seconds = run_evaluator_common(kernel, device, config, arguments)
                rows.append(Future(ms.runner.RunnerResult([float(s) for s in seconds], None)))
            return rows

    return Runner()


def _reporter(ms: Any, path: Path) -> Any:
    """Return a callback that writes a line a batch, behind the database's."""
    began, state = time.monotonic(), {"trials": 0, "failed": 0, "best": None}

    def write() -> None:
        with path.open("a") as file:
            file.write(json.dumps({"seconds": round(time.monotonic() - began, 2), **state}) + "\n")

    @derived_object
    class Reporter(ms.measure_callback.PyMeasureCallback):
        def apply(
            self, task_scheduler: Any, task_id: int, measure_candidates: Any, builder_results: Any, runner_results: Any
        ) -> None:  # fmt: skip
            times = [float(r.run_secs[0]) for r in runner_results if r is not None and r.run_secs]
            state["trials"] += len(measure_candidates)
            state["failed"] += len(measure_candidates) - len(times)
            state["best"] = min([*times, *([state["best"]] if state["best"] else [])], default=None)
            write()

    write()
    return Reporter()


def main(words: Sequence[str] | None = None) -> None:
    """Search until somebody ends the process, or everything has been measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metaschedule.search")
    parser.add_argument("key", help="canonical name of a convolution")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64, help="candidates a round of the search")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(words)
    logging.disable(logging.WARNING)
    workload = Workload.of(given.key, given.threads)
    ms = _meta_schedule()
    callbacks = ms.measure_callback
    ms.tune_tir(
        workload.function(),
        workload.target.tvm(),
        str(given.folder),
        _NEVER,
        num_trials_per_iter=given.batch,
        builder=_builder(ms),
        runner=_runner(ms),
        measure_callbacks=[
            callbacks.AddToDatabase(),
            callbacks.UpdateCostModel(),
            _reporter(ms, given.folder / PROGRESS),
        ],
        num_tuning_cores=given.threads,
        seed=given.seed,
    )


if __name__ == "__main__":
    main()
