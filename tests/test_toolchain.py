from __future__ import annotations

from collections.abc import Iterator

import pytest

from convc import doctor, toolchain
from convc.errors import ToolchainError


def versions(monkeypatch: pytest.MonkeyPatch, **found: str | None) -> None:
    table = {name.replace("_", "-"): version for name, version in found.items()}
    monkeypatch.setattr(toolchain, "installed_version", table.get)
    monkeypatch.setattr(doctor, "installed_version", table.get)
    doctor._tvm_problem.cache_clear()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    doctor._tvm_problem.cache_clear()


def test_the_installed_toolchain_is_right() -> None:
    assert toolchain.check_toolchain() is None


def test_wrong_and_missing_packages_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, apache_tvm=None, apache_tvm_ffi="0.1.15.post2")
    with pytest.raises(ToolchainError) as caught:
        toolchain.check_toolchain()
    assert str(caught.value) == (
        "apache-tvm must be 0.27.0.post1 (its Python names change between releases); got no such package.\n"
        "apache-tvm-ffi must be 0.1.14.post1 (with 0.1.15 every JSON serialisation of TVM's IR crashes the process); "
        "got 0.1.15.post2.\n"
        "Run: pip install 'apache-tvm==0.27.0.post1' 'apache-tvm-ffi==0.1.14.post1'"
    )


def test_the_doctor_reports_a_wrong_pin_without_importing_tvm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    versions(monkeypatch, apache_tvm="0.27.0.post1", apache_tvm_ffi="0.1.15")
    checks = {c.name: c for c in doctor.diagnose()}
    assert checks["apache-tvm"].status == "ok"
    assert checks["apache-tvm-ffi"] == doctor.Check(
        "apache-tvm-ffi",
        "fail",
        "0.1.15; must be 0.1.14.post1: with 0.1.15 every JSON serialisation of TVM's IR crashes the process",
        "pip install 'apache-tvm-ffi==0.1.14.post1'",
    )
    assert checks["llvm"].detail == "not looked at: apache-tvm is missing or at a wrong version"
    assert checks["onnxruntime"].status == "warn"
    assert checks["onnx"].status == "fail"


def test_the_doctor_misses_gxx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    checks = {c.name: c for c in doctor.diagnose()}
    assert checks["g++"].status == "fail"
    assert checks["nvcc"].status == "ok"
