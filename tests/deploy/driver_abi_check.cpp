// Compiled, never run, where CUDA's headers are: libconvc's declarations of the driver's functions are theirs, but for the names of types
// that are passed alike: a pointer to a structure is a void *, an enum an int.
#include <cuda.h>

#include <type_traits>

#include "driver.h"

template <typename T>
struct Plain {
  using type = std::conditional_t<std::is_enum<T>::value, int, T>;
};
template <typename T>
struct Plain<T *> {
  using type = std::conditional_t<std::is_class<T>::value, void *, typename Plain<T>::type *>;
};
template <typename T>
struct Plain<const T> {
  using type = const typename Plain<T>::type;
};
template <typename Result, typename... Arguments>
struct Plain<Result (*)(Arguments...)> {
  using type = typename Plain<Result>::type (*)(typename Plain<Arguments>::type...);
};

#define SAME(NAME) static_assert(std::is_same<decltype(convc::Driver::NAME), Plain<decltype(&::NAME)>::type>::value, #NAME)
SAME(cuInit);
SAME(cuDriverGetVersion);
SAME(cuGetErrorString);
SAME(cuDeviceGetCount);
SAME(cuDeviceGet);
SAME(cuDeviceGetName);
SAME(cuDeviceGetAttribute);
SAME(cuDevicePrimaryCtxRetain);
SAME(cuDevicePrimaryCtxRelease_v2);
SAME(cuCtxPushCurrent_v2);
SAME(cuCtxPopCurrent_v2);
SAME(cuModuleLoadData);
SAME(cuModuleUnload);
SAME(cuModuleGetFunction);
SAME(cuFuncSetAttribute);
SAME(cuLaunchKernelEx);
SAME(cuMemAlloc_v2);
SAME(cuMemFree_v2);
SAME(cuMemcpyHtoDAsync_v2);
SAME(cuMemcpyDtoHAsync_v2);
SAME(cuStreamCreate);
SAME(cuStreamDestroy_v2);
SAME(cuStreamSynchronize);
SAME(cuStreamBeginCapture_v2);
SAME(cuStreamEndCapture);
SAME(cuGraphInstantiateWithFlags);
SAME(cuGraphLaunch);
SAME(cuGraphDestroy);
SAME(cuGraphExecDestroy);
SAME(cuEventCreate);
SAME(cuEventDestroy_v2);
SAME(cuEventRecord);
SAME(cuEventSynchronize);
SAME(cuEventElapsedTime_v2);

static_assert(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR == 75 && CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR == 76);
static_assert(CU_STREAM_NON_BLOCKING == 1 && CU_STREAM_CAPTURE_MODE_RELAXED == 2 && CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES == 8);

static_assert(sizeof(convc::LaunchAttribute) == sizeof(CUlaunchAttribute), "CUlaunchAttribute");
static_assert(offsetof(convc::LaunchAttribute, value) == offsetof(CUlaunchAttribute, value), "value");
static_assert(sizeof(convc::LaunchConfig) == sizeof(CUlaunchConfig), "CUlaunchConfig");
static_assert(offsetof(convc::LaunchConfig, shared_bytes) == offsetof(CUlaunchConfig, sharedMemBytes), "sharedMemBytes");
static_assert(offsetof(convc::LaunchConfig, stream) == offsetof(CUlaunchConfig, hStream), "hStream");
static_assert(offsetof(convc::LaunchConfig, attributes) == offsetof(CUlaunchConfig, attrs), "attrs");
static_assert(offsetof(convc::LaunchConfig, attribute_count) == offsetof(CUlaunchConfig, numAttrs), "numAttrs");
static_assert(CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION == 6);
