"""Shuffles, votes, matrix instructions and 16-bit floats against NumPy."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest

from tests.cuda_emulation.emulation import EmulationError, launch
from tests.cuda_emulation.test_engine import ALL_ORDERS, kernel

LANES = np.arange(32)


@pytest.mark.parametrize("width", [32, 8])
@pytest.mark.parametrize(
    ("name", "n", "source"),
    [
        ("__shfl_sync", 5, lambda i, w: i // w * w + 5 % w),
        ("__shfl_up_sync", 3, lambda i, w: np.where(i % w >= 3, i - 3, i)),
        ("__shfl_down_sync", 3, lambda i, w: np.where(i % w + 3 < w, i + 3, i)),
        ("__shfl_xor_sync", 4, lambda i, w: i ^ 4),
    ],
)
def test_shuffles(name, n, source, width):
    x = LANES.astype(np.float32)
    for (out,) in launch(
        kernel(f"x[threadIdx.x] = {name}(0xffffffff, x[threadIdx.x], {n}, {width});"),
        x,
        orders=ALL_ORDERS,
    ):
        np.testing.assert_array_equal(out, source(LANES, width))


def test_a_lane_that_is_not_there_gives_nan():
    ((out,),) = launch(
        kernel("x[threadIdx.x] = __shfl_down_sync(0xffffffff, x[threadIdx.x], 16);"),
        np.ones(20, np.float32),
        block=(20, 1, 1),
    )
    np.testing.assert_array_equal(
        np.isnan(out), (np.arange(20) + 16 >= 20) & (np.arange(20) + 16 < 32)
    )


def test_halves_of_a_warp_shuffle_apart_and_together():
    body = """int mine = x[threadIdx.x];
    if (threadIdx.x < 16) mine += __shfl_xor_sync(0x0000ffff, mine, 1);
    x[threadIdx.x] = mine + __shfl_xor_sync(0xffffffff, mine, 16);"""
    x = LANES.astype(np.int32)
    mine = np.where(x < 16, x + (x ^ 1), x)
    for (out,) in launch(kernel(body, "int* x"), x, orders=ALL_ORDERS):
        np.testing.assert_array_equal(out, mine + mine[x ^ 16])


def test_votes_and_the_active_mask():
    body = """int odd = threadIdx.x & 1;
    x[threadIdx.x] = __ballot_sync(0xffffffff, odd);
    x[32 + threadIdx.x] = __any_sync(0xffffffff, threadIdx.x == 7) + 2 * __all_sync(0xffffffff, odd);
    if (odd) x[64 + threadIdx.x] = __activemask();
    x[96 + threadIdx.x] = __syncthreads_count(odd);"""
    for (out,) in launch(kernel(body, "unsigned* x"), np.zeros(128, np.uint32), orders=ALL_ORDERS):
        assert (out[:32] == 0xAAAAAAAA).all()
        assert (out[32:64] == 1).all()
        assert (out[65:96:2] == 0xAAAAAAAA).all()
        assert (out[96:] == 16).all()


# ---- matrix instructions --------------------------------------------------------------------------------------------

# (name of A and B in PTX, K, NumPy's type, elements in a register)
MMA = [("f16", 8, np.float16, 2), ("f16", 16, np.float16, 2), ("bf16", 8, ml_dtypes.bfloat16, 2), ("bf16", 16, ml_dtypes.bfloat16, 2),
       ("tf32", 4, np.float32, 1), ("tf32", 8, np.float32, 1), ("s8", 16, np.int8, 4), ("s8", 32, np.int8, 4), ("u8", 32, np.uint8, 4)]  # fmt: skip


def mma_kernel(name: str, k: int, per: int, accumulator: str, right: str = "") -> str:
    """Fragments are loaded element by element, by the PTX ISA's table of rows and columns; `right`: B's type, where it has another."""
    a, b = k // (2 * per), k // (4 * per)
    d = 2 if accumulator == "f16" else 4
    sum_type = {"f16": "half", "f32": "float", "s32": "int"}[accumulator]
    element = {
        "f16": "half",
        "bf16": "nv_bfloat16",
        "tf32": "float",
        "s8": "signed char",
        "u8": "unsigned char",
    }[name]
    letter = "f" if accumulator == "f32" else "r"

    def registers(first, count):
        return "{" + ", ".join(f"%{i}" for i in range(first, first + count)) + "}"

    def operands(array, count, how):
        return ", ".join(f'"{how}"({array}[{i}])' for i in range(count))

    text = (
        f"mma.sync.aligned.m16n8k{k}.row.col.{accumulator}.{name}.{right or name}.{accumulator} "
        f"{registers(0, d)}, {registers(d, a)}, {registers(d + a, b)}, {registers(d + a + b, d)};"
    )
    carrier = "float" if accumulator == "f32" else "unsigned"
    return kernel(
        f"""int group = threadIdx.x / 4, member = threadIdx.x % 4;
    unsigned A[{a}], B[{b}]; {carrier} C[{d}], D[{d}];
    for (int r = 0; r < {a}; ++r) for (int e = 0; e < {per}; ++e)
      (({element}*)&A[r])[e] = ((const {element}*)a)[(group + 8 * (r & 1)) * {k} + {per} * (member + 4 * (r >> 1)) + e];
    for (int r = 0; r < {b}; ++r) for (int e = 0; e < {per}; ++e)
      (({element}*)&B[r])[e] = ((const {element}*)b)[({per} * (member + 4 * r) + e) * 8 + group];
    for (int q = 0; q < 4; ++q) (({sum_type}*)C)[q] = (({sum_type}*)c)[(group + 8 * (q >> 1)) * 8 + 2 * member + (q & 1)];
    asm volatile("{text}" : {operands("D", d, "=" + letter)} : {operands("A", a, "r")}, {operands("B", b, "r")}, {operands("C", d, letter)});
    for (int q = 0; q < 4; ++q) (({sum_type}*)c)[(group + 8 * (q >> 1)) * 8 + 2 * member + (q & 1)] = (({sum_type}*)D)[q];""",
        "void* a, void* b, void* c",
    )


@pytest.mark.parametrize(("name", "k", "dtype", "per", "accumulator"), [
    (*row, acc) for row in MMA for acc in ({"f16": ("f32", "f16"), "s8": ("s32",), "u8": ("s32",)}.get(row[0], ("f32",)))
])  # fmt: skip
def test_mma(name, k, dtype, per, accumulator):
    rng = np.random.default_rng(k)
    low = 0 if name == "u8" else -4
    a, b = (rng.integers(low, 5, shape).astype(dtype) for shape in ((16, k), (k, 8)))
    out_type = {"f16": np.float16, "f32": np.float32, "s32": np.int32}[accumulator]
    c = rng.integers(-9, 10, (16, 8)).astype(out_type)
    for *_, out in launch(mma_kernel(name, k, per, accumulator), a, b, c, orders=("up", "down")):
        np.testing.assert_array_equal(
            out, (a.astype(np.int64) @ b.astype(np.int64) + c.astype(np.int64)).astype(out_type)
        )


@pytest.mark.parametrize(("left", "right"), list(itertools.product(("u8", "s8"), repeat=2)))
def test_bytes_of_all_values_have_their_own_signs(left, right):
    """A wrong sign, or a lane's four bytes in another order, gives other sums."""
    types = {"u8": np.uint8, "s8": np.int8}
    rng = np.random.default_rng(3)
    a, b = (
        rng.integers(np.iinfo(types[t]).min, np.iinfo(types[t]).max + 1, shape).astype(types[t])
        for t, shape in ((left, (16, 32)), (right, (32, 8)))
    )
    c = rng.integers(-(2**30), 2**30, (16, 8)).astype(np.int32)
    expected = (a.astype(np.int64) @ b.astype(np.int64) + c).astype(np.int32)
    for *_, out in launch(mma_kernel(left, 32, 4, "s32", right), a, b, c, orders=("up", "down")):
        np.testing.assert_array_equal(out, expected)


def test_tf32_products_ignore_the_low_bits_and_rounding_keeps_ten():
    a, b, c = (
        np.full((16, 4), 1 + 2.0**-11, np.float32),
        np.eye(4, 8, dtype=np.float32),
        np.zeros((16, 8), np.float32),
    )
    *_, out = launch(mma_kernel("tf32", 4, 1, "f32"), a, b, c)[0]
    assert (out[:, :4] == 1).all()
    rounded = kernel(
        'float r;\nasm volatile("cvt.rna.tf32.f32 %0, %1;" : "=f"(r) : "f"(x[threadIdx.x]));\nx[threadIdx.x] = r;'
    )
    ((out,),) = launch(rounded, np.full(32, 1 + 2.0**-11, np.float32))
    assert (out == np.float32(1 + 2.0**-10)).all()


@pytest.mark.parametrize(("count", "transposed"), list(itertools.product((1, 2, 4), (False, True))))
def test_ldmatrix(count, transposed):
    trans = ".trans" if transposed else ""
    registers = ", ".join(f"%{i}" for i in range(count))
    outputs = ", ".join(f'"=r"(r[{i}])' for i in range(count))
    body = f"""__shared__ alignas(16) unsigned short s[4 * 64];
    for (int i = threadIdx.x; i < 256; i += 32) s[i] = x[i];
    __syncthreads();
    unsigned r[4];
    unsigned address = __cvta_generic_to_shared(s + threadIdx.x * 8);
    asm volatile("ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{registers}}}, [%{count}];" : {outputs} : "r"(address));
    for (int m = 0; m < {count}; ++m) {{ y[m * 64 + threadIdx.x * 2] = r[m]; y[m * 64 + threadIdx.x * 2 + 1] = r[m] >> 16; }}"""
    x = np.random.default_rng(0).integers(0, 1 << 16, (4, 8, 8)).astype(np.uint16)
    for _, out in launch(
        kernel(body, "unsigned short* x, unsigned short* y"),
        x,
        np.zeros_like(x),
        orders=("up", "down"),
    ):
        np.testing.assert_array_equal(
            out[:count], x.transpose(0, 2, 1)[:count] if transposed else x[:count]
        )


@pytest.mark.parametrize(("shape", "c_type", "a_type", "dtype", "out_type"), [
    ((16, 16, 16), "float", "half", np.float16, np.float32),
    ((16, 16, 16), "half", "half", np.float16, np.float16),
    ((32, 8, 16), "float", "half", np.float16, np.float32),
    ((8, 32, 16), "float", "nv_bfloat16", ml_dtypes.bfloat16, np.float32),
    ((16, 16, 8), "float", "nvcuda::wmma::precision::tf32", np.float32, np.float32),
    ((16, 16, 16), "int", "signed char", np.int8, np.int32),
])  # fmt: skip
@pytest.mark.parametrize("b_layout", ["row_major", "col_major"])
def test_wmma(shape, c_type, a_type, dtype, out_type, b_layout):
    m, n, k = shape
    pointer = "float" if "tf32" in a_type else a_type
    body = f"""using namespace nvcuda::wmma;
    fragment<accumulator, {m}, {n}, {k}, {c_type}> sum;
    fragment<matrix_a, {m}, {n}, {k}, {a_type}, row_major> A;
    fragment<matrix_b, {m}, {n}, {k}, {a_type}, {b_layout}> B;
    fill_fragment(sum, 0.0f);
    load_matrix_sync(A, a, {k});
    load_matrix_sync(B, b, {n if b_layout == "row_major" else k});
    nvcuda::wmma::mma_sync(sum, A, B, sum);
    for (int i = 0; i < sum.num_elements; ++i) sum.x[i] = sum.x[i] + sum.x[i];
    store_matrix_sync(c, sum, {n}, mem_row_major);"""
    rng = np.random.default_rng(1)
    a, b = rng.integers(-4, 5, (m, k)).astype(dtype), rng.integers(-4, 5, (k, n)).astype(dtype)
    stored = b if b_layout == "row_major" else np.ascontiguousarray(b.T)
    source = "#include <mma.h>\n" + kernel(body, f"{pointer}* a, {pointer}* b, {c_type}* c")
    for *_, out in launch(source, a, stored, np.zeros((m, n), out_type), orders=("up", "down")):
        np.testing.assert_array_equal(
            out, (2 * a.astype(np.int64) @ b.astype(np.int64)).astype(out_type)
        )


def test_a_matrix_instruction_needs_a_whole_warp():
    with pytest.raises(EmulationError, match="less than 32 threads"):
        launch(mma_kernel("tf32", 4, 1, "f32"), *(np.zeros(128, np.float32),) * 3, block=(16, 1, 1))


# ---- 16-bit floats --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("c_type", "dtype"), [("half", np.float16), ("nv_bfloat16", ml_dtypes.bfloat16)]
)
def test_sixteen_bit_arithmetic(c_type, dtype):
    body = f"""int i = blockIdx.x * 32 + threadIdx.x;
    {c_type} a = x[i], b = y[i];
    z[i * 4] = a + b; z[i * 4 + 1] = a * b; z[i * 4 + 2] = a / b; z[i * 4 + 3] = ({c_type})((float)a - 2.5f * (float)b);"""
    rng = np.random.default_rng(2)
    x, y = (rng.normal(0, 50, 1024).astype(dtype) for _ in range(2))
    source = kernel(body, f"{c_type}* x, {c_type}* y, {c_type}* z")
    *_, out = launch(source, x, y, np.zeros((1024, 4), dtype), grid=(32, 1, 1))[0]
    fx, fy = x.astype(np.float32), y.astype(np.float32)
    wanted = np.stack([fx + fy, fx * fy, fx / fy, fx - np.float32(2.5) * fy], axis=1).astype(dtype)
    np.testing.assert_array_equal(out.view(np.uint16), wanted.view(np.uint16))
