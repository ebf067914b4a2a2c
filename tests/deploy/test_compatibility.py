"""What does not fit is told in words, in Python and in C, before any of the module's code is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

import convc
from convc.cli import invoke
from convc.errors import ConvcError, PackageError, TargetMismatchError, ToolchainError
from convc.lowering.package import link
from convc.runtime import Manifest, Step, TargetInfo
from convc.runtime.manifest import Area
from tests.cudnn.double_library import build_double
from tests.deploy.toolbox import HERE, Programs, run

GOOD = Manifest(
    name="early",
    convc="0.1.0",
    tvm="0.27.0.post1",
    tvm_ffi="0.1.14.post1",
    target=TargetInfo("llvm", "x86_64-linux-gnu", "x86-64"),
    inputs=(),
    outputs=(),
)


def of_cpu(triple: str, mcpu: str, *features: str) -> Manifest:
    return msgspec.structs.replace(GOOD, target=TargetInfo("llvm", triple, mcpu, features))


WRONG = {
    "tvm": (
        msgspec.structs.replace(GOOD, tvm="0.28.0"),
        PackageError,
        "module must be made with apache-tvm 0.27.x and apache-tvm-ffi 0.1.x; got 0.28.0 and 0.1.14.post1.",
        3,
    ),
    "tvm_ffi": (
        msgspec.structs.replace(GOOD, tvm_ffi="0.2.0"),
        PackageError,
        "module must be made with apache-tvm 0.27.x and apache-tvm-ffi 0.1.x; got 0.27.0.post1 and 0.2.0.",
        3,
    ),
    "format": (msgspec.structs.replace(GOOD, format=2), PackageError, "format", 3),
    "cpu": (
        of_cpu("x86_64-linux-gnu", "dreamt", "avx512dream"),
        TargetMismatchError,
        "avx512dream",
        5,
    ),
    "machine": (of_cpu("riscv64-linux-gnu", "rv64"), TargetMismatchError, "riscv64", 5),
}


@pytest.fixture(scope="module")
def early(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Manifest], Path]:
    """Makes modules that leave a file behind when their code is loaded."""
    folder = tmp_path_factory.mktemp("early")
    run(["gcc", "-c", "-O1", "-fPIC", HERE / "constructor.c", "-o", folder / "early.o"])

    def make(name: str, manifest: Manifest) -> Path:
        path = folder / f"{name}.so"
        link([folder / "early.o"], manifest, [(0, np.zeros(64, np.uint8))], path)
        return path

    return make


def load_in_c(programs: Programs, path: Path) -> tuple[int, str]:
    status, _, text = programs.drive("load", path).strip().partition(" ")
    return int(status), text


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "the code ran"
    monkeypatch.setenv("CONVC_TEST_MARKER", str(path))
    return path


def test_a_module_that_fits_is_loaded(
    early: Callable[[str, Manifest], Path], programs: Programs, marker: Path
) -> None:
    """The marker works: the tests below can fail."""
    path = early("good", GOOD)
    assert load_in_c(programs, path) == (0, "early")
    assert marker.exists()
    marker.unlink()
    convc.load(path, threads=1)
    assert marker.exists()


@pytest.mark.parametrize("what", WRONG)
def test_a_module_that_does_not_fit(
    what: str, early: Callable[[str, Manifest], Path], programs: Programs, marker: Path
) -> None:
    manifest, error, words, status = WRONG[what]
    path = early(what, manifest)
    with pytest.raises(ConvcError) as caught:
        convc.load(path, threads=1)
    assert isinstance(caught.value, error)
    assert words in str(caught.value)
    found, text = load_in_c(programs, path)
    assert (found, words in text) == (status, True), text
    invoke(["inspect", str(path), "-q"])
    assert not marker.exists()


def test_another_cudnn(
    early: Callable[[str, Manifest], Path], marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that a step needs is looked for, and asked for its version, before the code is loaded."""
    path = early("cudnn", msgspec.structs.replace(GOOD, steps=(Step("main", "n", "conv", algorithm="cudnn"),)))  # fmt: skip
    monkeypatch.setenv("CONVC_CUDNN_PATH", str(build_double(version=8907)))
    with pytest.raises(ToolchainError, match=r"^cuDNN must be version 9; got version 8 \(8907\)"):
        convc.load(path, threads=1)
    assert not marker.exists()


def test_libconvc_takes_no_open_height_and_width(
    early: Callable[[str, Manifest], Path], programs: Programs, marker: Path
) -> None:
    """Only Python fills in what such code needs for each size; without it a run would be wrong."""
    area = Area(height=4, width=4, entry="main", inputs=(), outputs=(), masks={}, crops={})
    path = early("open", msgspec.structs.replace(GOOD, areas=(area,)))
    status, text = load_in_c(programs, path)
    assert (status, "one height and width for libconvc" in text) == (3, True), text
    assert not marker.exists()
