// What a kernel asks of the emulated device. Kernels are compiled against this header; engine.cpp is inside libcudart.so.13.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>

namespace cuda_emulation {

struct Dim3 {
  unsigned x, y, z;
};

// The CUDA thread that is running, and its block. One operating-system thread runs them all, one after another.
struct Thread {
  Dim3 index;
  unsigned id;  // linear within the block
};
extern Thread* current;
extern Dim3 block_index, block_dim, grid_dim;

constexpr unsigned WARP = 32;
constexpr uint32_t WHOLE_WARP = 0xffffffffu;

// __syncthreads: returns when every thread of the block has come to the same line. `count` adds up the predicates of all.
void block_barrier(int line);
int block_barrier_count(int predicate, int line);

// A warp operation: returns when every living lane named in `mask` waits in the same operation; `run` has then been called once
// with the `mine` of each lane in the mask (null for lanes that are not there).
using Collective = void (*)(void* const* lanes, uint32_t mask);
void collective(uint32_t mask, Collective run, void* mine, int line);
// The same for operations that a whole warp must execute: mma, ldmatrix.
void whole_warp(Collective run, void* mine, int line);
// __activemask: the lanes that are at the same line once no lane of the warp can run on.
uint32_t active_mask(int line);

// griddepcontrol.wait: a kernel that may be placed before the one ahead of it ends has no device memory until then.
void wait_for_grids_before();

// barrier.cluster: every thread of a cluster's blocks arrives and waits, those apart that have left.
void cluster_arrive(int line);
void cluster_wait(int line);
// mapa: where a place in one's own shared memory is in that of the cluster's block `rank`; and what lies there, for ld and st.
uint32_t cluster_address(uint32_t address, uint32_t rank, int line);
char* cluster_pointer(uint32_t address, size_t bytes, int line);

// Shared memory: one address for each declaration and block, filled with NaNs at the block's start, walls behind each array.
void* shared_array(int declaration, size_t bytes, size_t alignment);
char* dynamic_shared();
uint32_t shared_address(const void* pointer);
char* shared_pointer(uint32_t address, size_t bytes, int line);

// cp.async: a copy lands as late as the rules allow (in wait), or at once where the launch is configured so. The bytes behind
// `valid` are zero.
void copy_async(uint32_t to, const void* from, unsigned bytes, unsigned valid, int line);
void commit_copies();
void wait_copies(unsigned groups_in_flight);

// wgmma: likewise, a product is made as late as the rules allow, and reads its operands then. Before a thread's first one behind a wait
// there must be wgmma.fence, which orders its registers; and before the last barrier a wait for copies, all that wrote its operands, or
// behind it fence.proxy.async, without which the unit does not see what threads wrote into shared memory themselves.
void fence_registers();
void fence_proxy();
void product_async(std::function<void()> product, int line);
void commit_products();
void wait_products(unsigned groups_in_flight);

[[noreturn]] void fail(const char* what, int line);

// What a compiled kernel exports as NAME__emulated.
struct Kernel {
  void (*call)(void** arguments);
  // Calls `visit` with each argument that is a pointer.
  void (*pointers)(void** arguments, void (*visit)(const void*));
  // Calls `visit` with the size of each argument.
  void (*sizes)(void (*visit)(size_t));
  unsigned max_threads;  // __launch_bounds__
  Dim3 cluster;          // __cluster_dims__
};

}  // namespace cuda_emulation
