"""How the kernels' object files come about: headers, cache, joining; nothing here runs nvcc."""

from __future__ import annotations

import subprocess
import threading
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from convc import doctor
from convc.errors import LoweringError, ToolchainError
from convc.runtime.libraries.cutlass import Kernel, find_cutlass, require_cutlass
from convc.runtime.libraries.cutlass.find import VARIABLE
from convc.schedules.cuda import cutlass_objects, nvcc
from convc.target import parse_target

GPU = parse_target("cuda -arch=sm_90").gpu
KERNEL = Kernel("hopper", 2, "float16", 64, 64, 64)


def headers(folder: Path, version: tuple[int, int, int] = (4, 2, 0)) -> Path:
    file = folder / "include" / "cutlass" / "version.h"
    file.parent.mkdir(parents=True)
    parts = zip(("MAJOR", "MINOR", "PATCH"), version, strict=True)
    file.write_text("".join(f"#define CUTLASS_{name} {n}\n" for name, n in parts))
    return folder


def test_where_the_headers_are(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert find_cutlass() is None
    with pytest.raises(ToolchainError, match=r"pip install 'convc\[cutlass\]'.*Where the module runs, nothing"):  # fmt: skip
        require_cutlass()
    installed = headers(tmp_path / "cutlass_library" / "source")
    assert require_cutlass().root == installed
    monkeypatch.setenv(VARIABLE, str(headers(tmp_path / "own", (3, 5, 1))))
    assert find_cutlass().version == (3, 5, 1)
    with pytest.raises(ToolchainError, match=r"must be version 4\.0 or newer; got 3\.5\.1, "):
        require_cutlass()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(ToolchainError, match=f"{VARIABLE} must name CUTLASS's folder"):
        find_cutlass()


@pytest.fixture
def compiler(monkeypatch, tmp_path) -> list[str]:
    """nvcc, which only notes what it was asked for; headers and a cache of this test's own."""
    asked: list[str] = []

    def compile_object(source, codes, folders, options, stop):
        asked.append(source)
        return b"object of " + ",".join(codes).encode()

    monkeypatch.setattr(nvcc, "compile_object", compile_object)
    monkeypatch.setattr(nvcc, "version", lambda: "release 13")
    monkeypatch.setenv(VARIABLE, str(headers(tmp_path / "cutlass")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cutlass_objects._contents.cache_clear()
    return asked


def test_a_kernel_is_compiled_once_until_something_of_it_changes(compiler, monkeypatch, tmp_path):
    for _ in range(2):
        assert (
            cutlass_objects.compile_kernel(KERNEL, GPU)
            == b"object of -gencode=arch=compute_90a,code=sm_90a"
        )
    assert compiler == [KERNEL.source]
    cutlass_objects.compile_kernel(KERNEL.with_bias("float32"), GPU)
    assert len(compiler) == 2
    monkeypatch.setattr(nvcc, "version", lambda: "release 14")
    cutlass_objects.compile_kernel(KERNEL, GPU)
    assert len(compiler) == 3
    (tmp_path / "cutlass" / "include" / "more.h").write_text("// changed")
    cutlass_objects._contents.cache_clear()
    cutlass_objects.compile_kernel(KERNEL, GPU)
    assert len(compiler) == 4
    ampere = Kernel("ampere", 2, "float16", 64, 64, 32, stages=5)
    both = parse_target("cuda -arch=sm_80,90").gpu
    words = ",".join(nvcc.generate(both))
    assert cutlass_objects.compile_kernel(ampere, both) == f"object of {words}".encode()


def test_a_failure_leaves_nothing_behind(compiler, monkeypatch):
    def refused(*_):
        raise ToolchainError("no")

    with monkeypatch.context() as broken:
        broken.setattr(nvcc, "compile_object", refused)
        with pytest.raises(ToolchainError):
            cutlass_objects.compile_kernel(KERNEL, GPU)
    assert (
        cutlass_objects.compile_kernel(KERNEL, GPU)
        == b"object of -gencode=arch=compute_90a,code=sm_90a"
    )


def test_one_kernel_that_fails_ends_the_others(compiler, monkeypatch):
    """As Ctrl-C does: nobody waits for a compiler whose result nobody will use."""
    began, ended = threading.Event(), threading.Event()

    def compile_object(source, codes, folders, options, stop):
        if source == KERNEL.source:
            assert began.wait(60)
            raise LoweringError("refused")
        began.set()
        assert stop.wait(60)
        ended.set()
        raise CancelledError

    monkeypatch.setattr(nvcc, "compile_object", compile_object)
    monkeypatch.setattr(nvcc, "static_cudart", Path)
    monkeypatch.setattr(cutlass_objects, "_workers", lambda kernels: 2)
    with pytest.raises(LoweringError, match="refused"):
        cutlass_objects.kernel_objects([KERNEL, KERNEL.with_bias("float32")], GPU, lambda *n: None)
    assert ended.is_set()


def test_the_doctor_knows_versions(monkeypatch, tmp_path):
    def check() -> doctor.Check:
        return next(c for c in doctor.diagnose() if c.name == "cutlass")

    monkeypatch.setenv(VARIABLE, str(headers(tmp_path / "new")))
    assert check() == doctor.Check("cutlass", "ok", f"4.2.0, {tmp_path / 'new'}")
    monkeypatch.setenv(VARIABLE, str(headers(tmp_path / "old", (3, 5, 1))))
    assert (check().status, check().fix) == ("warn", "pip install --upgrade 'convc[cutlass]'")
    assert check().detail.startswith("CUTLASS must be version 4.0 or newer; got 3.5.1")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    assert check().status == "warn"


def test_kernels_are_joined_with_the_runtime_whose_names_nobody_sees(
    compiler, monkeypatch, tmp_path
):
    def compiled(text: str, name: str) -> bytes:
        (tmp_path / f"{name}.cc").write_text(text)
        subprocess.run(["g++", "-fPIC", "-c", f"{name}.cc", "-o", f"{name}.o"], cwd=tmp_path, check=True)  # fmt: skip
        return (tmp_path / f"{name}.o").read_bytes()

    kernels = [KERNEL, KERNEL.with_bias("float32")]
    objects = {k.source: compiled(f'extern "C" int cudaLaunch(); extern "C" int {k.symbol}() {{ return cudaLaunch(); }}', f"k{i}") for i, k in enumerate(kernels)}  # fmt: skip
    compiled('extern "C" int cudaLaunch() { return 7; }', "runtime")
    subprocess.run(["ar", "rcs", "libcudart_static.a", "runtime.o"], cwd=tmp_path, check=True)
    monkeypatch.setattr(nvcc, "compile_object", lambda source, *_: objects[source])
    monkeypatch.setattr(nvcc, "static_cudart", lambda: tmp_path / "libcudart_static.a")
    said: list[tuple[int, int, str]] = []
    (joined,) = cutlass_objects.kernel_objects(kernels, GPU, lambda *n: said.append(n))
    assert said[0] == (0, 2, "")
    assert [n for n in said if n[2].startswith("nvcc compiles")] != []
    assert said[-1][:2] == (2, 2)
    again: list[tuple[int, int, str]] = []
    cutlass_objects.kernel_objects(kernels, GPU, lambda *n: again.append(n))
    # Which of two is found first is the threads' matter.
    assert again[0] == (0, 2, "")
    assert [n[:2] for n in again[1:]] == [(1, 2), (2, 2)]
    assert {n[2] for n in again[1:]} == {f"{k.name} was compiled before" for k in kernels}
    (tmp_path / "joined.o").write_bytes(joined)
    shown = subprocess.run(["nm", "joined.o"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout  # fmt: skip
    kinds = {name: kind for _, kind, name in map(str.split, shown.splitlines())}
    assert kinds == {"cudaLaunch": "t", **{k.symbol: "T" for k in kernels}}
