"""convc's modules with cuDNN in them, built, exported, loaded and run in the worker's child with the double."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import convc
from convc.errors import DeviceError, ToolchainError
from convc.runtime.libraries.cudnn.find import VARIABLE
from tests.cuda_emulation import convc_device, device
from tests.cudnn.in_child import use_double
from tests.schedules.conv_module import Case, Result

__all__ = ["compile_and_run", "conv_results", "first_run", "loaded"]


def conv_results(cases: Sequence[Case], target: Any, exact: bool) -> tuple[list[Result], str]:
    """Return each case's result, all in one module, and the double's story."""
    double = use_double()
    double.cudnn_double_log()
    results = convc_device.conv_results(cases, target, exact, 1, ("up",), launches=False)
    return results, double.cudnn_double_log().decode()


def compile_and_run(
    source: Any, options: Mapping[str, Any], inputs: Mapping[str, Any], plan: Any = None
) -> tuple[Any, Any, str]:
    """Return outputs and choices of `convc.compile`, and the double's story of the run."""
    double = use_double()
    outputs, choices = convc_device.compile_and_run(
        source, options, inputs, ("up",), launches=False, loaded=double.cudnn_double_log
    )
    # The module is gone, and its handle with it.
    return outputs, choices, double.cudnn_double_log().decode().removesuffix("destroy;")


def first_run(source: Any, options: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what loading a module said and did, and then a run of this thread and one of another."""
    double = use_double()
    double.cudnn_double_log()
    with tempfile.TemporaryDirectory() as folder:
        file = convc_device.exported(source, options, Path(folder) / "module.so")
        modules = [convc.load(file)]
        said = {"load": double.cudnn_double_log().decode(), "prepared": modules[0].preparation}
        outputs = [modules[0].run(dict(inputs))]
        said["run"] = double.cudnn_double_log().decode()
        other = threading.Thread(target=lambda: outputs.append(modules[0].run(dict(inputs))))
        other.start()
        other.join()
        said["other thread"] = double.cudnn_double_log().decode()
        modules.append(convc.load(file))
        modules.pop(0)
        said["one of two unloaded"] = double.cudnn_double_log().decode()
        modules.pop()
        said["unloaded"] = double.cudnn_double_log().decode()
    return {**said, "outputs": outputs}


class _Said(logging.Handler):
    """Keeps the messages; these run in the emulation's process, where pytest's own `caplog` is not."""

    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def loaded(
    source: Any,
    options: Mapping[str, Any],
    inputs: Mapping[str, Any],
    failures: Sequence[tuple[str, int, int]] = (),
    library: str = "",
) -> dict[str, Any]:
    """Return what a module says and does where cuDNN refuses something while it is loaded, or is not there.

    Args:
        source: of the module.
        options: of `convc.compile`.
        inputs: of its runs.
        failures: (the double's function, calls of it before, status).
        library: what stands in CONVC_CUDNN_PATH; "": the double.
    """
    double = use_double()
    with tempfile.TemporaryDirectory() as folder:
        file = convc_device.exported(source, options, Path(folder) / "module.so")
        double.cudnn_double_log()
        for name, nth, status in failures:
            double.cudnn_double_fail(name.encode(), nth, status)
        there = mock.patch.dict(os.environ, {VARIABLE: library} if library else {})
        said: list[str] = []
        handler = _Said(said)
        logger = logging.getLogger("convc.runtime.device_module")
        logger.addHandler(handler)
        try:
            with there:
                module = convc.load(file)
                found = {"prepared": module.preparation, "load": double.cudnn_double_log().decode()}
                device.set_order(device.ORDERS["up"])
                runs = [module.run(dict(inputs)) for _ in range(2)]
                found["launches"] = device.launches()
                found["run"] = double.cudnn_double_log().decode()
                steps = [t.step for t in module.profile(dict(inputs), 1)]
        except (DeviceError, ToolchainError) as error:
            return {"error": f"{type(error).__name__}: {error}"}
        finally:
            logger.removeHandler(handler)
            double.cudnn_double_forget()
            double.cudnn_double_log()
    for name, array in runs[0].items():
        np.testing.assert_array_equal(array, runs[1][name])
    ran = {s.node: (s.algorithm, s.reason) for s in steps if s.op not in ("reorder", "border")}
    return {**found, "outputs": runs[0], "ran": ran, "said": said}
