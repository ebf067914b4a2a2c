"""cuDNN from C, by its double on the emulated device: plans made with the context, layers that a device refuses, when handles go."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
from tvm_ffi import libinfo

import convc
from convc.deploy.bundle import write_bundle
from convc.deploy.libconvc import NATIVE
from convc.runtime import read_manifest
from tests.cudnn.double_library import build_double
from tests.deploy.small_net import small_net
from tests.deploy.test_cuda import device, nvcc
from tests.deploy.toolbox import HERE, Programs, assert_outputs, run

__all__ = ["device", "nvcc"]  # fixtures

NOT_SUPPORTED, ALLOC_FAILED = 3000, 4003
EVERY = -1


@pytest.fixture(scope="module")
def folder(nvcc: None, programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module in which convc has chosen cuDNN, one in which somebody insists on it, and the program."""
    folder = tmp_path_factory.mktemp("cudnn")
    for use in ("prefer", "require"):
        model = convc.compile(small_net(), target="cuda -arch=sm_90", cudnn=use)
        model.export(folder / f"{use}.so")
    flags = ("-std=c11", "-O1", "-Wall", "-Wextra", "-Werror")
    library = (f"-L{programs.folder}", "-lconvc", "-ldl", f"-Wl,-rpath,{programs.folder}")
    include = NATIVE / "include"
    run(["gcc", *flags, f"-I{include}", HERE / "with_cudnn.c", "-o", folder / "program", *library])
    return folder


class Story:
    """What the program printed."""

    def __init__(self, text: str) -> None:
        self.text = text
        lines = text.splitlines()
        self.said = dict(line.split(": ", 1) for line in lines if ": " in line)
        self.fallbacks = [line for line in lines if " in place of cudnn: " in line]


def story(
    folder: Path,
    use: str,
    device: dict[str, str],
    image_file: Path,
    out: Path,
    *failure: object,
    library: str = "",
) -> Story:
    outputs = (out / "scores.bin", out / "features.bin")
    environment = device | {"CONVC_CUDNN_PATH": library or str(build_double())}
    command = [folder / "program", folder / f"{use}.so", image_file, *outputs]
    return Story(run([*command, *map(str, failure)], env=environment))


def test_plans_are_made_with_the_context_and_handles_go_with_the_module(
    folder: Path, device: dict[str, str], image_file: Path, tmp_path: Path
) -> None:
    found = story(folder, "prefer", device, image_file, tmp_path)
    assert_outputs(tmp_path)
    assert found.fallbacks == []
    assert found.said["context"].count("heuristics") == 2
    assert found.said["context"].count("run ") == 2
    # Calls and nothing else: no plan, no other handle.
    assert found.said["runs"].count("run ") == 6
    assert "heuristics" not in found.said["runs"]
    assert "create" not in found.said["runs"]
    assert found.said["unloaded"] == "destroy;"


@pytest.mark.parametrize("ffi", ["", libinfo.find_libtvm_ffi()], ids=["alone", "beside tvm_ffi"])
def test_one_layer_is_refused(
    ffi: str, folder: Path, device: dict[str, str], image_file: Path, tmp_path: Path
) -> None:
    """Also where a program has tvm_ffi's symbols for all, by a library of its own: what libconvc is told must be no object of that."""
    device = device | ({"LD_PRELOAD": ffi} if ffi else {})
    found = story(folder, "prefer", device, image_file, tmp_path, "cudnnBackendExecute", 0, NOT_SUPPORTED)  # fmt: skip
    assert_outputs(tmp_path)
    (line,) = found.fallbacks
    assert line.startswith("stem: ")
    assert "CUDNN_STATUS_NOT_SUPPORTED" in line
    own = next(s for s in read_manifest(folder / "prefer.so").steps if s.node == "stem" and s.otherwise)  # fmt: skip
    assert f"stem: {own.otherwise[0].algorithm} in place of cudnn: " in line
    # Asked once, with the context.
    assert found.said["runs"].count("run ") == 3
    assert "heuristics" not in found.said["runs"]


@pytest.mark.parametrize(
    "library", ["/no/such.so", pytest.param("8907", marks=pytest.mark.slow), ""]
)
def test_there_is_no_cudnn(
    library: str, folder: Path, device: dict[str, str], image_file: Path, tmp_path: Path
) -> None:
    """Missing, of another version, or without memory: every layer by convc's own, and an error where somebody insists."""
    path = str(build_double(version=int(library))) if library.isdigit() else library
    failure = () if library else ("cudnnCreate", EVERY, ALLOC_FAILED)
    found = story(folder, "prefer", device, image_file, tmp_path, *failure, library=path)
    assert_outputs(tmp_path)
    beside = [s.node for s in read_manifest(folder / "prefer.so").steps if s.otherwise]
    assert [line.split(":")[0] for line in found.fallbacks] == beside
    assert beside[:2] == ["stem", "block"]
    insisted = story(folder, "require", device, image_file, tmp_path, *failure, library=path)
    assert "error" in insisted.said["load" if library else "context"]


def test_what_somebody_insists_on_is_an_error_that_names_the_layer(
    folder: Path, device: dict[str, str], image_file: Path, tmp_path: Path
) -> None:
    found = story(folder, "require", device, image_file, tmp_path, "cudnnBackendExecute", 1, NOT_SUPPORTED)  # fmt: skip
    said = found.said["context"]
    assert said.startswith("error 7: layer 'block' must run on CPU emulation of sm_90 (test double) (sm_90); got: RuntimeError: cuDNN's cudnnBackendExecute")  # fmt: skip
    assert said.endswith("Compile it with --algo-for 'block=ALGORITHM', one of convc's own that `convc explain` lists for it, or with --cudnn off.")  # fmt: skip


@pytest.mark.parametrize(("use", "words"), [("prefer", "is used if it is there"), ("require", "and cuDNN 9 for")])  # fmt: skip
def test_a_bundle_says_whether_cudnn_is_needed(
    use: str, words: str, folder: Path, tmp_path: Path
) -> None:
    with mock.patch("convc.deploy.bundle.build_library"):
        bundle = write_bundle(folder / f"{use}.so", tmp_path / "net")
    text = (bundle / "README.md").read_text()
    assert words in text
    assert "`libcudnn.so.9`" in text
    assert ("is used if it is there" in text) == (use == "prefer")
