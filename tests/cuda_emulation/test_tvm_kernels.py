"""Kernels that TVM prints, launched by TVM's own CUDA runtime; and the same kernels spoilt in their CUDA C."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from tvm import te

from tests.cuda_emulation.emulation import Case, EmulationError, run, run_cases
from tests.cuda_emulation.te_kernels import matmul, row_sums, scaled_copy

ASYNC = {"tirx.use_async_copy": 1}


def whole(shape: tuple[int, ...], dtype: object = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(a.astype(np.int64) @ b.astype(np.int64), 0).astype(a.dtype)


def test_every_construct_at_once():
    a, b = whole((64, 48)), whole((48, 32), seed=1)
    rows = whole((5, 256))
    cases = [
        Case(matmul(64, 32, 48), (a, b)),
        Case(matmul(64, 32, 48, stages=2), (a, b)),
        Case(matmul(64, 32, 48, stages=3), (a, b)),
        Case(matmul(64, 32, 48, "float16"), (a.astype(np.float16), b.astype(np.float16))),
        # a tile that the matrix does not fill: predicated copies
        Case(matmul(50, 20, 48), (a[:50], b[:, :20])),
        Case(row_sums(5, 256, 32), (rows,)),
        Case(row_sums(5, 256, 128), (rows,)),
    ]
    wanted = [product(a, b)] * 3 + [product(a, b).astype(np.float16), product(a, b)[:50, :20]]
    wanted += [rows.sum(axis=1)] * 2
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32):
        cases.append(Case(scaled_copy(8, 64, np.dtype(dtype).name), (whole((8, 64), dtype),)))
        wanted.append((whole((8, 64)) * 2 + 1).astype(dtype))
    outcomes = run_cases(cases, config=ASYNC, orders=("up", "down", "shuffled"))
    for outcome, want in zip(outcomes, wanted, strict=True):
        assert outcome.error == ""
        np.testing.assert_array_equal(outcome.outputs[0], want)
    source = outcomes[0].source
    for construct in (
        "cp.async.wait_group 2",
        "__shfl_down_sync",
        "__syncthreads",
        "float4",
        "nv_bfloat16",
        "__shared__",
    ):
        assert construct in source, construct


@pytest.mark.parametrize("barrier", range(2))
def test_each_deleted_barrier_is_noticed(barrier):
    with pytest.raises(
        EmulationError, match="a race: the order of threads 'down' gives other bits"
    ):
        run(
            matmul(64, 32, 48),
            whole((64, 48)),
            whole((48, 32)),
            spoil=("__syncthreads();", "", barrier),
        )


def test_there_are_no_more_barriers():
    with pytest.raises(EmulationError, match="more than 2 times; got 2"):
        run(matmul(64, 32, 48), whole((64, 48)), whole((48, 32)), spoil=("__syncthreads();", "", 2))


@pytest.mark.parametrize("wait", [2, 1, 0])
def test_a_wrong_wait_group_is_noticed(wait):
    with pytest.raises(EmulationError, match="a race"):
        run(
            matmul(64, 32, 64, stages=3), whole((64, 64)), whole((64, 32)), config=ASYNC,
            spoil=(f"cp.async.wait_group {wait};", "cp.async.wait_group 7;", 0),
        )  # fmt: skip


def test_a_store_out_of_bounds_is_noticed():
    with pytest.raises(EmulationError, match="past the end of an allocation of 8192 bytes"):
        run(
            matmul(64, 32, 48),
            whole((64, 48)),
            whole((48, 32)),
            spoil=("D_ptr[(", "D_ptr[1 + (", 0),
        )


def test_too_much_shared_memory_is_noticed():
    tile = "__shared__ alignas(64) float A_shared_ptr[512]"
    with pytest.raises(EmulationError, match="more than 48 KiB"):
        run(
            matmul(64, 32, 48),
            whole((64, 48)),
            whole((48, 32)),
            spoil=(tile, tile.replace("512", "12288"), 0),
        )


def test_one_bad_case_does_not_take_the_others_with_it():
    x = whole((8, 64))
    bad = scaled_copy(8, 64, "float32").with_attr("target", "no target at all")
    good, failed = run_cases([Case(scaled_copy(8, 64, "float32"), (x,)), Case(bad, (x,))])
    np.testing.assert_array_equal(good.outputs[0], x * 2 + 1)
    assert good.error == ""
    assert failed.outputs == ()
    assert failed.error


def test_an_unbound_function_dies_as_on_a_gpu():
    A = te.placeholder((4,), "float32", name="A")
    unbound = te.create_prim_func([A, te.compute((4,), lambda i: A[i] + 1.0)])
    with pytest.raises(
        EmulationError, match="host code touched device memory, an allocation of 16 bytes"
    ):
        run(unbound, whole((4,)))


@pytest.mark.slow  # importing TVM's tensor intrinsics takes half a minute
def test_the_tensor_core_matmul_of_dlight():
    import tvm
    from tvm.s_tir import dlight
    from tvm.target import Target

    from tests.cuda_emulation.emulation import SM_90

    size = 128
    A, B = (te.placeholder((size, size), "float16", name=n) for n in "AB")
    k = te.reduce_axis((0, size), "k")
    C = te.compute(
        (size, size),
        lambda i, j: te.sum(A[i, k].astype("float32") * B[k, j].astype("float32"), axis=k),
        name="C",
    )
    D = te.compute((size, size), lambda i, j: C[i, j].astype("float16"), name="D")
    module = tvm.IRModule({"main": te.create_prim_func([A, B, D])})
    with Target(dict(SM_90)):
        scheduled = dlight.ApplyDefaultSchedule(dlight.gpu.Matmul())(module)["main"]
    a, b = whole((size, size), np.float16), whole((size, size), np.float16, seed=1)
    (out,) = run(scheduled, a, b)
    np.testing.assert_array_equal(out, (a.astype(np.int64) @ b.astype(np.int64)).astype(np.float16))
