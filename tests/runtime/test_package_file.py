from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from convc.errors import PackageError
from convc.runtime import read_manifest
from convc.runtime.elf import find_sections
from convc.runtime.package import map_weights, open_package
from tests.runtime import runtime_modules


def failure(path: Path, **options: bool) -> str:
    with pytest.raises(PackageError) as caught:
        read_manifest(path, **options)
    return str(caught.value)


def test_manifest_without_loading_code(affine_file: Path) -> None:
    manifest = read_manifest(affine_file, verify_checksums=True)
    assert manifest.name == "affine"
    assert [step.symbol for step in manifest.steps] == ["scale", "shift", "total"]
    assert manifest.target.features == ("avx2", "fma")
    assert len(manifest.weights_sha256) == 64


def test_no_code_is_mapped(tmp_path: Path) -> None:
    path = runtime_modules.unary(tmp_path, "unloaded", "float32", lambda a: a)
    read_manifest(path, verify_checksums=True)
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_weights_are_the_file_mapped(affine_file: Path) -> None:
    package = open_package(affine_file)
    weights = map_weights(package)
    assert not weights.flags.writeable
    assert weights.ctypes.data % 64 == 0
    np.testing.assert_array_equal(weights[:256].view(np.float32), runtime_modules.SCALE)
    np.testing.assert_array_equal(weights[4096:4352].view(np.float32), runtime_modules.SHIFT)
    assert not weights[256:4096].any()
    lines = Path("/proc/self/maps").read_text().splitlines()
    assert any(
        line.endswith(str(affine_file)) and f"{weights.ctypes.data:x}-" in line for line in lines
    )


def test_module_without_weights_has_an_empty_block(double_file: Path) -> None:
    assert open_package(double_file).weights.size == 64


def test_damaged_weights_need_the_checksum(affine_file: Path, tmp_path: Path) -> None:
    data = bytearray(affine_file.read_bytes())
    data[find_sections(bytes(data), [".convc.weights"])[".convc.weights"].offset] ^= 1
    path = tmp_path / "damaged.so"
    path.write_bytes(data)
    expected = read_manifest(path).weights_sha256
    message = failure(path, verify_checksums=True)
    assert message.startswith(f"weights of '{path}' must have SHA-256 {expected}; got ")
    assert message.endswith(". The file is damaged.")


def test_files_that_are_none(tmp_path: Path) -> None:
    missing, empty = tmp_path / "missing.so", tmp_path / "empty.so"
    empty.write_bytes(b"")
    assert (
        failure(missing)
        == f"module file must be readable; got '{missing}' (No such file or directory)."
    )
    assert (
        failure(empty) == "module must be a file that can be mapped; got cannot mmap an empty file."
    )
    assert failure(tmp_path).startswith("module must be a file that can be mapped; got ")


def test_another_program() -> None:
    message = failure(Path(sys.executable).resolve())
    assert (
        message == "module must have a section .convc.manifest; got none. It is not a convc module."
    )


def test_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.so"
    path.write_bytes(b"")
    with pytest.raises(PackageError) as caught:
        read_manifest(path)
    assert caught.value.__notes__ == [f"while reading {path}"]


def test_replaced_file(affine_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(affine_file.read_bytes())
    package = open_package(path)
    package.check_unchanged()
    path.unlink()
    path.write_bytes(affine_file.read_bytes() + b"\0")
    with pytest.raises(PackageError) as caught:
        map_weights(package)
    assert (
        str(caught.value)
        == f"module file '{path}' must stay unchanged while it is loaded; got a new one. Load it again."
    )
