from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convc.errors import ToolchainError
from convc.runtime import library
from tests.runtime import runtime_modules

HINT = "Install it with `pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1`."


def python(program: str, *arguments: object) -> str:
    """Run a program in a fresh interpreter and return what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


BLOCK = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"tvm", "onnx", "networkx", "onnxruntime"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
"""


def test_runs_where_tvm_and_onnx_cannot_be_imported(affine_file: Path) -> None:
    program = (
        BLOCK
        + """
import numpy as np
from convc.runtime import load
x = np.arange(512, dtype=np.float32).reshape(8, 64) % 9
y, z = load(sys.argv[1])(x)
print(float(y.sum()), float(z.sum()))
"""
    )
    x = np.arange(512, dtype=np.float32).reshape(8, 64) % 9
    y, z = runtime_modules.affine_reference(x)
    assert python(program, affine_file) == f"{float(y.sum())} {float(z.sum())}"


def test_import_is_light() -> None:
    program = """
import sys
import convc.runtime
print([name for name in ("tvm", "onnx", "networkx", "tvm_ffi", "psutil") if name in sys.modules])
"""
    assert python(program) == "[]"


@pytest.mark.parametrize("first", ["import tvm", "load(sys.argv[1])(x)"])
def test_one_copy_with_tvm_in_the_same_process(affine_file: Path, first: str) -> None:
    """Whichever comes first: a second copy of the library would end the process."""
    program = f"""
import sys
import numpy as np
from convc.runtime import load
x = np.ones((8, 64), np.float32)
{first}
import tvm
y, z = load(sys.argv[1])(x)
copies = {{line.split()[-1] for line in open("/proc/self/maps") if "libtvm_runtime.so" in line}}
print(len(copies), float(y[0, 0]))
"""
    assert python(program, affine_file) == "1 -32.0"


def test_environment_names_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chosen = tmp_path / "mine.so"
    chosen.write_bytes(b"")
    monkeypatch.setenv("CONVC_TVM_RUNTIME", str(chosen))
    assert library.find_runtime(None) == chosen
    monkeypatch.setenv("CONVC_TVM_RUNTIME", str(tmp_path / "none.so"))
    with pytest.raises(ToolchainError) as caught:
        library.find_runtime(None)
    assert (
        str(caught.value)
        == f"CONVC_TVM_RUNTIME must name libtvm_runtime.so's file; got '{tmp_path / 'none.so'}'."
    )


def test_wheel_then_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CONVC_TVM_RUNTIME", raising=False)
    beside = tmp_path / "libtvm_runtime.so"
    beside.write_bytes(b"")
    found = library.find_runtime(tmp_path)
    assert found.name == "libtvm_runtime.so"
    assert found.parent.parts[-2:] == ("tvm", "lib")
    monkeypatch.setattr(library, "_WHEEL", "no-such-wheel")
    assert library.find_runtime(tmp_path) == beside


def test_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CONVC_TVM_RUNTIME", raising=False)
    monkeypatch.setattr(library, "_WHEEL", "no-such-wheel")
    with pytest.raises(ToolchainError) as caught:
        library.find_runtime(tmp_path)
    assert (
        str(caught.value)
        == "libtvm_runtime.so must be found to run a module; got none in CONVC_TVM_RUNTIME (not set),"
        f" the package no-such-wheel, the module's folder '{tmp_path}'. {HINT}"
    )


def test_wrong_library(affine_file: Path, double_file: Path) -> None:
    program = """
import os, sys
os.environ["CONVC_TVM_RUNTIME"] = sys.argv[2]
from convc.errors import ToolchainError
from convc.runtime import load
try:
    load(sys.argv[1])
except ToolchainError as error:
    print(error)
"""
    message = python(program, affine_file, double_file)
    assert message.startswith(
        f"TVM's runtime must be apache-tvm 0.27's libtvm_runtime.so; got '{double_file}' ("
    )
    assert message.endswith(HINT)


def test_without_tvm_ffi(affine_file: Path) -> None:
    program = (
        BLOCK.replace('"onnxruntime"', '"tvm_ffi"')
        + """
from convc.errors import ToolchainError
from convc.runtime.library import runtime_library
try:
    runtime_library()
except ToolchainError as error:
    print(error)
"""
    )
    assert (
        python(program)
        == f"package tvm_ffi must be installed to run a module; got tvm_ffi is blocked. {HINT}"
    )
