// Included before every translated kernel: CUDA's words, in terms of the engine.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "engine.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __align__(n) __attribute__((aligned(n)))
// Calls that wait are opaque to the compiler, and fibers share memory: nothing may be assumed about who writes through which pointer.
#define __restrict__
#define __CUDACC__ 1
#define __CUDA_ARCH__ 900
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0

#define threadIdx (cuda_emulation::current->index)
#define blockIdx (cuda_emulation::block_index)
#define blockDim (cuda_emulation::block_dim)
#define gridDim (cuda_emulation::grid_dim)
#define warpSize 32

namespace cuda_emulation {

template <class... P, size_t... I>
void call_with(void (*kernel)(P...), void** a, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_reference_t<P>*>(a[I])...);
}
template <class... P>
void call_with(void (*kernel)(P...), void** a) {
  call_with(kernel, a, std::index_sequence_for<P...>{});
}
template <class P>
void visit_pointer(void* a, void (*visit)(const void*)) {
  if constexpr (std::is_pointer_v<P>) visit(*static_cast<P*>(a));
}
template <class... P, size_t... I>
void visit_pointers(void (*)(P...), void** a, void (*visit)(const void*), std::index_sequence<I...>) {
  (visit_pointer<P>(a[I], visit), ...);
}
template <class... P>
void visit_pointers(void (*kernel)(P...), void** a, void (*visit)(const void*)) {
  visit_pointers(kernel, a, visit, std::index_sequence_for<P...>{});
}

template <class... P>
void visit_sizes(void (*)(P...), void (*visit)(size_t)) {
  (visit(sizeof(P)), ...);
}

template <class T, int DECLARATION>
T& shared(size_t alignment = alignof(T)) {
  return *static_cast<T*>(shared_array(DECLARATION, sizeof(T), alignment < 16 ? 16 : alignment));
}

}  // namespace cuda_emulation

#define CUDA_EMULATION_EXPORT(NAME, MAX_THREADS, ...)                                                                  \
  extern "C" const cuda_emulation::Kernel NAME##__emulated;                                                         \
  const cuda_emulation::Kernel NAME##__emulated = {                                                                 \
      [](void** a) { cuda_emulation::call_with(&NAME, a); },                                                        \
      [](void** a, void (*visit)(const void*)) { cuda_emulation::visit_pointers(&NAME, a, visit); },   \
      [](void (*visit)(size_t)) { cuda_emulation::visit_sizes(&NAME, visit); }, MAX_THREADS, {__VA_ARGS__}};

#include "vector_types.h"
#include "arithmetic.h"
#include "small_floats.h"
#include "warp.h"
#include "ptx.h"
