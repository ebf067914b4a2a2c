"""CUTLASS (templates of CUDA C++): the shim's source, what is written into its calls, its kernels, and how the headers are found."""

from convc.runtime.libraries.cutlass.description import CALL, Description
from convc.runtime.libraries.cutlass.find import Headers, find_cutlass, require_cutlass
from convc.runtime.libraries.cutlass.kernels import FORMS, Kernel
from convc.runtime.libraries.cutlass.shim import NATIVE, compile_shim, compile_table

__all__ = [
    "CALL",
    "FORMS",
    "NATIVE",
    "Description",
    "Headers",
    "Kernel",
    "compile_shim",
    "compile_table",
    "find_cutlass",
    "require_cutlass",
]
