"""How cuDNN is found, and what is said when it is not."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from convc.errors import ToolchainError
from convc.runtime.libraries.cudnn import compile_shim, find, find_cudnn, prepare
from tests.cudnn.double_library import build_double


@pytest.fixture(autouse=True)
def no_cudnn(monkeypatch):
    monkeypatch.delenv(find.VARIABLE, raising=False)
    monkeypatch.setattr(find, "_places", lambda: iter(()))


def test_none_is_an_error_that_names_the_package():
    assert find_cudnn() is None
    with pytest.raises(ToolchainError, match=r"pip install nvidia-cudnn-cu13.*--cudnn off"):
        prepare()


def test_an_argument_goes_before_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv(find.VARIABLE, str(tmp_path / "nothing.so"))
    assert find_cudnn(build_double()) == str(build_double())
    with pytest.raises(
        ToolchainError,
        match=rf"{find.VARIABLE} must name cuDNN 9's library or its folder; got '.*nothing.so'",
    ):
        find_cudnn()


def test_a_folder_will_do(tmp_path):
    (tmp_path / "libcudnn.so.9").symlink_to(build_double())
    assert find_cudnn(tmp_path) == str(tmp_path / "libcudnn.so.9")


def test_the_package_is_found_on_the_path(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.delenv(find.VARIABLE, raising=False)
    folder = tmp_path / "nvidia" / "cudnn" / "lib"
    folder.mkdir(parents=True)
    (folder / "libcudnn.so.9").symlink_to(build_double())
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert find_cudnn() == str(folder / "libcudnn.so.9")


def test_prepare_tells_the_shim(monkeypatch):
    monkeypatch.setenv(find.VARIABLE, "")
    prepare(build_double())
    assert os.environ[find.VARIABLE] == str(build_double())


@pytest.mark.parametrize(("version", "major"), [(8902, 8), (100100, 10)])
def test_another_version_is_refused(version, major):
    with pytest.raises(
        ToolchainError, match=rf"cuDNN must be version 9; got version {major} \({version}\)"
    ):
        prepare(build_double(version))


@pytest.fixture(scope="module")
def shim(tmp_path_factory) -> Path:
    """The shim as a library, compiled once for all processes."""
    file = tmp_path_factory.mktemp("shim") / "shim.so"
    file.write_bytes(compile_shim(("-shared",)))
    return file


@pytest.mark.parametrize(
    ("library", "message"),
    [
        ("/nothing/libcudnn.so.9", "must find cuDNN 9"),
        ("old", "must be cuDNN 9; got cuDNN 8 (version 8902)"),
        ("empty", "with the function cudnnGetVersion"),
    ],
)
def test_the_shim_says_so_itself_where_no_python_has_looked(library, message, shim, tmp_path):
    """In a process of its own: a found library is kept for good."""
    if library == "old":
        library = str(build_double(8902))
    elif library == "empty":
        library = str(tmp_path / "empty.so")
        subprocess.run(["g++", "-shared", "-x", "c++", os.devnull, "-o", library], check=True)
        ctypes.CDLL(library)
    code = """
import numpy, sys, tvm_ffi
x = tvm_ffi.from_dlpack(numpy.zeros((1, 1, 4, 4), "f4"))
try:
    tvm_ffi.load_module(sys.argv[1]).get_function("convc_cudnn_plan")("kind=forward;spec=the layer", x, x, x)
except RuntimeError as error:
    print(error)
"""
    environment = {**os.environ, "CONVC_CUDNN_PATH": library, "CONVC_CUDNN_DEVICE_PROPERTIES": "{}"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(shim)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert message in done.stdout
