"""The real cuDNN without a device: plans for an H200 described in JSON (cuDNN 9.8 and later can do that).

A process of its own: it loads stand-ins of libcuda.so.1, whose functions all answer that there is no device, and of libcublasLt.so.13,
which says of every product that it knows ways to compute it: else cuDNN offers no engine that takes it, as on a device it does.
Reads [[description, [[shape, element type], ...]], ...] as JSON, prints [plan or error, ...].
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# Attributes that no header names; written from the data sheet, to be replaced by what a device says.
PROPERTIES = Path(__file__).with_name("h200.json")
NO_DEVICE = 100  # of the driver
# What cuBLASLt has to answer; all others are content. The result's parts are those of cublasLtMatmulHeuristicResult_t.
CUBLAS_LT = """
#include <stdlib.h>
struct result { unsigned long algorithm[8], workspace; int state; float waves; int reserved[4]; };
static int made(void **handle) { return (*handle = calloc(1, 4096)) ? 0 : 3; }
unsigned long cublasLtGetVersion(void) { return 130000; }
int cublasLtCreate(void **handle) { return made(handle); }
int cublasLtMatmulDescCreate(void **handle) { return made(handle); }
int cublasLtMatrixLayoutCreate(void **handle) { return made(handle); }
int cublasLtMatmulPreferenceCreate(void **handle) { return made(handle); }
int cublasLtMatmulAlgoGetHeuristic(void *l, void *o, void *a, void *b, void *c, void *d, void *p, int wanted, struct result *results, int *found) {
  for (*found = 0; *found < wanted; ++*found) results[*found] = (struct result){{66}, 0, 0, 1, {0}};
  return 0;
}
"""


def _names_in(file: Path) -> set[bytes]:
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return set(re.findall(rb"cublasLt[A-Z]\w+", data))


def stand_ins(header: Path, library: Path, folder: Path) -> None:
    """Build and load the libraries that cuDNN will not load without."""
    text = header.read_text(encoding="utf-8", errors="replace")
    names = set(re.findall(r"CUresult\s+CUDAAPI\s+(cu\w+)\s*\(", text)) - {"cuDriverGetVersion"}
    names |= {name + suffix for name in names for suffix in ("_v2", "_v3", "_v4", "_ptsz")}
    functions = [f"int {name}(void) {{ return {NO_DEVICE}; }}" for name in sorted(names)]
    functions.append("int cuDriverGetVersion(int* version) { *version = 13000; return 0; }")
    lt = {
        match.decode()
        for file in library.parent.glob("libcudnn*.so.9")
        for match in _names_in(file)
    }
    content = [
        f"int {name}(void) {{ return 0; }}" for name in sorted(lt) if f" {name}(" not in CUBLAS_LT
    ]
    products = CUBLAS_LT + "\n".join(content)
    for name, source in (("libcuda.so.1", "\n".join(functions)), ("libcublasLt.so.13", products)):
        (folder / "stub.c").write_text(source, encoding="utf-8")
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-o", str(folder / name), str(folder / "stub.c")],
            check=True,
        )  # fmt: skip
        ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)


def main() -> None:
    """Answer the questions on stdin."""
    import ml_dtypes
    import numpy as np
    import tvm_ffi

    from convc.runtime.libraries.cudnn import compile_shim, find_cudnn, prepare
    from convc.runtime.memory import array_window

    assert ml_dtypes
    folder = Path(tempfile.mkdtemp())
    library = find_cudnn()
    assert library is not None
    stand_ins(Path(sys.argv[1]), Path(library), folder)
    os.environ["CONVC_CUDNN_DEVICE_PROPERTIES"] = PROPERTIES.read_text(encoding="utf-8")
    prepare()
    (folder / "shim.so").write_bytes(compile_shim(("-shared",)))
    plan = tvm_ffi.load_module(str(folder / "shim.so")).get_function("convc_cudnn_plan")
    answers = []
    for description, tensors in json.load(sys.stdin):
        windows = [array_window(np.zeros(shape, dtype)) for shape, dtype in tensors]
        try:
            answers.append(str(plan(description, *(w.tensor for w in windows))))
        except (RuntimeError, ValueError) as error:
            answers.append(f"error: {error}")
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main()
