#include "device.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

namespace convc {
namespace {

constexpr int kComputeMajor = 75, kComputeMinor = 76;  // CUdevice_attribute

// Whether code that the manifest calls "sm_90" or "ptx_80" runs on a capability: machine code on its own major number, at its minor one
// or above, PTX on anything not older. The Python runtime decides alike (convc/runtime/cuda.py).
bool runs_on(const Text &code, int sm) {
  const bool ptx = strncmp(code.data, "ptx_", 4) == 0;
  if (!ptx && strncmp(code.data, "sm_", 3) != 0) return false;
  const long number = strtol(code.data + (ptx ? 4 : 3), nullptr, 10);
  return number > 0 && number <= sm && (ptx || number / 10 == sm / 10);
}

}  // namespace

Device::~Device() {
  if (context_) {
    {
      const Current current(*this);
      if (weights_) driver_->cuMemFree_v2(weights_);
      if (module_) driver_->cuModuleUnload(module_);
    }
    driver_->cuDevicePrimaryCtxRelease_v2(device_);
  }
  free(functions_);
}

convc_status Device::find(const Variant &variant, int index) {
  if (convc_status bad = Driver::open(driver_)) return bad;
  int count = 0, major = 0, minor = 0;
  if (convc_status bad = driver_->check(driver_->cuDeviceGetCount(&count), "cuDeviceGetCount", CONVC_ERROR_TARGET)) return bad;
  if (!count) return fail(CONVC_ERROR_TARGET, "a module for cuda must find a CUDA device; got none. CUDA_VISIBLE_DEVICES may hide it.");
  if (index < 0 || index >= count) return fail(CONVC_ERROR_ARGUMENT, "device must be from 0 to %d; got %d.", count - 1, index);
  if (convc_status bad = driver_->check(driver_->cuDeviceGet(&device_, index), "cuDeviceGet", CONVC_ERROR_TARGET)) return bad;
  char name[128] = "CUDA device";
  driver_->cuDeviceGetName(name, sizeof name, device_);
  driver_->cuDeviceGetAttribute(&major, kComputeMajor, device_);
  driver_->cuDeviceGetAttribute(&minor, kComputeMinor, device_);
  const int sm = 10 * major + minor;
  snprintf(description_, sizeof description_, "%s (sm_%d)", name, sm);
  char codes[256];
  size_t used = 0;
  codes[0] = 0;
  for (const Text &code : variant.device) {
    if (runs_on(code, sm)) return CONVC_OK;
    const int added = snprintf(codes + used, sizeof codes - used, "%s%s", used ? ", " : "", code.data);
    if (added < 0 || (used += static_cast<size_t>(added)) >= sizeof codes) break;
  }
  return fail(CONVC_ERROR_TARGET, "module must have code for this device, %s; got %s. Compile it with --sm %d.", description_, codes[0] ? codes : "none", sm);
}

convc_status Device::load(const unsigned char *library_bin, const void *weights, size_t weights_bytes) {
  if (convc_status bad = parse_kernels(library_bin, bump_, kernels_)) return bad;
  if (convc_status bad = driver_->check(driver_->cuDevicePrimaryCtxRetain(&context_, device_), "cuDevicePrimaryCtxRetain", CONVC_ERROR_TARGET)) {
    context_ = nullptr;
    return bad;
  }
  const Current current(*this);
  if (current.status()) return current.status();
  if (convc_status bad = find_functions()) return bad;
  const int taken = driver_->cuMemAlloc_v2(&weights_, weights_bytes);
  if (taken) {
    weights_ = 0;
    return fail(CONVC_ERROR_MEMORY, "%s must have memory for %zu bytes of weights; got status %d of cuMemAlloc.", description_, weights_bytes, taken);
  }
  const int sent = driver_->cuMemcpyHtoDAsync_v2(weights_, weights, weights_bytes, nullptr);
  if (convc_status bad = driver_->check(sent, "uploading the weights")) return bad;
  return driver_->check(driver_->cuStreamSynchronize(nullptr), "uploading the weights");
}

convc_status Device::find_functions() {
  const size_t count = kernels_.all.size;
  if (!count) return CONVC_OK;
  if (convc_status bad = driver_->check(driver_->cuModuleLoadData(&module_, kernels_.code), "loading the kernels (cuModuleLoadData)", CONVC_ERROR_TARGET)) {
    module_ = nullptr;
    return bad;
  }
  functions_ = static_cast<CudaHandle *>(calloc(count, sizeof *functions_));
  if (!functions_) return fail(CONVC_ERROR_MEMORY, "memory must be enough for %zu kernels; got none.", count);
  for (size_t i = 0; i < count; ++i) {
    const int found = driver_->cuModuleGetFunction(&functions_[i], module_, kernels_.all[i].name.data);
    if (found) return fail(CONVC_ERROR_FORMAT, "module must have its kernel '%s'; got status %d of cuModuleGetFunction.", kernels_.all[i].name.data, found);
  }
  return CONVC_OK;
}

}  // namespace convc
