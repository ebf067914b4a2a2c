"""`benchmarks.gpu_check pack`: one archive with all that a device's machine needs."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from benchmarks.gpu import pack as packing
from convc.errors import InputError, ToolchainError

# Stands in for zstd: keeps what it is told and what it is given, without compressing it.
_ZSTD = """#!{python}
import pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
out.write_bytes(sys.stdin.buffer.read())
out.with_suffix(".said").write_text(" ".join(sys.argv[1:]))
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "_unpack_wheels", lambda python, compiles, wheels, packages: packages.mkdir())  # fmt: skip
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "a.job.json").write_text("{}")
    return folder


@pytest.fixture
def zstd(tmp_path, monkeypatch):
    """Put a program on PATH as zstd, the only one there."""

    def put(text):
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "zstd").write_text(text)
        (folder / "zstd").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return put


def _names(archive):
    with tarfile.open(archive) as tar:
        return set(tar.getnames())


def test_the_archive_holds_jobs_runtime_and_program(jobs, tmp_path):
    assert packing.pack(jobs, tmp_path / "all.tar.xz", "3.12") < 20 << 20
    names = _names(tmp_path / "all.tar.xz")
    assert {"gpu_check/jobs/a.job.json", "gpu_check/lib/libtvm_runtime_cuda.so", "gpu_check/convc/runtime/cuda.py"} <= names  # fmt: skip
    assert "gpu_check/lib/libtvm_compiler.so" not in names


def test_an_archive_to_tune_with_holds_what_compiles(jobs, tmp_path):
    (tmp_path / "layers.jsonl").write_text("{}\n")
    packing.pack(tmp_path / "none", tmp_path / "all.tar.xz", "3.12", tmp_path / "layers.jsonl")
    names = _names(tmp_path / "all.tar.xz")
    # The shim of cuDNN is compiled there, the records say what to try first.
    assert {"gpu_check/tasks.jsonl", "gpu_check/convc/runtime/libraries/cudnn/native/shim.cc", "gpu_check/tuning_logs/cuda/nvidia-h200.jsonl"} <= names  # fmt: skip
    assert not any(n.endswith((".pyc", "libtvm_runtime.so")) or "/jobs/" in n for n in names)
    with tarfile.open(tmp_path / "all.tar.xz") as tar:
        environment = tar.extractfile("gpu_check/environment")
        assert environment is not None
        # TVM's own loader finds its libraries.
        assert b"CONVC_TVM_RUNTIME" not in environment.read()


def test_what_nobody_imports_of_tvm_is_left_out(tmp_path, monkeypatch):
    """The wheels that pip is asked for are made here, of the files that matter."""
    asked = []

    def download(command, **_):
        asked[:] = command
        folder = Path(command[command.index("-d") + 1])
        folder.mkdir()
        with zipfile.ZipFile(folder / "tvm.whl", "w") as wheel:
            for name in ("tvm/lib/libtvm_compiler.so", "tvm/include/a.h", "tvm_ffi/include/b.h", "tvm_ffi/lib/c.a", "tvm_ffi/lib/libtvm_ffi_testing.so"):  # fmt: skip
                wheel.writestr(name, "")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packing.subprocess, "run", download)
    packing._unpack_wheels("3.12", True, tmp_path / "wheels", tmp_path / "packages")
    assert {"apache-tvm==0.27.0.post1", "apache-tvm-ffi==0.1.14.post1"} < set(asked)
    kept = {p.relative_to(tmp_path / "packages").as_posix() for p in (tmp_path / "packages").rglob("*.*")}  # fmt: skip
    # The testing library is loaded whenever tvm_ffi is imported.
    assert kept == {"tvm/lib/libtvm_compiler.so", "tvm_ffi/include/b.h", "tvm_ffi/lib/libtvm_ffi_testing.so"}  # fmt: skip
    packing._unpack_wheels("3.12", False, tmp_path / "again", tmp_path / "packages")
    assert "apache-tvm==0.27.0.post1" not in asked


def test_zstd_sees_repetitions_far_apart(jobs, tmp_path, zstd):
    zstd(_ZSTD.format(python=sys.executable))
    packing.pack(jobs, tmp_path / "all.tar.zst", "3.12")
    assert "gpu_check/jobs/a.job.json" in _names(tmp_path / "all.tar.zst")
    assert "--long=31" in (tmp_path / "all.tar.said").read_text()


def test_a_zstd_that_fails_leaves_no_archive(jobs, tmp_path, zstd):
    zstd('#!/bin/sh\necho part > "$7"\nexit 3\n')
    with pytest.raises(ToolchainError, match="got exit code 3"):
        packing.pack(jobs, tmp_path / "all.tar.zst", "3.12")
    assert not (tmp_path / "all.tar.zst").exists()


def test_without_zstd_the_other_suffix_is_named(jobs, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match=r"zstd must be on PATH.*-o gpu\.tar\.xz"):
        packing.pack(jobs, tmp_path / "all.tar.zst", "3.12")


def test_a_file_that_is_no_archive_is_left_alone(jobs, tmp_path):
    (tmp_path / "report.json").write_text("mine")
    with pytest.raises(InputError, match=r"must be a \.tar\.xz or \.tar\.zst"):
        packing.pack(jobs, tmp_path / "report.json", "3.12")
    assert (tmp_path / "report.json").read_text() == "mine"
