// The little of CUDA 13's binary interface that TVM's CUDA runtime uses, declared here so that no CUDA toolkit is needed to test.
// Where the toolkit's headers are, test_doubles.py compiles cuda_abi_check.cpp, which compares every number with them.
#pragma once
#include <cstddef>

namespace cuda_abi {

enum Error {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  INVALID_DEVICE_POINTER = 17,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  NOT_FOUND = 500,
  LAUNCH_FAILED = 719,
  NOT_SUPPORTED = 801,
};

enum CopyKind { HOST_TO_HOST, HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE };

enum Attribute {
  MAX_THREADS_PER_BLOCK = 1,
  MAX_BLOCK_X = 2,
  MAX_BLOCK_Y = 3,
  MAX_BLOCK_Z = 4,
  MAX_GRID_X = 5,
  MAX_GRID_Y = 6,
  MAX_GRID_Z = 7,
  MAX_SHARED_PER_BLOCK = 8,
  WARP_SIZE = 10,
  MAX_REGISTERS_PER_BLOCK = 12,
  CLOCK_RATE = 13,
  MULTIPROCESSORS = 16,
  L2_CACHE_SIZE = 38,
  MAX_THREADS_PER_MULTIPROCESSOR = 39,
  COMPUTE_MAJOR = 75,
  COMPUTE_MINOR = 76,
  MAX_SHARED_PER_MULTIPROCESSOR = 81,
  MAX_SHARED_PER_BLOCK_OPTIN = 97,
};

// cudaDeviceProp: the fields that are asked for, at their places.
struct DeviceProperties {
  char name[256];
  char identity[32];
  size_t total_memory;
  size_t shared_per_block;
  int registers_per_block, warp_size;
  char between[48];
  int major, minor;
  char between_2[16];
  int multiprocessors;
  char rest[612];
};

enum FunctionAttribute { MAX_DYNAMIC_SHARED = 8 };

// CUlaunchAttribute, with a value that is a number
struct LaunchAttribute {
  int id;
  alignas(8) int value;
  char rest[60];
};
enum LaunchAttributeId { PROGRAMMATIC_STREAM_SERIALIZATION = 6 };

// CUlaunchConfig
struct LaunchConfig {
  unsigned grid[3], block[3], dynamic_shared;
  void *stream;
  LaunchAttribute *attributes;
  unsigned attribute_count;
};

}  // namespace cuda_abi
