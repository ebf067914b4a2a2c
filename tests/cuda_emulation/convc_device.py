"""convc's own way to a packaged module for CUDA, with g++ in nvcc's place: everything else is what a user's build runs.

Each function here runs in the worker's child. The module that is exported, loaded and run is convc's own; only its machine code is the
emulation's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tvm

import convc
from convc.schedules.cuda import compiler, dependent_launch
from convc.schedules.cuda.cluster import clustered
from convc.target.cuda import gpu_of
from tests.cuda_emulation import device
from tests.cuda_emulation.compiler import compile_kernels
from tests.cuda_emulation.worker import EmulationError
from tests.schedules.conv_module import Case, ConvModule, Result

__all__ = [
    "all_early",
    "by_own_passes",
    "compile_and_run",
    "compile_and_run_early",
    "conv_results",
    "exported",
]


def by_own_passes(module: Any, target: Any) -> Any:
    """Return an Executable of scheduled functions by the passes of convc's builds; a `build` of `emulation.run_cases`."""
    with device.edited(clustered):
        return tvm.compile(module, target=target, tir_pipeline=compiler.pipeline(gpu_of(90)))


@contextmanager
def _emulated_nvcc() -> Iterator[None]:
    name = "convc.schedules.cuda.nvcc.compile_source"
    with mock.patch(name, lambda source, gpu: compile_kernels(source)):
        yield


def conv_results(
    cases: Sequence[Case],
    target: Any,
    exact: bool,
    seed: int,
    orders: Sequence[str],
    launches: bool = True,
) -> list[Result]:
    """Return every case's result, all in one module; `launches`: there must be kernels (a library's calls are none).

    Raises:
        EmulationError: if the device complains, or the orders of threads give different bits.
    """
    with _emulated_nvcc():
        module = ConvModule(cases, target)
    return _in_orders(
        lambda: module.run(exact=exact, seed=seed),
        lambda r: [x.actual for x in r],
        orders,
        launches,
    )


def compile_and_run(
    source: Any,
    options: Mapping[str, Any],
    inputs: Mapping[str, np.ndarray],
    orders: Sequence[str],
    launches: bool = True,
    loaded: Callable[[], object] = lambda: None,
) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, str]]]:
    """Return the outputs of `convc.compile(source, **options)`, exported and loaded, and (algorithm, reason) of each convolution.

    `loaded` is called between loading and running.
    """
    with _emulated_nvcc(), tempfile.TemporaryDirectory() as folder:
        model = convc.compile(source, **options)
        module = convc.load(model.export(Path(folder) / "module.so"))
    loaded()
    outputs = _in_orders(
        lambda: module.run(dict(inputs)), lambda r: list(r.values()), orders, launches
    )
    choices = {name: (c.algorithm, c.reason) for name, c in model.plan.choices.items()}
    return outputs, choices


@contextmanager
def all_early() -> Iterator[mock.Mock]:
    """Let every kernel be placed early, whatever its type and the length of its row; yield what makes it so."""
    rules = "convc.schedules.cuda.dependent_launch"
    with (
        mock.patch(f"{rules}._ROW", 1),
        mock.patch(f"{rules}._is_narrow", return_value=True),
        mock.patch(f"{rules}._early", wraps=dependent_launch._early) as early,
    ):
        yield early


def compile_and_run_early(
    source: Any, options: Mapping[str, Any], inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the outputs of `convc.compile(source, **options)` with early kernels, of the launches and of the graph of them."""
    with all_early() as early:
        outputs, _ = compile_and_run(source, options, inputs, ("up", "down", "shuffled"))
    if not early.called:
        raise EmulationError("kernels must begin early; got none that does.")
    return outputs


def exported(source: Any, options: Mapping[str, Any], path: Path) -> Path:
    """Return the file of `convc.compile(source, **options)`, for the emulated device."""
    with _emulated_nvcc():
        return convc.compile(source, **options).export(path)


def _in_orders(run: Any, arrays: Any, orders: Sequence[str], launches: bool) -> Any:
    first = None
    for order in orders:
        device.set_order(device.ORDERS[order])
        try:
            result = run()
        except Exception as error:
            if complaint := device.message():
                raise EmulationError(f"order '{order}': {complaint}") from error
            raise
        if launches and not device.launches():
            raise EmulationError("no kernel was launched.")
        if first is None:
            first = result
            continue
        for index, (a, b) in enumerate(zip(arrays(first), arrays(result), strict=True)):
            if a.tobytes() != b.tobytes():
                raise EmulationError(
                    f"a race: the order of threads '{order}' gives other bits than '{orders[0]}' in result {index}."
                )
    return first
