"""convc's modules with cuDNN in them, built, exported, loaded and run in the worker's child with the double."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.cuda_emulation import convc_device
from tests.cudnn.in_child import use_double
from tests.schedules.conv_module import Case, Result

__all__ = ["compile_and_run", "conv_results"]


def conv_results(cases: Sequence[Case], target: Any, exact: bool) -> tuple[list[Result], str]:
    """Return each case's result, all in one module, and the double's story."""
    double = use_double()
    double.cudnn_double_log()
    results = convc_device.conv_results(cases, target, exact, 1, ("up",), launches=False)
    return results, double.cudnn_double_log().decode()


def compile_and_run(
    source: Any, options: Mapping[str, Any], inputs: Mapping[str, Any], plan: Any = None
) -> tuple[Any, Any, str]:
    """Return outputs and choices of `convc.compile`, and the double's story."""
    double = use_double()
    double.cudnn_double_log()
    outputs, choices = convc_device.compile_and_run(
        source, options, inputs, ("up",), launches=False
    )
    return outputs, choices, double.cudnn_double_log().decode()
