"""Load, run, inspect and profile packaged modules. Needs tvm_ffi and TVM's runtime library; never TVM's compiler or ONNX.

`read_manifest` and the manifest's types do not even need those: what runs code is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from convc.runtime.manifest import Argument, Manifest, Step, TargetInfo, Tensor
from convc.runtime.package import read_manifest

if TYPE_CHECKING:
    from convc.runtime.loading import load, load_each
    from convc.runtime.memory import aligned_empty
    from convc.runtime.module import Module
    from convc.runtime.profile import StepTimes

__all__ = [
    "Argument",
    "Manifest",
    "Module",
    "Step",
    "StepTimes",
    "TargetInfo",
    "Tensor",
    "aligned_empty",
    "load",
    "load_each",
    "read_manifest",
]

_LAZY: Final = {
    "Module": "module",
    "StepTimes": "profile",
    "aligned_empty": "memory",
    "load": "loading",
    "load_each": "loading",
}


def __getattr__(name: str) -> object:
    """Import what runs code when it is first asked for: tvm_ffi takes 60 ms, and a second more where torch is installed."""
    if name not in _LAZY:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
