"""A warpgroup's products on the emulated device against NumPy, by both orders of operands; what a kernel may get wrong is caught."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from convc.schedules.cuda.wgmma import WarpgroupProduct
from tests.cuda_emulation.emulation import EmulationError, launch
from tests.cuda_emulation.test_engine import ALL_ORDERS, kernel

PIXELS, DEPTH = 128, 32
FENCE = 'asm volatile("fence.proxy.async.shared::cta;" ::: "memory");'
# Orders in which products are made at once.
EARLY = ("down", "shuffled early")
TYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def product(dtype: str, channels: int, by_terms: bool = False) -> WarpgroupProduct:
    return WarpgroupProduct(dtype, DEPTH, PIXELS, channels, apart=True, by_terms=by_terms)


def source(made: WarpgroupProduct, wait: str, sums: str = "float") -> str:
    """Return a kernel of two warpgroups: operands into shared memory, the product, `wait`, the sums as lanes hold them, of type `sums`."""
    n = made.block_channels // 8
    body = f"""extern __shared__ uint4 rows[];
    for (int i = threadIdx.x; i < {DEPTH // 8 * (PIXELS + made.block_channels)}; i += blockDim.x) rows[i] = x[i];
    __syncthreads();
    {sums} sums[{4 * n}];
    for (int i = 0; i < {4 * n}; ++i) sums[i] = 1;
    {made.name}(sums, rows + threadIdx.x / 32 * {2 * DEPTH if made.by_terms else 16}, rows + {DEPTH // 8 * PIXELS});
    {wait}
    for (int i = 0; i < {4 * n}; ++i) y[threadIdx.x * {4 * n} + i] = sums[i];"""
    return made.source + kernel(body, f"const uint4* x, {sums}* y")


def operands(
    dtype: str, channels: int, by_terms: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return patches and weights, and both as rows of 16 bytes lie in memory.

    That is [8 of the depth][pixel or channel][8], by terms [8 pixels or channels][depth][8].
    """
    rng = np.random.default_rng(channels)
    x, w = (rng.integers(-4, 5, (rows, DEPTH)).astype(TYPES[dtype]) for rows in (PIXELS, channels))
    if by_terms:
        rows = [a.reshape(len(a) // 8, 8, DEPTH).transpose(0, 2, 1).ravel() for a in (x, w)]
    else:
        rows = [a.reshape(len(a), DEPTH // 8, 8).transpose(1, 0, 2).ravel() for a in (x, w)]
    return x, w, np.concatenate(rows).view(np.uint32)


def run(code: str, dtype: str, channels: int, by_terms: bool = False) -> list[np.ndarray]:
    """Return [pixel][channel] for each order of threads."""
    *_, memory = operands(dtype, channels, by_terms)
    return launched(code, memory, channels, np.float32)


def launched(code: str, memory: np.ndarray, channels: int, dtype: type) -> list[np.ndarray]:
    """Return [pixel][channel] of a kernel's sums for each order of threads."""
    sums = np.zeros(256 * channels // 2, dtype)
    shared = 2 * DEPTH * (PIXELS + channels)
    done = launch(code, memory, sums, block=(256, 1, 1), dynamic_shared=shared, orders=ALL_ORDERS)
    # A lane 4 a + b of warp w has [pixel 16 w + a + 8 r][channel 8 j + 2 b + p] as [r][j][p].
    return [
        y.reshape(8, 8, 4, 2, channels // 8, 2).transpose(0, 3, 1, 4, 2, 5).reshape(PIXELS, channels)
        for _, y in done
    ]  # fmt: skip


@pytest.mark.parametrize("channels", [16, 64, 256])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("by_terms", [False, True])
def test_products_of_two_warpgroups(by_terms, dtype, channels):
    x, w, _ = operands(dtype, channels, by_terms)
    expected = 1 + x.astype(np.float32) @ w.astype(np.float32).T
    made = product(dtype, channels, by_terms)
    for found in run(source(made, f"{made.name}_wait(sums);"), dtype, channels, by_terms):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("channels", [16, 64, 256])
def test_products_of_bytes(channels):
    """All values that bytes have, by their own signs; a row of 16 bytes is 16 terms of the sum, an instruction two of them."""
    rng, depth = np.random.default_rng(channels), 2 * DEPTH
    x = rng.integers(0, 256, (PIXELS, depth)).astype(np.uint8)
    w = rng.integers(-128, 128, (channels, depth)).astype(np.int8)
    rows = [a.reshape(len(a), depth // 16, 16).transpose(1, 0, 2).ravel() for a in (x, w)]
    memory = np.concatenate([r.view(np.uint8) for r in rows]).view(np.uint32)
    expected = 1 + x.astype(np.int32) @ w.astype(np.int32).T
    made = WarpgroupProduct("uint8", depth, PIXELS, channels, apart=True)
    code = source(made, f"{made.name}_wait(sums);", "int")
    for found in launched(code, memory, channels, np.int32):
        np.testing.assert_array_equal(found, expected)
    other = code.replace(".s32.u8.s8", ".s32.s8.s8")
    assert other != code
    assert (launched(other, memory, channels, np.int32)[0] != expected).any()


def test_an_operand_read_in_the_other_order_is_another_one():
    """The instruction is told which of both orders memory has."""
    made = product("float16", 64, by_terms=True)
    code, told = source(made, f"{made.name}_wait(sums);"), "add, 1, 1, 1, 1;"
    assert told in code
    x, w, _ = operands("float16", 64, by_terms=True)
    expected = 1 + x.astype(np.float32) @ w.astype(np.float32).T
    for put in ("add, 1, 1, 0, 1;", "add, 1, 1, 1, 0;"):
        found, *_ = run(code.replace(told, put), "float16", 64, by_terms=True)
        assert (found != expected).any()


def test_sums_that_nobody_waited_for_are_not_there():
    """Where products are made as late as the rules allow; made at once they are."""
    x, w, _ = operands("float16", 16)
    expected = 1 + x.astype(np.float32) @ w.astype(np.float32).T
    for order, found in zip(
        ALL_ORDERS, run(source(product("float16", 16), ""), "float16", 16), strict=True
    ):
        np.testing.assert_array_equal(found, expected if order in EARLY else np.ones_like(expected))


def test_operands_that_are_written_before_the_wait_are_read_anew():
    made = product("float16", 16)
    wait = (
        f"__syncthreads(); rows[threadIdx.x] = uint4{{}}; __syncthreads(); {made.name}_wait(sums);"
    )
    x, w, _ = operands("float16", 16)
    expected = 1 + x.astype(np.float32) @ w.astype(np.float32).T
    first, *_ = run(source(made, wait), "float16", 16)
    assert (first != expected).any()


@pytest.mark.parametrize(
    ("found", "put", "message"),
    [
        ("rows + threadIdx.x / 32 * ", "rows + threadIdx.x * ", "descriptors that differ in a warp"),
        ("(stride) << 32", "(stride) << 32 | 1ull << 62", "an operand with a swizzle"),
        ("(stride) << 32", "(512) << 32", "outside the block's"),
        (FENCE, "", "or fence.proxy.async behind it"),
        ('asm volatile("wgmma.fence.sync.aligned;" ::: "memory");', "", "without a wgmma.fence"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("by_terms", [False, True])
def test_what_is_wrong_is_named(by_terms, found, put, message):
    made = product("float16", 16, by_terms)
    code = source(made, f"{made.name}_wait(sums);")
    assert code.count(found) == 1
    with pytest.raises(EmulationError, match=message):
        run(code.replace(found, put), "float16", 16, by_terms)
