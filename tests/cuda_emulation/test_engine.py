"""The emulator itself: what it computes, and that it notices each kind of fault it is there for."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cuda_emulation.emulation import EmulationError, launch

ALL_ORDERS = ("up", "down", "shuffled", "shuffled early")

REVERSE = """
extern "C" __global__ void __launch_bounds__(64) kernel(float* __restrict__ x) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = tile[63 - threadIdx.x];
}"""


def kernel(body: str, parameters: str = "float* x", bounds: int = 1024) -> str:
    return f'extern "C" __global__ void __launch_bounds__({bounds}) kernel({parameters}) {{\n{body}\n}}'


def zeros(count: int = 32, dtype: str = "float32") -> np.ndarray:
    return np.zeros(count, dtype)


def test_barriers_and_shared_memory():
    x = np.arange(64, dtype=np.float32)
    for (out,) in launch(REVERSE, x, block=(64, 1, 1), orders=ALL_ORDERS):
        np.testing.assert_array_equal(out, x[::-1])


def test_indices_and_extents():
    body = """int t = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    int b = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    x[b * blockDim.x * blockDim.y * blockDim.z + t] += b * 1000 + t;"""
    for (out,) in launch(
        kernel(body, "int* x"),
        zeros(24 * 24, "int32"),
        grid=(4, 3, 2),
        block=(2, 3, 4),
        orders=ALL_ORDERS,
    ):
        np.testing.assert_array_equal(
            out.reshape(24, 24), np.arange(24)[:, None] * 1000 + np.arange(24)
        )


def test_every_block_starts_with_poisoned_shared_memory():
    body = "__shared__ float s[32];\nx[blockIdx.x * 32 + threadIdx.x] = s[threadIdx.x];\ns[threadIdx.x] = 1;"
    ((out,),) = launch(kernel(body), zeros(96), grid=(3, 1, 1))
    assert np.isnan(out).all()


def test_a_local_variable_read_before_it_is_written_is_garbage():
    ((out,),) = launch(kernel("float s[4];\nx[threadIdx.x] = s[threadIdx.x & 3];"), zeros())
    assert (np.abs(out) > 1e30).all()


@pytest.mark.parametrize("lost", ["__syncthreads();"])
def test_a_deleted_barrier_depends_on_the_order(lost):
    x = np.arange(64, dtype=np.float32)
    (up,), (down,) = launch(REVERSE.replace(lost, ""), x, block=(64, 1, 1), orders=("up", "down"))
    assert not np.array_equal(up, down, equal_nan=True)
    assert np.isnan(up).any()
    assert np.isnan(down).any()


# ---- asynchronous copies ------------------------------------------------------------------------------------------

# Two stages in flight; each thread copies four floats a stage and reads those of its neighbour.
PIPELINE = """
extern "C" __global__ void __launch_bounds__(32) kernel(float* x, float* y) {
  __shared__ alignas(64) float tile[2 * 128];
  unsigned to = __cvta_generic_to_shared(tile + threadIdx.x * 4);
  float* from = x + threadIdx.x * 4;
  asm volatile("cp.async.cg.shared.global [%0], [%1], %2;" :: "r"(to), "l"(from), "n"(16));
  asm volatile("cp.async.commit_group;");
  float sum = 0;
  for (int i = 0; i < 4; ++i) {
    __syncthreads();
    if (i < 3)
      asm volatile("cp.async.cg.shared.global [%0], [%1], %2;" :: "r"(to + (i + 1) % 2 * 512), "l"(from + (i + 1) * 128), "n"(16));
    asm volatile("cp.async.commit_group;");
    asm volatile("cp.async.wait_group 1;");
    __syncthreads();
    for (int j = 0; j < 4; ++j) sum = sum * 2 + tile[i % 2 * 128 + (threadIdx.x * 4 + j + 4) % 128];
  }
  y[threadIdx.x] = sum;
}"""  # fmt: skip


def pipeline(source: str, orders=ALL_ORDERS) -> list[np.ndarray]:
    x = np.random.default_rng(0).integers(0, 8, 512).astype(np.float32)
    return [out for _, out in launch(source, x, zeros(), orders=orders)], x


def test_a_pipeline_of_copies():
    outs, x = pipeline(PIPELINE)
    stages = np.roll(x.reshape(4, 32, 4), -1, axis=1)
    wanted = stages.transpose(1, 0, 2).reshape(32, 16) @ 2.0 ** np.arange(15, -1, -1)
    for out in outs:
        np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cp.async.wait_group 1", "cp.async.wait_group 2"),
        ("cp.async.wait_group 1", "cp.async.commit_group"),
        ("__syncthreads();\n    if", "if"),
        ("__syncthreads();\n    for", "for"),
    ],
    ids=[
        "waits for too few",
        "waits for none",
        "no barrier before the copy",
        "no barrier after the wait",
    ],
)
def test_a_spoilt_pipeline_depends_on_the_order(old, new):
    assert PIPELINE.count(old) == 1
    outs, _ = pipeline(PIPELINE.replace(old, new))
    assert any(not np.array_equal(outs[0], out, equal_nan=True) for out in outs[1:])


def test_copies_fill_with_zeros_behind_the_source():
    source = kernel("""__shared__ alignas(16) float s[4];
    unsigned to = __cvta_generic_to_shared(s);
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %3, 0; @p cp.async.ca.shared.global [%0], [%1], 16, %2; }" :: "r"(to), "l"(x), "r"(8), "r"(1));
    asm volatile("cp.async.wait_all;");
    for (int i = 0; i < 4; ++i) x[4 + i] = s[i];""")
    ((out,),) = launch(source, np.arange(1, 9, dtype=np.float32), block=(1, 1, 1))
    np.testing.assert_array_equal(out[4:], [1, 2, 0, 0])


# ---- faults -------------------------------------------------------------------------------------------------------

FAULTS = {
    "store far past the end": (kernel("x[threadIdx.x + 4096] = 1;"), "past the end of an allocation of 128 bytes"),
    "store into the padding behind": (kernel("x[threadIdx.x + 1] = 1;"), "a write past the end of an allocation of 128 bytes"),
    "store before the start": (kernel("x[(int)threadIdx.x - 1024] = 1;"), "before the start of an allocation of 128 bytes"),
    "load past the end": (kernel("x[0] = x[threadIdx.x + 2048];"), "past the end of an allocation of 128 bytes"),
    "null pointer": (kernel("float* p = x - (long long)x / 4;\n*p = 1;"), "not the device's"),
    "static array": (kernel("__shared__ float s[8];\ns[threadIdx.x] = 1;\nx[0] = s[0];"), "an index outside a local or shared array"),
    "static array through a pointer": (
        kernel("__shared__ float s[8];\nfloat* p = s;\np[threadIdx.x] = 1;\nx[0] = s[0];"),
        "a write past the end of a __shared__ array of 32 bytes",
    ),
    "local array": (kernel("float s[8];\nfor (int i = 0; i < 8; ++i) s[i] = i;\nx[0] = s[threadIdx.x];"), "an index outside a local or shared array"),
    "more than 48 KiB of static shared memory": (kernel("__shared__ float s[12289];\ns[threadIdx.x] = 1;\nx[0] = s[1];"), "more than 48 KiB"),
    "divergent barrier": (kernel("if (threadIdx.x < 16) { __syncthreads();\n} else { __syncthreads(); }"), "different __syncthreads"),
    "left before a barrier": (kernel("if (threadIdx.x < 16) return;\n__syncthreads();"), "some threads left the kernel"),
    "warp operation without all its lanes": (
        kernel("if (threadIdx.x < 16) x[threadIdx.x] = __shfl_sync(0xffffffff, x[threadIdx.x], 0);\nelse __syncthreads();"),
        "deadlock",
    ),
    "lane outside its mask": (kernel("x[threadIdx.x] = __shfl_sync(0xff, x[threadIdx.x], 0);"), "mask does not name it"),
    "division by zero": (kernel("x[0] = 5 / (int)x[0];"), "division of an integer by zero"),
    "local memory": (kernel("volatile char s[300000];\ns[(int)x[0]] = 1;\nx[0] = s[0];"), "more than 256 KiB"),
    "misaligned vector": (kernel("*(float4*)(x + 1) = make_float4(1, 2, 3, 4);"), "misaligned vector"),
    "misaligned copy": (
        kernel('__shared__ float s[64];\nasm volatile("cp.async.ca.shared.global [%0], [%1], 16;" :: "r"((unsigned)__cvta_generic_to_shared(s)), "l"(x + 1));'),
        "no multiple of its size",
    ),
    "copy past shared memory": (
        kernel('__shared__ float s[4];\nasm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"((unsigned)__cvta_generic_to_shared(s + 4)), "l"(x));'),
        "outside the block's shared memory",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_noticed(name):
    sources = [source for source, _ in FAULTS.values()]
    # One g++ run for all of them.
    together = "\n".join(s.replace("kernel(", f"kernel{i}(", 1) for i, s in enumerate(sources))
    with pytest.raises(EmulationError, match=FAULTS[name][1]):
        launch(together, zeros(), kernel=f"kernel{list(FAULTS).index(name)}")
    # The device goes on.
    x = np.arange(64, dtype=np.float32)
    np.testing.assert_array_equal(launch(REVERSE, x, block=(64, 1, 1))[0][0], x[::-1])


@pytest.mark.parametrize(
    ("grid", "block", "bounds"),
    [((1, 1, 1), (65, 1, 1), 64), ((1, 1, 1), (1, 1, 65), 1024), ((1, 65536, 1), (1, 1, 1), 1024), ((1, 1, 1), (1025, 1, 1), 1024),
     ((0, 1, 1), (1, 1, 1), 1024)],
)  # fmt: skip
def test_launches_outside_the_limits(grid, block, bounds):
    with pytest.raises(EmulationError, match="outside the limits"):
        launch(kernel("", bounds=bounds), zeros(), grid=grid, block=block)


DYNAMIC = kernel(
    """extern __shared__ __align__(64) unsigned char s[];
    int to = (int)x[0] + threadIdx.x;
    __syncthreads();
    ((float*)s)[to] = 1;
    x[threadIdx.x] = ((float*)s)[threadIdx.x];"""
)


def test_dynamic_shared_memory():
    most = 227 << 10
    (out,) = launch(DYNAMIC, zeros(), dynamic_shared=most)[0]
    assert (out == 1).all()
    with pytest.raises(EmulationError, match="at most 227 KiB"):
        launch(DYNAMIC, zeros(), dynamic_shared=most + 1)
    with pytest.raises(
        EmulationError, match="a write past the end of 128 bytes of dynamic shared memory"
    ):
        launch(DYNAMIC, np.full(32, 1, np.float32), dynamic_shared=128)
    with pytest.raises(
        EmulationError, match="outside the block's 128 bytes of dynamic shared memory"
    ):
        launch(DYNAMIC, np.full(32, 4096, np.float32), dynamic_shared=128)


def test_a_crash_of_the_process_is_an_error_and_the_next_call_finds_a_new_one():
    with pytest.raises(EmulationError, match="the emulation's process ended with SIGABRT"):
        launch("#include <cstdlib>\n" + kernel("abort();"), zeros())
    test_barriers_and_shared_memory()


def test_unknown_ptx_is_refused():
    with pytest.raises(
        EmulationError, match=r"'tcgen05\.fence::after_thread_sync' is not emulated"
    ):
        launch(kernel('asm volatile("tcgen05.fence::after_thread_sync;");'), zeros())
