"""Run a module from Python through libconvc, with nothing but the standard library.

python run.py MODULE.so [LIBCONVC.so]
"""

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["TensorInfo", "main"]


class TensorInfo(ctypes.Structure):
    """convc_tensor_info."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_char_p),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("nbytes", ctypes.c_size_t),
    )


def main(module_file: str, library_file: str) -> None:
    """Load, run once on zeros, print the first elements of each output."""
    lib = ctypes.CDLL(library_file)
    lib.convc_last_error.restype = ctypes.c_char_p
    for name in ("convc_input_count", "convc_output_count"):
        getattr(lib, name).restype = ctypes.c_size_t
        getattr(lib, name).argtypes = [ctypes.c_void_p]
    lib.convc_alloc.restype = ctypes.c_void_p
    lib.convc_alloc.argtypes = [ctypes.c_size_t]
    lib.convc_free.argtypes = lib.convc_unload.argtypes = [ctypes.c_void_p]
    lib.convc_context_destroy.argtypes = [ctypes.c_void_p]

    def check(status: int) -> None:
        if status:
            sys.exit(f"error {status}: {lib.convc_last_error().decode()}")

    module, context = ctypes.c_void_p(), ctypes.c_void_p()
    check(lib.convc_load(module_file.encode(), None, ctypes.byref(module)))
    check(lib.convc_context_create(module, 0, ctypes.byref(context)))

    def buffers(count: int, describe: Callable[..., int]) -> list[tuple[TensorInfo, int]]:
        made = []
        for index in range(count):
            info = TensorInfo()
            check(describe(module, ctypes.c_size_t(index), ctypes.byref(info)))
            memory = lib.convc_alloc(info.nbytes)
            ctypes.memset(memory, 0, info.nbytes)
            made.append((info, memory))
        return made

    inputs = buffers(lib.convc_input_count(module), lib.convc_input_info)
    outputs = buffers(lib.convc_output_count(module), lib.convc_output_info)
    given = (ctypes.c_void_p * len(inputs))(*(memory for _, memory in inputs))
    results = (ctypes.c_void_p * len(outputs))(*(memory for _, memory in outputs))
    check(
        lib.convc_run(
            context, given, ctypes.c_size_t(len(inputs)), results, ctypes.c_size_t(len(outputs))
        )
    )
    for info, memory in outputs:
        text = f"{info.name.decode()}: {info.dtype.decode()}, {info.nbytes} bytes"
        if info.dtype == b"float32":
            values = (ctypes.c_float * min(10, info.nbytes // 4)).from_address(memory)
            text += " " + " ".join(f"{value:.9g}" for value in values)
        print(text)  # noqa: T201 - an example's output
    for _, memory in (*inputs, *outputs):
        lib.convc_free(memory)
    lib.convc_context_destroy(context)
    lib.convc_unload(module)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python run.py MODULE.so [LIBCONVC.so]")
    beside = Path(__file__).resolve().parent.parent / "lib" / "libconvc.so"
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else str(beside))
