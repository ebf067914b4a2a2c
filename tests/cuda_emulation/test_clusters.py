"""Blocks of a cluster on the emulated device: what they hand each other, and that each way to get it wrong is caught."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cuda_emulation.emulation import EmulationError, launch
from tests.cuda_emulation.test_engine import ALL_ORDERS

BARRIER = 'asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");'

# Each block writes its numbers, backwards, into the next block's shared memory and returns what it was given.
PASS_ON = """
extern "C" __global__ void __cluster_dims__(4, 1, 1) __launch_bounds__(64) kernel(float* x, float* y) {
  __shared__ float room[64];
  const int rank = blockIdx.x % 4, i = blockIdx.x * 64 + threadIdx.x;
  BEGIN
  unsigned there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"((unsigned)__cvta_generic_to_shared(room)), "r"(RANK));
  asm volatile("st.shared::cluster.f32 [%0], %1;" :: "r"(there + (63 - threadIdx.x) * 4), "f"(x[i]) : "memory");
  END
  y[i] = room[threadIdx.x];
}"""

# Each block reads the first block's shared memory; none of them may leave before all have.
LOOK_UP = """
extern "C" __global__ void __cluster_dims__(1, 2, 1) __launch_bounds__(64) kernel(float* x, float* y) {
  __shared__ float room[64];
  const int i = blockIdx.y * 64 + threadIdx.x;
  room[threadIdx.x] = x[i];
  BEGIN
  unsigned first;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(first) : "r"((unsigned)__cvta_generic_to_shared(room)), "r"(0));
  float got;
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(got) : "r"(first + (threadIdx.x ^ 32) * 4) : "memory");
  y[i] = got;
  END
}"""


def code(source: str, begin: str = BARRIER, end: str = BARRIER, rank: str = "(rank + 1) % 4") -> str:  # fmt: skip
    return source.replace("BEGIN", begin).replace("END", end).replace("RANK", rank)


def passed_on(source: str, blocks: int = 8, orders=ALL_ORDERS, early: bool = False) -> list[np.ndarray]:  # fmt: skip
    x = np.arange(64 * blocks, dtype=np.float32)
    grid, block = (blocks, 1, 1), (64, 1, 1)
    done = launch(source, x, np.zeros_like(x), grid=grid, block=block, orders=orders, early=early)
    return [y for _, y in done]


def test_what_blocks_write_into_each_others_shared_memory():
    x = np.arange(512, dtype=np.float32).reshape(2, 4, 64)
    for y in passed_on(code(PASS_ON)):
        np.testing.assert_array_equal(y.reshape(2, 4, 64), np.roll(x, 1, axis=1)[..., ::-1])


def test_what_blocks_read_of_each_other():
    x = np.arange(128, dtype=np.float32)
    for _, y in launch(code(LOOK_UP), x, 0 * x, grid=(1, 2, 1), block=(64, 1, 1), orders=ALL_ORDERS):  # fmt: skip
        np.testing.assert_array_equal(y.reshape(2, 2, 32), [x[:64].reshape(2, 32)[::-1]] * 2)


def test_a_cluster_that_is_launched_early():
    waits = f"cudaGridDependencySynchronize(); {BARRIER}"
    for y in passed_on(code(PASS_ON, waits), early=True):
        assert np.isfinite(y).all()
    with pytest.raises(EmulationError, match="device memory"):
        passed_on(code(PASS_ON, BARRIER, f"cudaGridDependencySynchronize(); {BARRIER}"), early=True)


@pytest.mark.parametrize("order", ALL_ORDERS)
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (code(PASS_ON, begin=""), "that block may not have begun"),
        (code(PASS_ON, rank="rank + 1"), "a rank that the cluster does not have"),
        (code(PASS_ON, rank="-1"), "a rank that the cluster does not have"),
        (code(PASS_ON).replace("(63 - threadIdx.x) * 4", "(64 - threadIdx.x) * 4"), "outside the block's shared memory"),
        (code(PASS_ON).replace("arrive.release", "wait", 1), "without arrival"),
        (code(PASS_ON).replace("wait.acquire", "arrive", 1), "a second arrival"),
        (code(PASS_ON, end=f"if (rank < 2) {{ {BARRIER} }}"), "without a cluster's barrier behind|has left"),
        (code(PASS_ON, end=f"if (threadIdx.x < 32) {{ {BARRIER} }} else __syncthreads();"), "deadlock"),
        (code(PASS_ON, begin=f"if (rank == 1) return; {BARRIER}"), "shared memory of a block that has left"),
        (code(PASS_ON, begin=f'{BARRIER} asm volatile("barrier.cluster.arrive;");'), "between arrival at a cluster's barrier"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_in_every_order(source, message, order):
    with pytest.raises(EmulationError, match=message):
        passed_on(source, orders=(order,))


@pytest.mark.parametrize("order", ALL_ORDERS)
def test_a_block_that_leaves_while_its_shared_memory_is_read_is_caught(order):
    x = np.zeros(128, np.float32)
    with pytest.raises(
        EmulationError, match=r"has left|without a cluster's barrier behind another"
    ):
        launch(code(LOOK_UP, end=""), x, x, grid=(1, 2, 1), block=(64, 1, 1), orders=(order,))


def test_a_barrier_that_is_missing_before_the_read_shows_in_the_orders():
    """Of all blocks but the one that comes last, whose neighbour has written by then."""
    found = passed_on(code(PASS_ON, end=f"y[i] = room[threadIdx.x]; {BARRIER} return;"))
    assert any(not np.array_equal(found[0], other, equal_nan=True) for other in found[1:])


def test_what_others_write_where_a_block_still_reads_shows_in_the_orders():
    """All have begun, but nobody waits until its neighbour has read its steps."""
    own = "room[threadIdx.x] = 7; __syncthreads(); const float step = room[threadIdx.x ^ 1];"
    late = code(PASS_ON, f"{own} {BARRIER}").replace("= room[threadIdx.x];", "= step;")
    for found in passed_on(late):
        np.testing.assert_array_equal(found, 7)
    read = "__syncthreads(); const float step = room[threadIdx.x ^ 1];"
    soon = code(PASS_ON, f"room[threadIdx.x] = 7; {BARRIER}", f"{read} {BARRIER}")
    found = passed_on(soon.replace("= room[threadIdx.x];", "= step;"))
    assert any(not np.array_equal(found[0], other) for other in found[1:])


def test_a_grid_must_be_whole_clusters():
    with pytest.raises(EmulationError, match="not whole clusters"):
        passed_on(code(PASS_ON), blocks=6)
    with pytest.raises(EmulationError, match="clusters of 8 blocks at most"):
        passed_on(code(PASS_ON).replace("__(4,", "__(16,"), blocks=16)
