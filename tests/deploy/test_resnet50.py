"""The network that the promises are about, at its real size: in a root without Python, its memory, its allocations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import convc
from convc import CompiledModel
from convc.inputs import random_inputs
from convc.ir.randomise import randomise
from convc.ir.reference import interpret
from convc.verify import compare
from tests.deploy.empty_root import empty_root, enter
from tests.deploy.toolbox import HERE, Programs, run

pytestmark = pytest.mark.slow
MODEL = Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"


@pytest.fixture(scope="module")
def resnet50() -> CompiledModel:
    """With random weights: those that ship with the model are all one number."""
    return convc.compile(randomise(convc.load_graph(MODEL), seed=0), mcpu="x86-64-v3", threads=1)


@pytest.fixture(scope="module")
def shipped(resnet50: CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return resnet50.export(tmp_path_factory.mktemp("shipped") / "resnet50", format="bundle")


def test_in_a_root_with_nothing_but_the_c_library(
    resnet50: CompiledModel, shipped: Path, tmp_path: Path
) -> None:
    program, root = tmp_path / "driver", tmp_path / "root"
    run(
        [
            *("gcc", "-std=c11", "-O1", f"-I{shipped / 'include'}", HERE / "driver.c"),
            *("-o", program, f"-L{shipped / 'lib'}", "-lconvc", "-lpthread"),
            "-Wl,-rpath,/bundle/lib",
        ]
    )
    empty_root(root, shipped, program)
    (fed,) = random_inputs(resnet50.manifest.inputs, 1).values()
    fed.tofile(root / "x.bin")
    names = {path.name for path in root.rglob("*") if path.is_file()}
    assert not {n for n in names if any(w in n for w in ("python", "tvm", "stdc++"))}
    run([*enter(root), "/run", "run", "best", "/bundle/resnet50.so", "/x.bin", "/y.bin"])
    (signature,) = resnet50.manifest.outputs
    found = np.fromfile(root / "y.bin", np.float32).reshape(signature.shape)
    (name,) = (t.name for t in resnet50.manifest.inputs)
    (expected,) = interpret(resnet50.source, {name: fed}).values()
    assert compare(signature.name, found, expected, 1e-4).max_relative_error <= 1e-4


def test_planned_memory_is_what_is_measured(programs: Programs, shipped: Path) -> None:
    planned, measured, workspace, taken = map(
        int, programs.drive("memory", shipped / "resnet50.so").split()
    )
    assert taken <= workspace
    # What is not planned: the code (2 MB), the manifest and its parts, pages of the C library.
    assert planned <= measured + (64 << 10)
    assert measured <= planned + (4 << 20)


def test_no_run_after_the_first_allocates(programs: Programs, counter: Path, shipped: Path) -> None:
    assert programs.drive("counted", shipped / "resnet50.so", 3, LD_PRELOAD=str(counter)) == "0\n"
