"""A module for another kind of machine, run by an emulator of it: the numbers are the same."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import convc
from convc.errors import TargetMismatchError
from tests.deploy.small_net import ALGORITHM, image, small_net
from tests.deploy.toolbox import HERE, assert_outputs, run

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
SYSROOT = "/usr/aarch64-linux-gnu"


def need(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} (apt-get install g++-aarch64-linux-gnu qemu-user)")


@pytest.fixture(scope="module")
def arm_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need(COMPILER)
    compiled = convc.compile(
        small_net(), mcpu="neoverse-n1", mtriple="aarch64-linux-gnu", threads=1, algo=ALGORITHM
    )
    folder = tmp_path_factory.mktemp("arm") / "small"
    return compiled.export(folder, format="bundle", cc=COMPILER)


@pytest.mark.emulated
def test_runs_on_aarch64(arm_bundle: Path, image_file: Path, tmp_path: Path) -> None:
    need(EMULATOR)
    program = tmp_path / "driver"
    run(
        [
            *(COMPILER.replace("g++", "gcc"), "-std=c11", "-O1", f"-I{arm_bundle / 'include'}"),
            *(HERE / "driver.c", "-o", program, arm_bundle / "lib" / "libconvc.so", "-lpthread"),
            f"-Wl,-rpath,{arm_bundle / 'lib'}",
        ]
    )
    emulated = [EMULATOR, "-L", SYSROOT, program]
    outputs = [tmp_path / "scores.bin", tmp_path / "features.bin"]
    run([*emulated, "run", "best", arm_bundle / "small.so", image_file, *outputs])
    assert_outputs(tmp_path)
    run([*emulated, "threads", arm_bundle / "small.so", image_file, "4", "2"])


def test_this_machine_refuses_it_in_words(arm_bundle: Path, bundle: Path) -> None:
    with pytest.raises(TargetMismatchError, match=r"^module must run on its target aarch64"):
        convc.load(arm_bundle / "small.so")
    program = bundle / "examples" / "run.py"
    library = bundle / "lib" / "libconvc.so"
    done = subprocess.run(
        ["python3", program, arm_bundle / "small.so", library],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "error 5: module must run on its target aarch64-linux-gnu; got a machine of kind x86_64."
    )


def test_image_is_the_one_the_file_holds(image_file: Path) -> None:
    assert image_file.read_bytes() == image().tobytes()
