#include "driver.h"

#include <dlfcn.h>
#include <pthread.h>

namespace convc {
namespace {

constexpr const char *kLibrary = "libcuda.so.1";
// Machine code of CUDA 13's compiler; an older driver refuses it with a number.
constexpr int kLeastVersion = 13000;

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
Driver loaded;
bool ready = false;

convc_status load() {
  void *library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    return fail(CONVC_ERROR_TARGET, "a module for cuda must find NVIDIA's driver, %s; got none (%s). For this machine's CPU compile the model with --target llvm.",
                kLibrary, dlerror());
  }
#define CONVC_FIND(NAME)                                                                                              \
  if (!(*reinterpret_cast<void **>(&loaded.NAME) = dlsym(library, #NAME))) {                                          \
    return fail(CONVC_ERROR_TARGET, "NVIDIA's driver must be of CUDA 13 (580 or newer); got one without " #NAME "."); \
  }
  CONVC_FIND(cuInit) CONVC_FIND(cuDriverGetVersion) CONVC_FIND(cuGetErrorString)
  CONVC_FIND(cuDeviceGetCount) CONVC_FIND(cuDeviceGet) CONVC_FIND(cuDeviceGetName) CONVC_FIND(cuDeviceGetAttribute)
  CONVC_FIND(cuDevicePrimaryCtxRetain) CONVC_FIND(cuDevicePrimaryCtxRelease_v2)
  CONVC_FIND(cuCtxPushCurrent_v2) CONVC_FIND(cuCtxPopCurrent_v2)
  CONVC_FIND(cuModuleLoadData) CONVC_FIND(cuModuleUnload) CONVC_FIND(cuModuleGetFunction)
  CONVC_FIND(cuFuncSetAttribute) CONVC_FIND(cuLaunchKernelEx)
  CONVC_FIND(cuMemAlloc_v2) CONVC_FIND(cuMemFree_v2) CONVC_FIND(cuMemcpyHtoDAsync_v2) CONVC_FIND(cuMemcpyDtoHAsync_v2)
  CONVC_FIND(cuStreamCreate) CONVC_FIND(cuStreamDestroy_v2) CONVC_FIND(cuStreamSynchronize)
  CONVC_FIND(cuStreamBeginCapture_v2) CONVC_FIND(cuStreamEndCapture)
  CONVC_FIND(cuGraphInstantiateWithFlags) CONVC_FIND(cuGraphLaunch) CONVC_FIND(cuGraphDestroy) CONVC_FIND(cuGraphExecDestroy)
  CONVC_FIND(cuEventCreate) CONVC_FIND(cuEventDestroy_v2) CONVC_FIND(cuEventRecord) CONVC_FIND(cuEventSynchronize)
  CONVC_FIND(cuEventElapsedTime_v2)
#undef CONVC_FIND
  if (const int answer = loaded.cuInit(0)) {
    return fail(CONVC_ERROR_TARGET, "a module for cuda must find a CUDA device; got none: cuInit answers %d. `nvidia-smi` says what is wrong.", answer);
  }
  int version = 0;
  loaded.cuDriverGetVersion(&version);
  if (version < kLeastVersion) {
    return fail(CONVC_ERROR_TARGET, "NVIDIA's driver must be of CUDA 13 (580 or newer); got one of CUDA %d.%d.", version / 1000, version % 1000 / 10);
  }
  return CONVC_OK;
}

}  // namespace

convc_status Driver::open(const Driver *&driver) {
  pthread_mutex_lock(&lock);
  // A failure is tried again: a device may have come meanwhile.
  const convc_status status = ready ? CONVC_OK : load();
  ready = status == CONVC_OK;
  pthread_mutex_unlock(&lock);
  driver = status ? nullptr : &loaded;
  return status;
}

convc_status Driver::check(int answer, const char *call, convc_status status) const {
  if (!answer) return CONVC_OK;
  const char *text = nullptr;
  cuGetErrorString(answer, &text);
  return fail(status, "%s must succeed; got status %d, '%s'.", call, answer, text ? text : "unknown");
}

}  // namespace convc
