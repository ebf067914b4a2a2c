"""libconvc from C: right results, wrong calls, many threads, many loads, no allocation, no growth."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import convc
from convc import CompiledModel
from convc import dsl as cc
from convc.deploy.libconvc import NATIVE
from convc.runtime import aligned_empty, read_manifest
from convc.runtime.host import usable_threads
from tests.deploy.small_net import ALGORITHM, CPUS, expected, image, small_net
from tests.deploy.toolbox import Programs, assert_outputs, run

VALGRIND = (
    "valgrind",
    "--error-exitcode=9",
    "--leak-check=full",
    "--show-leak-kinds=definite",
    "-q",
)


def run_files(module_file: Path, image_file: Path, tmp_path: Path) -> list[Path]:
    return [module_file, image_file, tmp_path / "scores.bin", tmp_path / "features.bin"]


def test_results(programs: Programs, module_file: Path, image_file: Path, tmp_path: Path) -> None:
    programs.drive("run", "best", *run_files(module_file, image_file, tmp_path))
    assert_outputs(tmp_path)


def test_a_file_made_anew_where_a_loaded_one_lies(
    programs: Programs, module_file: Path, image_file: Path, tmp_path: Path
) -> None:
    """The dynamic loader knows the path: it would give the new module the old one's code."""
    x = cc.input("x", (1, 3, 16, 16))
    other = cc.graph({"y": cc.conv2d(x, np.ones((4, 3, 3, 3), np.float32), name="other")})
    place = convc.compile(other, threads=1).export(tmp_path / "module.so")
    newer = shutil.copy(module_file, tmp_path / "newer.so")
    programs.drive("replaced", place, newer, *run_files(module_file, image_file, tmp_path)[1:])
    assert_outputs(tmp_path)


@pytest.mark.isa("avx2")
@pytest.mark.isa("fma")
@pytest.mark.parametrize("cpu", CPUS)
def test_each_variant_by_name(
    programs: Programs, cpu: str, module_file: Path, image_file: Path, tmp_path: Path
) -> None:
    programs.drive("run", cpu, *run_files(module_file, image_file, tmp_path))
    assert_outputs(tmp_path)


@pytest.fixture(scope="module")
def batched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Code for 4 and 2 samples. A sample's scores have 40 bytes: most parts of them begin between two cache lines."""
    model = convc.compile(small_net(batch="N"), threads=1, algo=ALGORITHM, batch_sizes=(2, 4))
    return model.export(tmp_path_factory.mktemp("batched") / "small.so")


def assert_samples(x: np.ndarray, folder: Path) -> None:
    for name, value in expected(x).items():
        found = np.fromfile(folder / f"{name}.bin", np.float32).reshape(value.shape)
        np.testing.assert_array_equal(found, value)


def test_a_symbolic_batch_runs_at_its_largest_size(
    programs: Programs, batched: Path, tmp_path: Path
) -> None:
    x = np.concatenate([image(seed) for seed in range(4)])
    x.tofile(tmp_path / "x.bin")
    programs.drive("run", "best", *run_files(batched, tmp_path / "x.bin", tmp_path))
    assert_samples(x, tmp_path)


@pytest.mark.parametrize("samples", [1, 3, 11])
def test_any_number_of_samples(
    samples: int, sanitized: Programs, batched: Path, tmp_path: Path
) -> None:
    x = np.concatenate([image(seed) for seed in range(samples)])
    x.tofile(tmp_path / "x.bin")
    outputs = [tmp_path / "scores.bin", tmp_path / "features.bin"]
    sanitized.drive("batch", batched, tmp_path / "x.bin", samples, *outputs)
    assert_samples(x, tmp_path)


def test_no_run_of_a_batch_after_the_first_allocates(
    programs: Programs, counter: Path, batched: Path
) -> None:
    assert programs.drive("counted", batched, 3, LD_PRELOAD=str(counter)) == "0\n"


def test_wrong_calls_are_errors_in_words(sanitized: Programs, module_file: Path) -> None:
    sanitized.drive("misuse", module_file)


def test_sanitizers_find_nothing(
    sanitized: Programs, module_file: Path, image_file: Path, tmp_path: Path
) -> None:
    sanitized.drive("run", "best", *run_files(module_file, image_file, tmp_path))
    assert_outputs(tmp_path)
    sanitized.drive("threads", module_file, image_file, 8, 5)
    sanitized.drive("trace", module_file, tmp_path / "trace.json")


@pytest.mark.skipif(usable_threads() < 2, reason="needs two usable cores")
def test_a_forked_child(programs: Programs, module_file: Path) -> None:
    """Its copy of a context has no workers: an error, not waiting for ever; what can work there works.

    Without sanitizers: a lock of the allocator of GCC 12's is never released in a child when another thread had it at the fork; one
    run of 60 waited for it.
    """
    programs.drive("fork", module_file)


def test_eight_threads_at_once(programs: Programs, module_file: Path, image_file: Path) -> None:
    programs.drive("threads", module_file, image_file, 8, 200)


def test_a_thousand_loads_do_not_grow(programs: Programs, module_file: Path) -> None:
    growth = int(programs.drive("reload", module_file, 1000))
    # Kilobytes, over 900 loads. A leaked context would be 40 each, a leaked mapping of the file 200.
    assert growth < 256


def test_no_run_after_the_first_allocates(
    programs: Programs, counter: Path, module_file: Path, wide: CompiledModel, tmp_path: Path
) -> None:
    """Nor one whose kernels take scratch memory."""
    for path in (module_file, wide.export(tmp_path / "wide.so")):
        assert programs.drive("counted", path, 100, LD_PRELOAD=str(counter)) == "0\n"


def test_a_run_in_python_allocates_no_array(module_file: Path) -> None:
    """Into the caller's outputs; a call's own small objects go with it."""
    module = convc.load(module_file, threads=1)
    fed = {t.name: aligned_empty(t.shape, t.dtype) for t in module.inputs}
    outputs = {t.name: aligned_empty(t.shape, t.dtype) for t in module.outputs}
    for array in fed.values():
        array[...] = 0
    # The first two thousand runs leave 48 bytes each with ctypes and then none do: not a leak, but not nothing either.
    for _ in range(5000):
        module.run(fed, outputs=outputs)
    blocks = sys.getallocatedblocks()
    for _ in range(1000):
        module.run(fed, outputs=outputs)
    assert sys.getallocatedblocks() - blocks < 100
    tracemalloc.start()
    module.run(fed, outputs=outputs)
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    module.run(fed, outputs=outputs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - before < min(t.nbytes for t in module.inputs)


@pytest.fixture(scope="module")
def wide() -> CompiledModel:
    """Its panels do not fit a stack frame, so that there is a workspace, too."""
    x = cc.input("x", (1, 64, 56, 56))
    graph = cc.graph({"y": cc.conv2d(x, np.ones((64, 64, 3, 3), np.float32), pads=1)}, name="wide")
    return convc.compile(graph, mcpu="x86-64-v3", threads=1, algo="im2col")


def test_planned_memory_is_what_is_measured(
    programs: Programs, wide: CompiledModel, tmp_path: Path
) -> None:
    """The sum that `inspect --memory` prints against the memory that a load and a run add."""
    planned, measured, workspace, taken = map(
        int, programs.drive("memory", wide.export(tmp_path / "wide.so")).split()
    )
    assert taken == workspace == wide.manifest.workspace_bytes > 0
    # A quarter of a MiB for what is not planned: the module's code and manifest, the library's own objects (97 KiB measured).
    assert planned <= measured + (64 << 10)
    assert measured <= planned + (256 << 10)


def test_inspection_from_c(programs: Programs, module_file: Path, tmp_path: Path) -> None:
    damaged = bytearray(module_file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.so").write_bytes(damaged)
    first, second = programs.drive("inspect", module_file, tmp_path / "damaged.so").splitlines()
    assert first == "0 small"
    assert second.startswith("4 ")


def test_profile_and_trace(programs: Programs, module_file: Path, tmp_path: Path) -> None:
    rows = [
        line.split("\t")
        for line in programs.drive("trace", module_file, tmp_path / "t").splitlines()
    ]
    steps = read_manifest(module_file).variants[0].steps
    assert [row[0] for row in rows] == [step.node for step in steps]
    assert [int(row[3]) for row in rows] == [step.flops for step in steps]
    document = json.loads((tmp_path / "t").read_text())
    spans = [e for e in document["traceEvents"] if e["ph"] == "X"]
    assert [e["name"] for e in spans] == [step.node for step in steps]
    assert all(a["ts"] + a["dur"] <= b["ts"] + 1e-3 for a, b in itertools.pairwise(spans))


def test_the_library_needs_the_c_library_alone(programs: Programs) -> None:
    table = run(["readelf", "-dW", programs.folder / "libconvc.so"])
    needed = {line.split("[")[1].rstrip("]") for line in table.splitlines() if "(NEEDED)" in line}
    assert needed <= {"libc.so.6", "ld-linux-x86-64.so.2", "libpthread.so.0", "libdl.so.2"}
    symbols = run(["nm", "-D", "--defined-only", programs.folder / "libconvc.so"])
    exported = {line.split()[-1] for line in symbols.splitlines()}
    assert {name for name in exported if not name.startswith("convc_")} == set()
    declared = (NATIVE / "include" / "convc.h").read_text()
    assert all(f"{name}(" in declared for name in exported)


class Valgrind:
    """The same programs with every access to memory looked at, slower by a factor of 50."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    def drive(self, *words: object) -> str:
        return self._programs.drive(*words, before=VALGRIND)


@pytest.fixture(scope="session")
def under_valgrind(programs: Programs) -> Valgrind:
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed (apt-get install valgrind)")
    return Valgrind(programs)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", CPUS)
def test_valgrind_finds_nothing_in_a_run(
    under_valgrind: Valgrind,
    cpu: str,
    module_file: Path,
    image_file: Path,
    tmp_path: Path,
) -> None:
    under_valgrind.drive("run", cpu, *run_files(module_file, image_file, tmp_path))
    assert_outputs(tmp_path)


@pytest.mark.slow
def test_valgrind_finds_nothing_in_wrong_calls(under_valgrind: Valgrind, module_file: Path) -> None:
    under_valgrind.drive("misuse", module_file)


@pytest.mark.slow
def test_valgrind_finds_nothing_in_eight_threads(
    under_valgrind: Valgrind, module_file: Path, image_file: Path
) -> None:
    under_valgrind.drive("threads", module_file, image_file, 8, 3)


@pytest.mark.slow
@pytest.mark.parametrize("quarter", range(4))
def test_valgrind_finds_nothing_in_a_thousand_loads(
    under_valgrind: Valgrind, quarter: int, module_file: Path
) -> None:
    """In four parts, each of which ends within minutes on a busy machine."""
    under_valgrind.drive("reload", module_file, 250)


@pytest.mark.slow
def test_eight_threads_under_the_address_sanitizer(
    sanitized: Programs, module_file: Path, image_file: Path
) -> None:
    sanitized.drive("threads", module_file, image_file, 8, 500)


@pytest.mark.slow
def test_a_thousand_loads_under_the_address_sanitizer(
    sanitized: Programs, module_file: Path
) -> None:
    sanitized.drive("reload", module_file, 1000)


@pytest.mark.slow
def test_thread_sanitizer_finds_nothing(
    module_file: Path, image_file: Path, tmp_path: Path
) -> None:
    programs = Programs(tmp_path, ["-fsanitize=thread", "-g"])
    done = subprocess.run(
        [programs.driver, "threads", module_file, image_file, "8", "50"],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("this kernel's address layout is one that the thread sanitizer does not know")
    assert done.returncode == 0, done.stderr
