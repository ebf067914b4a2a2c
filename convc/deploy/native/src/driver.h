// NVIDIA's driver, libcuda.so.1, opened when a module for CUDA is loaded: a program without one needs no driver, and nothing of CUDA's
// runtime library or of cuDNN is needed by any. A primary context is shared with whatever else uses CUDA in the process.
//
// SOURCE  cuda.h 13.0 (driver API). Its pointer types are void * here, its enums int; tests compare the declarations where the toolkit is.
#ifndef CONVC_DRIVER_H_
#define CONVC_DRIVER_H_

#include <stddef.h>

#include "error.h"

namespace convc {

using CudaHandle = void *;  // a context, module, function, stream, event, graph
using DeviceAddress = unsigned long long;

// CUlaunchAttribute with a value that is a number, and CUlaunchConfig.
struct LaunchAttribute {
  int id;
  alignas(8) int value;
  char rest[60];
};
struct LaunchConfig {
  unsigned grid[3], block[3], shared_bytes;
  CudaHandle stream;
  LaunchAttribute *attributes;
  unsigned attribute_count;
};

struct Driver {
  int (*cuInit)(unsigned flags);
  int (*cuDriverGetVersion)(int *version);
  int (*cuGetErrorString)(int status, const char **text);
  int (*cuDeviceGetCount)(int *count);
  int (*cuDeviceGet)(int *device, int index);
  int (*cuDeviceGetName)(char *name, int room, int device);
  int (*cuDeviceGetAttribute)(int *value, int attribute, int device);
  int (*cuDevicePrimaryCtxRetain)(CudaHandle *context, int device);
  int (*cuDevicePrimaryCtxRelease_v2)(int device);
  int (*cuCtxPushCurrent_v2)(CudaHandle context);
  int (*cuCtxPopCurrent_v2)(CudaHandle *context);
  int (*cuModuleLoadData)(CudaHandle *module, const void *image);
  int (*cuModuleUnload)(CudaHandle module);
  int (*cuModuleGetFunction)(CudaHandle *function, CudaHandle module, const char *name);
  int (*cuFuncSetAttribute)(CudaHandle function, int attribute, int value);
  int (*cuLaunchKernelEx)(void *config, CudaHandle function, void **arguments, void **extra);
  int (*cuMemAlloc_v2)(DeviceAddress *memory, size_t nbytes);
  int (*cuMemFree_v2)(DeviceAddress memory);
  int (*cuMemcpyHtoDAsync_v2)(DeviceAddress to, const void *from, size_t nbytes, CudaHandle stream);
  int (*cuMemcpyDtoHAsync_v2)(void *to, DeviceAddress from, size_t nbytes, CudaHandle stream);
  int (*cuStreamCreate)(CudaHandle *stream, unsigned flags);
  int (*cuStreamDestroy_v2)(CudaHandle stream);
  int (*cuStreamSynchronize)(CudaHandle stream);
  int (*cuStreamBeginCapture_v2)(CudaHandle stream, int mode);
  int (*cuStreamEndCapture)(CudaHandle stream, CudaHandle *graph);
  int (*cuGraphInstantiateWithFlags)(CudaHandle *launchable, CudaHandle graph, unsigned long long flags);
  int (*cuGraphLaunch)(CudaHandle launchable, CudaHandle stream);
  int (*cuGraphDestroy)(CudaHandle graph);
  int (*cuGraphExecDestroy)(CudaHandle launchable);
  int (*cuEventCreate)(CudaHandle *event, unsigned flags);
  int (*cuEventDestroy_v2)(CudaHandle event);
  int (*cuEventRecord)(CudaHandle event, CudaHandle stream);
  int (*cuEventSynchronize)(CudaHandle event);
  int (*cuEventElapsedTime_v2)(float *milliseconds, CudaHandle begin, CudaHandle end);

  // The driver, opened and initialised once; an error in words without one.
  static convc_status open(const Driver *&driver);

  // CONVC_OK, or an error with the driver's own text for what `call` answered.
  convc_status check(int answer, const char *call, convc_status status = CONVC_ERROR_RUN) const;
};

}  // namespace convc
#endif  // CONVC_DRIVER_H_
