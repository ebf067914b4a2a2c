// The driver's entry points that libconvc uses and TVM's CUDA runtime does not; each is one of entry_points.cpp under its other name, but
// refuses a thread that has no current context: the runtime library makes a device's primary context current by itself, the driver does not.
#include <cstddef>
#include <vector>

#include "cuda_abi.h"

using cuda_abi::DEVICE_TO_HOST;
using cuda_abi::HOST_TO_DEVICE;
using cuda_abi::INVALID_CONTEXT;
using cuda_abi::LaunchConfig;
using cuda_abi::SUCCESS;

using Address = unsigned long long;

namespace {

int primary;  // stands for the device's primary context
thread_local std::vector<void*> contexts;  // of the calling thread, its current one last

// What `call` answers where there is a current context.
template <class Call>
int in_context(Call call) {
  return contexts.empty() ? INVALID_CONTEXT : call();
}

}  // namespace

extern "C" {

int cudaMalloc(void**, size_t);
int cudaFree(void*);
int cudaMemcpyAsync(void*, const void*, size_t, int, void*);
int cudaStreamCreate(void**);
int cudaStreamDestroy(void*);
int cudaStreamSynchronize(void*);
int cudaStreamBeginCapture(void*, int);
int cudaStreamEndCapture(void*, void**);
int cudaGraphInstantiate(void**, void*, unsigned long long);
int cudaGraphLaunch(void*, void*);
int cudaGraphDestroy(void*);
int cudaGraphExecDestroy(void*);
int cudaEventCreate(void**);
int cudaEventDestroy(void*);
int cudaEventRecord(void*, void*);
int cudaEventSynchronize(void*);
int cudaEventElapsedTime(float*, void*, void*);
int cuLaunchKernelEx(const LaunchConfig*, void*, void**, void**);

int cuDeviceGet(int* device, int index) { return *device = index, SUCCESS; }
int cuDevicePrimaryCtxRetain(void** context, int) { return *context = &primary, SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
int cuCtxPushCurrent_v2(void* context) {
  if (context != &primary) return INVALID_CONTEXT;
  return contexts.push_back(context), SUCCESS;
}
int cuCtxPopCurrent_v2(void** context) {
  return in_context([&] { return *context = contexts.back(), contexts.pop_back(), SUCCESS; });
}
int cuCtxGetCurrent(void** context) { return *context = contexts.empty() ? nullptr : contexts.back(), SUCCESS; }
int cuCtxSetCurrent(void* context) {
  if (!contexts.empty()) contexts.pop_back();
  return context ? cuCtxPushCurrent_v2(context) : SUCCESS;
}

int cuMemAlloc_v2(Address* memory, size_t bytes) {
  return in_context([&] {
    void* taken = nullptr;
    const int answer = cudaMalloc(&taken, bytes);
    return *memory = reinterpret_cast<Address>(taken), answer;
  });
}
int cuMemFree_v2(Address memory) {
  return in_context([&] { return cudaFree(reinterpret_cast<void*>(memory)); });
}
int cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, void* stream) {
  return in_context([&] { return cudaMemcpyAsync(reinterpret_cast<void*>(to), from, bytes, HOST_TO_DEVICE, stream); });
}
int cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, void* stream) {
  return in_context([&] { return cudaMemcpyAsync(to, reinterpret_cast<void*>(from), bytes, DEVICE_TO_HOST, stream); });
}

int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
                   unsigned shared, void* stream, void** arguments, void**) {
  const LaunchConfig config = {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, stream, nullptr, 0};
  return in_context([&] { return cuLaunchKernelEx(&config, function, arguments, nullptr); });
}

int cuStreamCreate(void** stream, unsigned) {
  return in_context([&] { return cudaStreamCreate(stream); });
}
int cuStreamDestroy_v2(void* stream) {
  return in_context([&] { return cudaStreamDestroy(stream); });
}
int cuStreamSynchronize(void* stream) {
  return in_context([&] { return cudaStreamSynchronize(stream); });
}
int cuStreamBeginCapture_v2(void* stream, int mode) {
  return in_context([&] { return cudaStreamBeginCapture(stream, mode); });
}
int cuStreamEndCapture(void* stream, void** graph) {
  return in_context([&] { return cudaStreamEndCapture(stream, graph); });
}
int cuGraphInstantiateWithFlags(void** launchable, void* graph, unsigned long long flags) {
  return in_context([&] { return cudaGraphInstantiate(launchable, graph, flags); });
}
int cuGraphLaunch(void* launchable, void* stream) {
  return in_context([&] { return cudaGraphLaunch(launchable, stream); });
}
int cuGraphDestroy(void* graph) { return cudaGraphDestroy(graph); }
int cuGraphExecDestroy(void* launchable) { return cudaGraphExecDestroy(launchable); }
int cuEventCreate(void** event, unsigned) {
  return in_context([&] { return cudaEventCreate(event); });
}
int cuEventDestroy_v2(void* event) {
  return in_context([&] { return cudaEventDestroy(event); });
}
int cuEventRecord(void* event, void* stream) {
  return in_context([&] { return cudaEventRecord(event, stream); });
}
int cuEventSynchronize(void* event) {
  return in_context([&] { return cudaEventSynchronize(event); });
}
int cuEventElapsedTime(float* milliseconds, void* begin, void* end) {
  return in_context([&] { return cudaEventElapsedTime(milliseconds, begin, end); });
}
int cuEventElapsedTime_v2(float* milliseconds, void* begin, void* end) {
  return in_context([&] { return cudaEventElapsedTime(milliseconds, begin, end); });
}

}  // extern "C"
