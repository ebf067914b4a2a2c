// Between the engine, the emulated memories and the CUDA entry points; kernels do not see it.
#pragma once
#include <cstddef>
#include <string>

#include "engine.h"

namespace cuda_emulation {

constexpr unsigned MAX_THREADS = 1024;
constexpr unsigned MAX_CLUSTER = 8;  // blocks, that every device with clusters has
constexpr size_t STATIC_SHARED = 48 << 10, MAX_SHARED = 227 << 10;  // sm_90: bytes a block may have without and with opting in

// How a launch decides what CUDA leaves open.
struct Mode {
  unsigned order = 0;              // 0: threads and blocks upwards, 1: downwards, more: threads shuffled at every barrier
  bool copies_land_early = false;  // cp.async and wgmma: at once, not in the wait
};
void set_mode(Mode mode);

// Runs every block; returns what went wrong, or nothing.
// `early`: it may be placed before the kernel ahead of it has ended, and every thread must wait for that.
std::string launch(const Kernel& kernel, void** arguments, Dim3 grid, Dim3 block, size_t dynamic_bytes, bool early);

// Shared memory (shared_memory.cpp).
std::string shared_begin_launch(size_t dynamic_bytes, unsigned blocks_of_a_cluster);
void shared_select(unsigned rank);  // of the block that what follows is about
void shared_begin_block();
std::string shared_end_block();  // what was damaged, or nothing
uint32_t in_window(uint32_t address, unsigned rank);
int window_of(uint32_t address);  // the rank that it names, or -1: one's own

// Device memory (device_memory.cpp).
void* device_allocate(size_t bytes);
bool device_free(void* pointer);
bool is_device_memory(const void* pointer, size_t bytes);
size_t device_bytes_used();
void device_open(bool open);  // to be touched, for the time of a launch or a copy
struct OpenDeviceMemory {
  OpenDeviceMemory() { device_open(true); }
  ~OpenDeviceMemory() { device_open(false); }
};
std::string device_damage();  // a write outside an allocation that hit no wall, or nothing
std::string describe_address(const void* address);
std::string describe_shared(const void* address);  // nothing where it is no shared memory

}  // namespace cuda_emulation
