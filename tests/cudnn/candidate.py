"""convc's modules with cuDNN in them, built, exported, loaded and run in the worker's child with the double."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import convc
from convc.errors import DeviceError
from tests.cuda_emulation import convc_device
from tests.cudnn.in_child import use_double
from tests.schedules.conv_module import Case, Result

__all__ = ["compile_and_run", "conv_results", "first_run", "refused_at_load"]


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
    return outputs, choices, double.cudnn_double_log().decode()


def first_run(source: Any, options: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what loading a module said and did, and then a run of this thread and one of another."""
    double = use_double()
    double.cudnn_double_log()
    with tempfile.TemporaryDirectory() as folder:
        file = convc_device.exported(source, options, Path(folder) / "module.so")
        module = convc.load(file)
        said = {"load": double.cudnn_double_log().decode(), "prepared": module.preparation}
        outputs = [module.run(dict(inputs))]
        said["run"] = double.cudnn_double_log().decode()
        other = threading.Thread(target=lambda: outputs.append(module.run(dict(inputs))))
        other.start()
        other.join()
        said["other thread"] = double.cudnn_double_log().decode()
    return {**said, "outputs": outputs}


def refused_at_load(source: Any, options: Mapping[str, Any], status: int) -> str:
    """Return the error's text of loading a module whose plans cuDNN refuses."""
    double = use_double()
    with tempfile.TemporaryDirectory() as folder:
        file = convc_device.exported(source, options, Path(folder) / "module.so")
        double.cudnn_double_fail(b"cudnnBackendExecute", 0, status)
        try:
            convc.load(file)
        except DeviceError as error:
            return str(error)
        finally:
            double.cudnn_double_log()
    return ""
