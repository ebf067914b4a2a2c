"""cuDNN 9 (graph interface): the shim's source, what is written into its calls, and how the library is found."""

from convc.runtime.libraries.cudnn.description import (
    CALL,
    CALL_PLAN,
    POLICIES,
    Description,
    Pooling,
    Softmax,
)
from convc.runtime.libraries.cudnn.find import find_cudnn, prepare
from convc.runtime.libraries.cudnn.shim import compile_shim, objects_for

__all__ = [
    "CALL",
    "CALL_PLAN",
    "POLICIES",
    "Description",
    "Pooling",
    "Softmax",
    "compile_shim",
    "find_cudnn",
    "objects_for",
    "prepare",
]
