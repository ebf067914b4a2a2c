"""A bundle for CUDA: run from C on the emulated device, and refused in words where there is no device that it has code for.

Nothing here ran on a device. The machine code is g++'s, of the same CUDA C; the host code, the launches and libconvc are what ships.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import msgspec
import numpy as np
import pytest

import convc
from convc import CompiledModel
from convc import dsl as cc
from convc.deploy.libconvc import NATIVE
from convc.runtime import read_manifest
from convc.schedules.cuda.dependent_launch import TAG
from tests.cuda_emulation.compiler import compile_kernels, device_library
from tests.cuda_emulation.convc_device import all_early
from tests.cuda_emulation.emulation import compile_and_run
from tests.cuda_emulation.toolkit import toolkit_headers
from tests.cudnn.double_library import build_double
from tests.deploy.empty_root import empty_root, enter, loaded_by
from tests.deploy.small_net import expected, image, small_net
from tests.deploy.toolbox import HERE, Programs, assert_outputs, run


@pytest.fixture(scope="module")
def nvcc() -> Iterator[None]:
    """g++ in nvcc's place."""
    name = "convc.schedules.cuda.nvcc.compile_source"
    with mock.patch(name, lambda source, gpu: compile_kernels(source)):
        yield


@pytest.fixture(scope="module")
def compiled(nvcc: None) -> CompiledModel:
    """Its second layer is split: two kernels with a workspace between them."""
    return convc.compile(small_net(), target="cuda -arch=sm_90")


@pytest.fixture(scope="module")
def bundle(compiled: CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled.export(tmp_path_factory.mktemp("cuda") / "small", format="bundle")


@pytest.fixture(scope="module")
def device() -> dict[str, str]:
    """The environment in which programs find the emulated device's driver."""
    return {"LD_LIBRARY_PATH": str(device_library()[1].parent)}


def test_what_is_in_it(bundle: Path) -> None:
    files = {str(p.relative_to(bundle)) for p in bundle.rglob("*") if p.is_file()}
    assert {"small.so", "lib/libconvc.so", "include/convc.h", "examples/CMakeLists.txt"} <= files
    assert not any("cudart" in name or "tvm" in name for name in files)
    readme = (bundle / "README.md").read_text()
    assert "sm_90 (sm_90 runs on" in readme
    assert "NVIDIA's driver of CUDA 13 (580 or newer)" in readme
    assert "$" not in readme.replace("'$ORIGIN/lib'", "")


def test_results_in_c(
    bundle: Path, programs: Programs, device: dict[str, str], image_file: Path, tmp_path: Path
) -> None:
    """Three runs: the first by launches, the others as a graph."""
    outputs = [tmp_path / "scores.bin", tmp_path / "features.bin"]
    programs.drive("run", "best", bundle / "small.so", image_file, *outputs, **device)
    assert_outputs(tmp_path)


def test_results_of_early_kernels_in_c(
    nvcc: None, programs: Programs, device: dict[str, str], image_file: Path, tmp_path: Path
) -> None:
    """Each is launched before the one ahead of it has ended, and has no memory until it has waited."""
    with all_early():
        model = convc.compile(small_net(), target="cuda -arch=sm_90").export(tmp_path / "small.so")
    assert TAG.encode() in model.read_bytes()
    outputs = [tmp_path / "scores.bin", tmp_path / "features.bin"]
    programs.drive("run", "best", model, image_file, *outputs, **device)
    assert_outputs(tmp_path)


def test_results_of_clusters_in_c(
    nvcc: None, programs: Programs, device: dict[str, str], tmp_path: Path
) -> None:
    """Parts of a sum meet in another block's shared memory; a driver's launch says nothing of it, the kernel itself does."""
    data = np.random.default_rng(0).integers(-1, 2, (1, 384, 7, 7)).astype(np.float16)
    filters = np.random.default_rng(1).integers(-1, 2, (40, 384, 1, 1)).astype(np.float16)
    x = cc.input("x", data.shape, "float16")
    graph = cc.graph({"y": cc.conv2d(x, filters, name="wide")}, name="wide")
    pinned = {"target": "cuda -arch=sm_90", "algo": "tensor_core_blocked"}
    lock = convc.compile(graph, **pinned).planned.lock
    plan = msgspec.to_builtins(lock)
    # No estimate takes a cluster.
    plan["layers"]["wide"]["knobs"] = {
        "pixels": 64, "channels": 16, "step": 64, "warp_pixels": 16, "warp_channels": 16,
        "math": 1, "split": 2, "stages": 3, "group": 4, "cluster": 2,
    }  # fmt: skip
    (tmp_path / "wide.lock").write_bytes(msgspec.json.encode(plan))
    model = convc.compile(graph, **pinned, locked=tmp_path / "wide.lock")
    data.tofile(tmp_path / "x.bin")
    out = tmp_path / "y.bin"
    programs.drive(
        "run", "best", model.export(tmp_path / "wide.so"), tmp_path / "x.bin", out, **device
    )
    expected = np.einsum("kc,nchw->nkhw", filters[:, :, 0, 0].astype(int), data.astype(int))
    assert np.abs(expected).max() < 2048  # a float16 has all whole numbers
    np.testing.assert_array_equal(np.fromfile(out, np.float16).reshape(expected.shape), expected)


def test_any_number_of_samples(
    nvcc: None, programs: Programs, device: dict[str, str], tmp_path: Path
) -> None:
    """All sizes' kernels are in one block; each size has a graph of its own."""
    model = convc.compile(small_net(batch="N"), target="cuda -arch=sm_90", batch_sizes=(1, 3))
    x = np.concatenate([image(seed) for seed in range(5)])
    x.tofile(tmp_path / "x.bin")
    outputs = [tmp_path / "scores.bin", tmp_path / "features.bin"]
    module_file = model.export(tmp_path / "small.so")
    programs.drive("batch", module_file, tmp_path / "x.bin", 5, *outputs, **device)
    for name, value in expected(x).items():
        found = np.fromfile(tmp_path / f"{name}.bin", np.float32).reshape(value.shape)
        np.testing.assert_array_equal(found, value)


@pytest.mark.slow
def test_any_number_of_samples_in_python() -> None:
    x = np.concatenate([image(seed) for seed in range(5)])
    options = {"target": "cuda -arch=sm_90", "batch_sizes": (1, 3)}
    outputs, _ = compile_and_run(small_net(batch="N"), {"x": x}, orders=("up",), **options)
    for name, value in expected(x).items():
        np.testing.assert_array_equal(outputs[name], value)


def test_between_buffers_on_the_device(
    bundle: Path, device: dict[str, str], image_file: Path, tmp_path: Path
) -> None:
    program = tmp_path / "on_device"
    run(
        [
            *("gcc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{bundle / 'include'}"),
            *(HERE / "on_device.c", "-o", program, f"-L{bundle / 'lib'}", "-lconvc", "-ldl"),
            f"-Wl,-rpath,{bundle / 'lib'}",
        ]
    )
    outputs = [tmp_path / "scores.bin", tmp_path / "features.bin"]
    printed = run([program, bundle / "small.so", image_file, *outputs], env=device)
    assert_outputs(tmp_path)
    planned = read_manifest(bundle / "small.so").workspace_bytes
    assert planned > 0
    assert (
        printed == f"CPU emulation of sm_90 (test double) (sm_90), {planned} bytes of workspace\n"
    )


def test_profile_and_trace(
    bundle: Path, programs: Programs, device: dict[str, str], tmp_path: Path
) -> None:
    printed = programs.drive("trace", bundle / "small.so", tmp_path / "trace.json", **device)
    assert [line.split("\t")[0] for line in printed.splitlines()] == [
        step.node for step in read_manifest(bundle / "small.so").steps
    ]
    events = msgspec.json.decode((tmp_path / "trace.json").read_bytes())["traceEvents"]
    assert next(e["name"] for e in events if e["ph"] == "X") == "stem"


def test_in_a_root_with_nothing_but_the_driver(
    bundle: Path, image_file: Path, tmp_path: Path
) -> None:
    program, root = tmp_path / "run", tmp_path / "root"
    run(
        [
            *("cc", "-std=c11", "-O2", f"-I{bundle / 'include'}", bundle / "examples" / "run.c"),
            *("-o", program, f"-L{bundle / 'lib'}", "-lconvc", "-Wl,-rpath,/bundle/lib"),
        ]
    )
    empty_root(root, bundle, program)
    shutil.copyfile(image_file, root / "x.bin")
    way = enter(root)
    without = subprocess.run(
        [*way, "/run", "/bundle/small.so", "/x.bin"], capture_output=True, text=True, check=False
    )
    assert without.returncode == 1
    assert "error 5: a module for cuda must find NVIDIA's driver, libcuda.so.1" in without.stderr
    # The driver of that machine, with what it needs itself.
    runtime, driver = device_library()
    for path in {runtime, driver, *loaded_by(driver, driver.parent)}:
        in_lib = path.parent == driver.parent
        place = root / ("lib" if in_lib else path.parent.relative_to("/")) / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path.resolve(), place)
    printed = run([*way, "/run", "/bundle/small.so", "/x.bin"], env={"LD_LIBRARY_PATH": "/lib"})
    (line,) = (text for text in printed.splitlines() if text.startswith("scores: "))
    assert [float(w) for w in line.split()[4:]] == expected(image())["scores"].ravel().tolist()


def test_static_archive(
    compiled: CompiledModel, device: dict[str, str], image_file: Path, tmp_path: Path
) -> None:
    """Two models in one program, each with kernels of the same names."""
    for name in ("one", "two"):
        compiled.export(tmp_path / f"{name}.a", format="static")
    run(
        [
            *("gcc", "-std=c11", "-O1", f"-I{tmp_path}", HERE / "linked.c", tmp_path / "one.a"),
            *(tmp_path / "two.a", "-lpthread", "-ldl", "-lm", "-o", tmp_path / "program"),
        ]
    )
    outputs = [tmp_path / "scores.bin", tmp_path / "features.bin"]
    run([tmp_path / "program", image_file, *outputs], env=device)
    assert_outputs(tmp_path)


def first_line(programs: Programs, path: Path, **environment: str) -> str:
    return programs.drive("load", path, **environment).strip()


def test_another_device_is_refused_in_words(
    nvcc: None, programs: Programs, device: dict[str, str], tmp_path: Path
) -> None:
    path = convc.compile(small_net(), target="cuda -arch=sm_80").export(tmp_path / "old.so")
    assert first_line(programs, path, **device) == (
        "5 module must have code for this device, CPU emulation of sm_90 (test double) (sm_90); got sm_80. Compile it with --sm 90."
    )
    assert first_line(programs, path).startswith(
        "5 a module for cuda must find NVIDIA's driver, libcuda.so.1; got none ("
    )


def test_a_driver_without_what_is_needed(bundle: Path, programs: Programs, tmp_path: Path) -> None:
    """Of an older CUDA, or of none."""
    source = tmp_path / "driver.c"
    for text, words in (
        ("int nothing;", "must be of CUDA 13 (580 or newer); got one without cuInit."),
        (old_driver(), "must be of CUDA 13 (580 or newer); got one of CUDA 12.4."),
        (old_driver(answer=100), "must find a CUDA device; got none: cuInit answers 100."),
    ):
        source.write_text(text)
        run(["gcc", "-shared", "-fPIC", source, "-o", tmp_path / "libcuda.so.1"])
        said = first_line(programs, bundle / "small.so", LD_LIBRARY_PATH=str(tmp_path))
        assert said.startswith("5 ")
        assert words in said


def old_driver(answer: int = 0) -> str:
    """Return C with all functions that libconvc asks for, of CUDA 12.4; cuInit answers as given."""
    header = (NATIVE / "src" / "driver.h").read_text()
    names = {line.split("(*")[1].split(")")[0] for line in header.splitlines() if " (*cu" in line}
    assert len(names) > 30
    rest = "".join(f"int {n}() {{ return 1; }}\n" for n in names - {"cuInit", "cuDriverGetVersion"})
    version = "int cuDriverGetVersion(int *v) { return *v = 12040, 0; }\n"
    return f"{rest}{version}int cuInit(unsigned f) {{ return f + {answer}; }}\n"


def test_our_declarations_of_the_driver_are_those_of_the_toolkit() -> None:
    folder = toolkit_headers()
    check = HERE / "driver_abi_check.cpp"
    run(["g++", "-std=c++17", "-fsyntax-only", f"-I{folder}", f"-I{NATIVE / 'src'}", check])


@pytest.fixture(scope="module")
def with_cudnn(nvcc: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = convc.compile(small_net(), target="cuda -arch=sm_90", algo="cudnn")
    return model.export(tmp_path_factory.mktemp("cudnn") / "small", format="bundle")


def test_cudnn_is_found_by_path(
    with_cudnn: Path, programs: Programs, device: dict[str, str], image_file: Path, tmp_path: Path
) -> None:
    """The module's shim asks libconvc for stream and workspace; nothing of TVM is needed, nor cuDNN in the bundle."""
    module_file = with_cudnn / "small.so"
    assert {s.algorithm for s in read_manifest(module_file).steps if s.op == "conv"} == {"cudnn"}
    table = run(["nm", "-D", "--undefined-only", module_file])
    strong = {line.split()[-1] for line in table.splitlines() if line.split()[-2] == "U"}
    assert not [name for name in strong if name.startswith("TVM")]
    assert "`libcudnn.so.9`" in (with_cudnn / "README.md").read_text()
    outputs = [tmp_path / "scores.bin", tmp_path / "features.bin"]
    path = {"CONVC_CUDNN_PATH": str(build_double())}
    programs.drive("run", "best", module_file, image_file, *outputs, **device, **path)
    assert_outputs(tmp_path)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (0, "5 a module with cuDNN in it must find cuDNN 9, '/no/such.so'; got none ("),
        (8907, "5 cuDNN must be version 9; got version 8 (8907) in "),
    ],
)
def test_no_cudnn_or_another(
    version: int, words: str, with_cudnn: Path, programs: Programs, device: dict[str, str]
) -> None:
    path = build_double(version=version) if version else "/no/such.so"
    said = first_line(programs, with_cudnn / "small.so", **device, CONVC_CUDNN_PATH=str(path))
    assert said.startswith(words)


@pytest.mark.slow
def test_cudnn_in_a_static_archive(
    nvcc: None, device: dict[str, str], image_file: Path, tmp_path: Path
) -> None:
    model = convc.compile(small_net(), target="cuda -arch=sm_90", algo="cudnn")
    for name in ("one", "two"):
        model.export(tmp_path / f"{name}.a", format="static")
    assert "-lstdc++." in (tmp_path / "one.h").read_text()
    run(
        [
            *("gcc", "-std=c11", "-O1", f"-I{tmp_path}", HERE / "linked.c", tmp_path / "one.a"),
            *(
                tmp_path / "two.a",
                "-lpthread",
                "-ldl",
                "-lm",
                "-lstdc++",
                "-o",
                tmp_path / "program",
            ),
        ]
    )
    outputs = [tmp_path / "scores.bin", tmp_path / "features.bin"]
    path = {"CONVC_CUDNN_PATH": str(build_double())}
    run([tmp_path / "program", image_file, *outputs], env=device | path)
    assert_outputs(tmp_path)
