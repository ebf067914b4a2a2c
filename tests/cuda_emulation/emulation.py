"""The emulated GPU for tests: TVM functions scheduled for CUDA, or CUDA C by hand, run on the CPU.

One child process serves a whole test session. Many cases cost one g++ run, so give them together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import tvm

from tests.cuda_emulation.worker import EmulationError, Worker

__all__ = [
    "OWN_PASSES",
    "SM_90",
    "Case",
    "EmulationError",
    "compile_and_run",
    "conv_results",
    "launch",
    "run",
    "run_cases",
    "worker",
]

# A `build` of `run_cases`: TVM's passes with those that convc's builds put between them.
OWN_PASSES: Final = "tests.cuda_emulation.convc_device:by_own_passes"

# Two orders are opposite in everything CUDA leaves open; what both agree on rarely depends on it.
_BOTH: Final = ("up", "down")

SM_90: Final[Mapping[str, Any]] = {
    "kind": "cuda",
    "arch": "sm_90",
    "max_threads_per_block": 1024,
    "max_shared_memory_per_block": 227 << 10,
    "thread_warp_size": 32,
    "host": {"kind": "llvm"},
}


@dataclass(frozen=True, slots=True)
class Case:
    """A function scheduled for CUDA and the arrays of its first parameters; the parameters behind them are outputs."""

    function: Any
    inputs: tuple[np.ndarray, ...]


@cache
def worker() -> Worker:
    """Return the session's child process."""
    return Worker()


def run_cases(
    cases: Sequence[Case],
    *,
    target: Mapping[str, Any] = SM_90,
    config: Mapping[str, Any] | None = None,
    build: str = "",
    orders: Sequence[str] = _BOTH,
    spoil: tuple[str, str, int] | None = None,
) -> list[Any]:
    """Return an `Outcome` (outputs, error, source) for each case; a failure is a record, not an exception.

    Args:
        cases: what to run. All are compiled together; if that fails, one by one.
        target: TVM's target.
        config: of TVM's PassContext, as {"tirx.use_async_copy": 1}.
        build: "module:function" making an Executable of (IRModule, TVM target) in the child; `tvm.compile` without it.
        orders: names of `device.ORDERS`; differing results are a race, reported as an error. A kernel that adds floats atomically
            has none to compare: give one order.
        spoil: (text, replacement, n): replace the n-th occurrence of a text in the CUDA C, to see a fault found.
    """
    functions = {}
    for index, case in enumerate(cases):
        functions[f"case{index}"] = case.function.with_attr("global_symbol", f"case{index}")
    text = tvm.ir.save_json(tvm.IRModule(functions))
    inputs = [tuple(map(np.ascontiguousarray, case.inputs)) for case in cases]
    arguments = (text, inputs, dict(target), dict(config or {}), build, tuple(orders), spoil)
    return worker().call("tests.cuda_emulation.in_child:run_cases", *arguments)


def run(function: Any, *inputs: np.ndarray, **options: Any) -> tuple[np.ndarray, ...]:
    """Return the outputs of one function; see `run_cases` for the options.

    Raises:
        EmulationError: for whatever the emulation finds wrong.
    """
    (outcome,) = run_cases([Case(function, inputs)], **options)
    if outcome.error:
        raise EmulationError(outcome.error)
    return outcome.outputs


def launch(
    source: str,
    *arrays: np.ndarray,
    kernel: str = "kernel",
    grid: tuple[int, int, int] = (1, 1, 1),
    block: tuple[int, int, int] = (32, 1, 1),
    dynamic_shared: int = 0,
    orders: Sequence[str] = ("up",),
    early: bool = False,
) -> list[tuple[np.ndarray, ...]]:
    """Return all arrays of a kernel of CUDA C after its launch, for each order; `early`: a programmatic dependent launch.

    Raises:
        EmulationError: for whatever the emulation finds wrong.
    """
    arguments = (source, kernel, grid, block, arrays, dynamic_shared, tuple(orders), early)
    return worker().call("tests.cuda_emulation.in_child:launch", *arguments)


def conv_results(
    cases: Sequence[Any], target: Any, *, exact: bool, seed: int = 1, orders: Sequence[str] = _BOTH
) -> list[Any]:
    """Return the `Result` of each `tests.schedules.conv_module.Case`, all in one module that convc builds, exports and loads for CUDA.

    Raises:
        EmulationError: for whatever the emulation finds wrong, with the child's traceback if convc failed.
    """
    function = "tests.cuda_emulation.convc_device:conv_results"
    return worker().call(function, tuple(cases), target, exact, seed, tuple(orders))


def compile_and_run(
    source: Any, inputs: Mapping[str, np.ndarray], *, orders: Sequence[str] = _BOTH, **options: Any
) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, str]]]:
    """Return the outputs of `convc.compile(source, **options)`, and (algorithm, reason) of each of its convolutions.

    Raises:
        EmulationError: for whatever the emulation finds wrong, with the child's traceback if convc failed.
    """
    function = "tests.cuda_emulation.convc_device:compile_and_run"
    return worker().call(function, source, options, dict(inputs), tuple(orders))
