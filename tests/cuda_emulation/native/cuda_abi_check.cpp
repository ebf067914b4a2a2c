// Compiled, never run, where CUDA's headers are: our declarations are theirs.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include "cuda_abi.h"

#define SAME(OURS, THEIRS) static_assert(static_cast<int>(cuda_abi::OURS) == static_cast<int>(THEIRS), #OURS)
SAME(INVALID_VALUE, cudaErrorInvalidValue);
SAME(INVALID_VALUE, CUDA_ERROR_INVALID_VALUE);
SAME(OUT_OF_MEMORY, cudaErrorMemoryAllocation);
SAME(OUT_OF_MEMORY, CUDA_ERROR_OUT_OF_MEMORY);
SAME(INVALID_DEVICE_POINTER, cudaErrorInvalidDevicePointer);
SAME(INVALID_DEVICE, cudaErrorInvalidDevice);
SAME(INVALID_IMAGE, CUDA_ERROR_INVALID_IMAGE);
SAME(INVALID_CONTEXT, CUDA_ERROR_INVALID_CONTEXT);
SAME(NOT_FOUND, CUDA_ERROR_NOT_FOUND);
SAME(LAUNCH_FAILED, CUDA_ERROR_LAUNCH_FAILED);
SAME(LAUNCH_FAILED, cudaErrorLaunchFailure);
SAME(NOT_SUPPORTED, CUDA_ERROR_NOT_SUPPORTED);
SAME(NOT_SUPPORTED, cudaErrorNotSupported);
SAME(HOST_TO_DEVICE, cudaMemcpyHostToDevice);
SAME(DEVICE_TO_HOST, cudaMemcpyDeviceToHost);
SAME(DEVICE_TO_DEVICE, cudaMemcpyDeviceToDevice);
SAME(MAX_THREADS_PER_BLOCK, cudaDevAttrMaxThreadsPerBlock);
SAME(MAX_BLOCK_X, cudaDevAttrMaxBlockDimX);
SAME(MAX_BLOCK_Y, cudaDevAttrMaxBlockDimY);
SAME(MAX_BLOCK_Z, cudaDevAttrMaxBlockDimZ);
SAME(MAX_GRID_X, cudaDevAttrMaxGridDimX);
SAME(MAX_GRID_Y, cudaDevAttrMaxGridDimY);
SAME(MAX_GRID_Z, cudaDevAttrMaxGridDimZ);
SAME(MAX_SHARED_PER_BLOCK, cudaDevAttrMaxSharedMemoryPerBlock);
SAME(WARP_SIZE, cudaDevAttrWarpSize);
SAME(MAX_REGISTERS_PER_BLOCK, cudaDevAttrMaxRegistersPerBlock);
SAME(CLOCK_RATE, cudaDevAttrClockRate);
SAME(MULTIPROCESSORS, cudaDevAttrMultiProcessorCount);
SAME(L2_CACHE_SIZE, cudaDevAttrL2CacheSize);
SAME(MAX_THREADS_PER_MULTIPROCESSOR, cudaDevAttrMaxThreadsPerMultiProcessor);
SAME(COMPUTE_MAJOR, cudaDevAttrComputeCapabilityMajor);
SAME(COMPUTE_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
SAME(COMPUTE_MINOR, cudaDevAttrComputeCapabilityMinor);
SAME(MAX_SHARED_PER_MULTIPROCESSOR, cudaDevAttrMaxSharedMemoryPerMultiprocessor);
SAME(MAX_SHARED_PER_BLOCK_OPTIN, cudaDevAttrMaxSharedMemoryPerBlockOptin);
SAME(MAX_DYNAMIC_SHARED, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);

#define PLACE(OURS, THEIRS) static_assert(offsetof(cuda_abi::DeviceProperties, OURS) == offsetof(cudaDeviceProp, THEIRS), #OURS)
PLACE(name, name);
PLACE(total_memory, totalGlobalMem);
PLACE(shared_per_block, sharedMemPerBlock);
PLACE(registers_per_block, regsPerBlock);
PLACE(warp_size, warpSize);
PLACE(major, major);
PLACE(multiprocessors, multiProcessorCount);
static_assert(sizeof(cuda_abi::DeviceProperties) <= sizeof(cudaDeviceProp), "never write behind theirs");

static_assert(sizeof(cuda_abi::LaunchConfig) == sizeof(CUlaunchConfig));
static_assert(offsetof(cuda_abi::LaunchConfig, block) == offsetof(CUlaunchConfig, blockDimX));
static_assert(offsetof(cuda_abi::LaunchConfig, dynamic_shared) == offsetof(CUlaunchConfig, sharedMemBytes));
static_assert(offsetof(cuda_abi::LaunchConfig, stream) == offsetof(CUlaunchConfig, hStream));
static_assert(offsetof(cuda_abi::LaunchConfig, attribute_count) == offsetof(CUlaunchConfig, numAttrs));
static_assert(offsetof(cuda_abi::LaunchConfig, attributes) == offsetof(CUlaunchConfig, attrs));
static_assert(sizeof(cuda_abi::LaunchAttribute) == sizeof(CUlaunchAttribute));
static_assert(offsetof(cuda_abi::LaunchAttribute, value) == offsetof(CUlaunchAttribute, value));
SAME(PROGRAMMATIC_STREAM_SERIALIZATION, CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION);
