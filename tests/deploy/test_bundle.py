"""A bundle is enough: with its examples, in C, C++ and Python, and in a root with nothing but the C library."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from convc import CompiledModel
from convc.compiled_model import ExportFormat
from convc.deploy.bundle import write_bundle
from convc.errors import PackageError, ToolchainError
from tests.deploy.empty_root import empty_root, enter
from tests.deploy.small_net import expected, image
from tests.deploy.toolbox import assert_outputs, run


@pytest.fixture(scope="module")
def example(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C example, linked as the bundle's README says."""
    program = tmp_path_factory.mktemp("example") / "run"
    run(
        [
            *("cc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{bundle / 'include'}"),
            *(bundle / "examples" / "run.c", "-o", program, f"-L{bundle / 'lib'}", "-lconvc"),
            f"-Wl,-rpath,{bundle / 'lib'},-rpath,/bundle/lib",
        ]
    )
    return program


def first_scores(printed: str) -> list[float]:
    (line,) = (
        text for text in printed.splitlines() if text.startswith("scores: float32, 40 bytes")
    )
    return [float(word) for word in line.split()[4:]]


def scores_of(x: np.ndarray) -> list[float]:
    return expected(x)["scores"].ravel().tolist()


def test_what_is_in_it(bundle: Path) -> None:
    sums = dict(
        reversed(line.split("  ")) for line in (bundle / "SHA256SUMS").read_text().splitlines()
    )
    files = {str(p.relative_to(bundle)) for p in bundle.rglob("*") if p.is_file()}
    assert set(sums) == files - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == digest
    readme = (bundle / "README.md").read_text()
    assert "| `x` | float32 | 1 x 3 x 16 x 16 | 3072 |" in readme
    assert "- x86-64-v3 (x86_64-linux-gnu): needs " in readme
    assert "$" not in readme.replace("'$ORIGIN/lib'", "")


def test_no_path_of_this_machine_in_it(
    bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for path in (bundle / "lib" / "libconvc.so", bundle / "small.so"):
        data = path.read_bytes()
        assert str(Path.cwd()).encode() not in data
        assert str(tmp_path_factory.getbasetemp()).encode() not in data


def test_example_in_c(example: Path, bundle: Path, image_file: Path) -> None:
    assert first_scores(run([example, bundle / "small.so", image_file])) == scores_of(image())
    timed = run([example, "--time", "20", bundle / "small.so"])
    assert "load " in timed


def test_example_in_cpp(bundle: Path, tmp_path: Path) -> None:
    program = tmp_path / "run"
    run(
        [
            *("g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{bundle / 'include'}"),
            *(bundle / "examples" / "run.cc", "-o", program, f"-L{bundle / 'lib'}", "-lconvc"),
            *("-lpthread", f"-Wl,-rpath,{bundle / 'lib'}"),
        ]
    )
    printed = run([program, bundle / "small.so", "8"])
    assert printed.startswith("small for x86-64-v")
    assert printed.count("thread ") == 8
    done = subprocess.run([program, "/no/such.so"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error 2: module file must be readable; got '/no/such.so'" in done.stderr


def test_example_in_python(bundle: Path) -> None:
    """With the standard library alone: -S and -I leave site-packages and this project out."""
    printed = run([sys.executable, "-S", "-I", bundle / "examples" / "run.py", bundle / "small.so"])
    assert first_scores(printed) == scores_of(0 * image())


def test_cmake(bundle: Path, tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed (apt-get install cmake)")
    run(["cmake", "-S", bundle / "examples", "-B", tmp_path])
    run(["cmake", "--build", tmp_path])
    assert "scores: float32" in run([tmp_path / "run_c", bundle / "small.so"])
    assert "thread 1" in run([tmp_path / "run_cpp", bundle / "small.so", "2"])


def test_in_a_root_with_nothing_else(
    example: Path, bundle: Path, image_file: Path, tmp_path: Path
) -> None:
    empty_root(tmp_path, bundle, example)
    shutil.copyfile(image_file, tmp_path / "x.bin")
    files = {p.name for p in tmp_path.rglob("*") if p.is_file()}
    assert not {name for name in files if "python" in name or "tvm" in name or "stdc++" in name}
    printed = run([*enter(tmp_path), "/run", "/bundle/small.so", "/x.bin"])
    assert first_scores(printed) == scores_of(image())


def test_static_archive_in_a_program(
    compiled: CompiledModel, image_file: Path, tmp_path: Path
) -> None:
    """Two models and one runtime in one program that needs no file."""
    for name in ("one", "two"):
        compiled.export(tmp_path / f"{name}.a", format="static")
    program = tmp_path / "program"
    source = Path(__file__).with_name("linked.c")
    run(
        [
            *("gcc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{tmp_path}", source),
            *(tmp_path / "one.a", tmp_path / "two.a", "-lpthread", "-ldl", "-lm", "-o", program),
        ]
    )
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    program = Path(shutil.move(program, moved))
    for path in tmp_path.glob("*.a"):
        path.unlink()
    run([program, image_file, moved / "scores.bin", moved / "features.bin"])
    assert_outputs(moved)


def test_equal_modules_give_equal_bundles(bundle: Path, tmp_path: Path) -> None:
    files = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        files.append(write_bundle(bundle / "small.so", tmp_path / folder / "net.tar"))
    assert files[0].read_bytes() == files[1].read_bytes()
    with tarfile.open(files[0]) as archive:
        assert "net/net.so" in archive.getnames()
        assert {entry.uid for entry in archive} == {0}


def test_a_folder_that_holds_something_is_left_alone(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(PackageError, match=r"^a bundle's folder must be new or empty; got "):
        write_bundle(bundle / "small.so", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(("form", "name"), [("so", "x.so"), ("bundle", "x"), ("static", "x.a")])
def test_a_folder_that_is_not_there(
    compiled: CompiledModel, tmp_path: Path, form: ExportFormat, name: str
) -> None:
    with pytest.raises(PackageError, match=r"must go into a folder that exists; got .*none"):
        compiled.export(tmp_path / "none" / name, format=form)


def test_no_compiler(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError) as caught:
        write_bundle(bundle / "small.so", tmp_path / "net", cc="riscv64-linux-gnu-g++-none")
    assert str(caught.value).startswith("cc must be a C++ compiler on PATH; got ")
    assert list(tmp_path.iterdir()) == []


def test_a_static_archive_needs_a_name_for_c(compiled: CompiledModel, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"since it names a C symbol; got 'a-b'"):
        compiled.export(tmp_path / "a-b.a", format="static")
