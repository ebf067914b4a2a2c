from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import msgspec
import numpy as np
import pytest
import tvm_ffi
from numpy.typing import NDArray

from convc.compiler import compile
from convc.errors import ConvcError, InputError, PackageError, TargetMismatchError
from convc.ir.text import parse
from convc.lowering.package import link
from convc.runtime import Module, TargetInfo, aligned_empty, host, load
from tests.runtime import runtime_modules


@pytest.fixture(scope="module")
def affine(affine_file: Path) -> Module:
    return load(affine_file, threads=1)


@pytest.fixture(scope="module")
def concatenation(concatenation_file: Path) -> Module:
    return load(concatenation_file, threads=1)


def check(outputs: tuple[NDArray, NDArray], x: NDArray) -> None:
    y, z = runtime_modules.affine_reference(x)
    np.testing.assert_array_equal(outputs[0], y)
    np.testing.assert_array_equal(outputs[1], z)


def test_call(affine: Module, x: NDArray) -> None:
    outputs = affine(x)
    assert isinstance(outputs, tuple)
    check(outputs, x)
    assert all(array.ctypes.data % 64 == 0 for array in outputs)
    check(affine(x=x), x)


def test_run_by_name(affine: Module, x: NDArray) -> None:
    outputs = affine.run({"x": x})
    assert list(outputs) == ["y", "z"]
    check((outputs["y"], outputs["z"]), x)


def test_one_output_is_an_array(double_file: Path) -> None:
    x = np.arange(64, dtype=np.float32)
    np.testing.assert_array_equal(load(double_file)(x), 2 * x)


def test_runs_do_not_share_outputs(affine: Module, x: NDArray) -> None:
    first = affine(x)
    before = first[0].copy()
    affine(x + 1)
    np.testing.assert_array_equal(first[0], before)


def test_preallocated_outputs(affine: Module, x: NDArray) -> None:
    y = aligned_empty((8, 64), np.float32)
    outputs = affine.run({"x": x}, outputs={"y": y})
    assert outputs["y"] is y
    check((y, outputs["z"]), x)


def test_describes_itself(affine: Module) -> None:
    assert [tensor.name for tensor in affine.inputs] == ["x"]
    assert [tensor.shape for tensor in affine.outputs] == [(8, 64), (8,)]
    assert affine.threads == 1
    assert repr(affine) == "<convc module 'affine' for x86-64-v3, 1 threads>"


@pytest.mark.parametrize("offset", [4, 8, 16, 32, 60])
def test_unaligned_inputs(
    affine: Module, x: NDArray, offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TVM's aligned vector loads may end the process on such memory, so it must be copied."""
    entry, addresses = affine._entry, []

    def spy(*arguments: tvm_ffi.Tensor) -> None:
        addresses.extend(argument.data_ptr() for argument in arguments)
        entry(*arguments)

    monkeypatch.setattr(affine, "_entry", spy)
    check(affine(runtime_modules.placed(x, offset)), x)
    check(affine(runtime_modules.Foreign(runtime_modules.placed(x, offset))), x)
    affine.run({"x": runtime_modules.placed(x, offset)})
    assert len(addresses) == 3 * 5
    assert [address % 64 for address in addresses] == [0] * 15


def test_unaligned_input_of_a_kernel_that_would_crash(double_file: Path) -> None:
    """Its vmovaps faults on such memory; without the copy this ends the test run."""
    module = load(double_file, threads=1)
    x = np.arange(64, dtype=np.float32)
    for offset in (4, 16, 20):
        np.testing.assert_array_equal(module(runtime_modules.placed(x, offset)), 2 * x)
    assert module.profile({"x": runtime_modules.placed(x, 4)}, repeats=1)


def test_aligned_inputs_are_not_copied(affine: Module, x: NDArray) -> None:
    affine(x, *())
    context = affine._context()
    context.staging.clear()
    affine(x)
    affine(runtime_modules.Foreign(x))
    frozen = x.copy() if x.copy().ctypes.data % 64 == 0 else runtime_modules.placed(x, 0)
    frozen.flags.writeable = False
    check(affine(frozen), x)
    assert context.staging == {}
    affine(runtime_modules.placed(x, 16))
    assert list(context.staging) == ["x"]


def test_dlpack(affine: Module, x: NDArray) -> None:
    tensor = runtime_modules.Foreign(x)
    check(affine(tensor), x)
    assert tensor.exports == 1
    check(affine(runtime_modules.Foreign(x, device=(3, 0))), x)  # pinned host memory


def test_subclass_and_memory_map(affine: Module, x: NDArray, tmp_path: Path) -> None:
    x.tofile(tmp_path / "x.bin")
    check(affine(np.memmap(tmp_path / "x.bin", np.float32, "r", shape=(8, 64))), x)


def test_bfloat16(bfloat16_file: Path) -> None:
    module = load(bfloat16_file)
    x = np.arange(64).astype(ml_dtypes.bfloat16)
    for offset in (0, 2):
        y = module(runtime_modules.placed(x, offset))
        assert y.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(y, x)


def test_bool(bool_file: Path) -> None:
    x = np.arange(64) % 3 == 0
    np.testing.assert_array_equal(load(bool_file)(x), x)


def test_strided_windows(concatenation: Module) -> None:
    a, b = (np.full((8, 16), value, np.float32) for value in (1, 5))
    expected = np.concatenate([a + 1, b + 1], axis=1)
    np.testing.assert_array_equal(concatenation(a, b), expected)
    np.testing.assert_array_equal(concatenation(b=b, a=a), expected)
    np.testing.assert_array_equal(concatenation(a, b=b), expected)


ONES = np.ones((8, 16), np.float32)


def test_nan_policy(affine_file: Path, x: NDArray) -> None:
    strict = load(affine_file, threads=1, nan="error")
    check(strict(x), x)
    for value in (runtime_modules.placed(x, 0), runtime_modules.placed(x, 16)):
        value[0, :3] = np.nan
        assert np.isnan(load(affine_file, threads=1)(value)[0]).sum() == 3
        with pytest.raises(InputError) as caught:
            strict(value)
        assert str(caught.value) == "input 'x' must have no NaN; got 3 of 512 elements."
    x[2, 0], x[2, 1] = np.inf, np.inf  # times -32 and -31: -inf, so no NaN in y or z
    check(strict(x), x)
    x[2, 63] = np.inf  # -inf + inf in the row sum
    with pytest.raises(InputError) as caught:
        strict(x)
    assert str(caught.value) == "output 'z' must have no NaN; got 1 of 8 elements."


def test_nan_policy_of_other_types(bfloat16_file: Path, bool_file: Path) -> None:
    x = np.arange(64).astype(ml_dtypes.bfloat16)
    x[5] = np.nan
    with pytest.raises(InputError, match=r"^input 'x' must have no NaN; got 1 of 64 elements\.$"):
        load(bfloat16_file, nan="error")(x)
    flags = np.ones(64, bool)
    np.testing.assert_array_equal(load(bool_file, nan="error")(flags), flags)


def test_unknown_nan_policy(affine_file: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(affine_file, nan="ignore")  # pyright: ignore[reportArgumentType]
    assert str(caught.value) == "nan must be one of allow, error; got 'ignore'."


def test_a_module_leaves_no_trace(tmp_path: Path) -> None:
    path = runtime_modules.unary(tmp_path, "transient", "float32", lambda a: a)
    for _ in range(20):
        module = load(path)
        y = module(np.ones(64, np.float32))
        assert str(path) in Path("/proc/self/maps").read_text()
        del module
        gc.collect()
        assert str(path) not in Path("/proc/self/maps").read_text()
    assert y.sum() == 64


def test_eight_threads_run_one_module(affine_file: Path) -> None:
    module = load(affine_file)
    barrier = threading.Barrier(8)

    def work(seed: int) -> int:
        rng = np.random.default_rng(seed)
        arenas = set()
        barrier.wait()
        for round_number in range(50):
            x = rng.integers(-8, 9, (8, 64)).astype(np.float32)
            check(module(x if round_number % 2 else runtime_modules.placed(x, 16)), x)
            arenas.add(module._context().arena.tensor.data_ptr())
        (arena,) = arenas
        return arena

    with ThreadPoolExecutor(8) as executor:
        assert len(set(executor.map(work, range(8)))) == 8


def test_profile(affine: Module, x: NDArray) -> None:
    steps = affine.profile({"x": x}, repeats=3)
    assert [times.step.symbol for times in steps] == ["scale", "shift", "total"]
    assert all(len(times.seconds) == 3 for times in steps)
    assert all(0 < times.median < 1 for times in steps)
    with pytest.raises(InputError, match=r"^repeats must be at least 1; got 0\.$"):
        affine.profile({"x": x}, repeats=0)


def test_profile_runs_the_steps(concatenation: Module) -> None:
    assert [times.step.symbol for times in concatenation.profile({"a": ONES, "b": ONES})] == [
        *("left", "right")
    ]


def relinked(folder: Path, name: str, **changes: object) -> Path:
    """Return a module of the affine fixture's kind with an edited manifest."""
    ports = (
        [runtime_modules.Tensor("x", (64,), "float32")],
        [runtime_modules.Tensor("y", (64,), "float32")],
    )
    manifest = runtime_modules.manifest_of(name, (), *ports)
    code = runtime_modules.objects((), manifest, folder)
    link(code, msgspec.structs.replace(manifest, **changes), [], folder / f"{name}.so")
    return folder / f"{name}.so"


def test_missing_cpu_feature(tmp_path: Path) -> None:
    target = TargetInfo("llvm", "x86_64-linux-gnu", "futurerapids", ("avx2", "avx9000", "made-up"))
    path = relinked(tmp_path, "future", target=target)
    with pytest.raises(TargetMismatchError) as caught:
        load(path)
    assert (
        str(caught.value)
        == f"module for futurerapids must run on a CPU with avx9000, made-up; got {host.cpu().name} without."
        " Compile it for this machine."
    )
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_other_architecture(tmp_path: Path) -> None:
    path = relinked(tmp_path, "arm", target=TargetInfo("llvm", "riscv64-linux-gnu", "generic"))
    with pytest.raises(TargetMismatchError) as caught:
        load(path)
    cpu = host.cpu()
    assert (
        str(caught.value)
        == f"module must run on its target riscv64 (riscv64-linux-gnu); got {cpu.machine} ({cpu.name})."
    )


def test_missing_entry(tmp_path: Path) -> None:
    path = relinked(tmp_path, "headless", entry="principal")
    with pytest.raises(PackageError) as caught:
        load(path)
    assert (
        str(caught.value)
        == f"module file '{path}' must load; got Module has no function 'principal'."
    )


def test_missing_step(tmp_path: Path) -> None:
    step = runtime_modules.Step("gone", "node", "op")
    module = load(relinked(tmp_path, "stepless", steps=(step,)))
    with pytest.raises(PackageError) as caught:
        module.profile({"x": np.zeros(64, np.float32)})
    assert str(caught.value) == "module must export its step 'gone'; got no such symbol."


def test_damaged_code_is_an_error(affine_file: Path, tmp_path: Path) -> None:
    data = bytearray(affine_file.read_bytes())
    data[0x10:0x12] = b"\1\0"  # e_type: a relocatable object, which dlopen refuses
    path = tmp_path / "object.so"
    path.write_bytes(runtime_modules.resealed(data))
    with pytest.raises(ConvcError, match=f"^module file '{path}' must load; got "):
        load(path)


def test_two_modules_with_the_same_symbols(tmp_path: Path) -> None:
    """Each module's main calls its own kernel, although both kernels have one name."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    double = load(runtime_modules.unary(one, "same", "float32", lambda a: a + a))
    square = load(runtime_modules.unary(other, "same", "float32", lambda a: a * a))
    x = np.arange(64, dtype=np.float32)
    np.testing.assert_array_equal(double(x), 2 * x)
    np.testing.assert_array_equal(square(x), x * x)


def test_a_file_made_anew_is_loaded_anew(tmp_path: Path) -> None:
    # While a module of the old file is alive, the dynamic loader knows its name.
    path, alive = tmp_path / "again.so", []
    for factor in (2, 3, 5):
        text = f"graph @g {{ %x = input : f32[4] %c = constant splat({factor}) : f32[] %y = mul(%x, %c) return %y }}"
        compile(parse(text), threads=1).export(path)
        alive.append(load(path))
    ones = np.ones(4, np.float32)
    assert [float(module(ones)[0]) for module in alive] == [2, 3, 5]
