// A module on a CUDA device: its weights and kernels there, each context's stream and memory, and a run between the caller's buffers.
//
// The module's own host code launches its kernels, through three functions of TVM's that are answered here. Between the context's own
// buffers the launches are recorded the first time and replayed as one CUDA graph from then on.
#ifndef CONVC_DEVICE_H_
#define CONVC_DEVICE_H_

#include "abi.h"
#include "driver.h"
#include "kernels.h"
#include "library.h"
#include "manifest.h"
#include "workspace.h"

struct convc_module;
struct convc_context;

namespace convc {

// What a module has on its device.
class Device {
 public:
  Device() = default;
  Device(const Device &) = delete;
  Device &operator=(const Device &) = delete;
  ~Device();

  // Find device number `index` and compare it with what the variant has code for. Nothing of the module has been loaded yet.
  convc_status find(const Variant &variant, int index);
  // Take the device's primary context, the kernels of the module's code, and upload the weights.
  convc_status load(const unsigned char *library_bin, const void *weights, size_t weights_bytes);

  const char *description() const { return description_; }  // "NVIDIA H200 (sm_90)"
  DeviceAddress weights() const { return weights_; }

  // While it exists, the device is the calling thread's current one.
  class Current {
   public:
    explicit Current(const Device &device) : driver_(*device.driver_) { status_ = driver_.check(driver_.cuCtxPushCurrent_v2(device.context_), "cuCtxPushCurrent"); }
    ~Current() {
      CudaHandle before;
      if (!status_) driver_.cuCtxPopCurrent_v2(&before);
    }
    Current(const Current &) = delete;
    Current &operator=(const Current &) = delete;
    convc_status status() const { return status_; }

   private:
    const Driver &driver_;
    convc_status status_;
  };

  const Driver *driver_ = nullptr;
  Kernels kernels_;
  CudaHandle *functions_ = nullptr;  // of the kernels, in their order

 private:
  convc_status find_functions();

  int device_ = 0;
  char description_[192] = {};
  CudaHandle context_ = nullptr;
  CudaHandle module_ = nullptr;
  DeviceAddress weights_ = 0;
  Bump bump_;
};

// What a context has there.
class DeviceRun {
 public:
  explicit DeviceRun(const Device &device) : device_(device), driver_(*device.driver_) {}
  DeviceRun(const DeviceRun &) = delete;
  DeviceRun &operator=(const DeviceRun &) = delete;
  ~DeviceRun();

  // Make the stream, the arena, the workspace and a buffer for each input and output.
  convc_status allocate(const Manifest &manifest, const Variant &variant);
  DeviceAddress arena() const { return arena_; }

  // Copy a part's inputs there, run it, copy its outputs back, wait.
  convc_status run(convc_context &context, size_t part, const void *const *inputs, void *const *outputs);
  // Queue a run between addresses on the device, already in the context's tensors, on the caller's stream.
  convc_status queue(convc_context &context, CudaHandle stream);
  // Whether a step is a library's, which does at its first call what no later one has to do; run a part once on zeros, so that it has.
  bool calls_library(size_t part) const { return refusals_.calls(part); }
  convc_status warm_up(convc_context &context, size_t part);
  const Refusals &refusals() const { return refusals_; }
  // Copy inputs there and let the context's tensors be the own buffers; run all once. For a profile.
  convc_status prepare(convc_context &context, const void *const *inputs);
  // Copy the own buffers' outputs back, of so many samples, and wait.
  convc_status fetch(const convc_context &context, void *const *outputs, size_t samples) const;
  // Seconds of a call of `function`, `repeats` times: ten calls, recorded as one graph, between two events.
  convc_status time(SafeCall function, const Any *arguments, int32_t count, int repeats, double *seconds);
  convc_status wait() const { return driver_.check(driver_.cuStreamSynchronize(stream_), "cuStreamSynchronize"); }

  size_t workspace_bytes() const;

  // What the module's code asks for while it runs in this context.
  int launch(size_t kernel, const Any *arguments, int32_t count);
  CudaHandle stream() const { return running_on_; }
  void *take_workspace(size_t nbytes);
  bool give_workspace(void *memory);
  const Kernels &kernels() const { return device_.kernels_; }

 private:
  // Calls of the module's code by this thread are this context's while it exists.
  class Use;
  template <typename Calls>
  convc_status record(Calls calls, CudaHandle &launchable);
  convc_status call(SafeCall function, const Any *arguments, int32_t count, int times);
  void use_own_buffers(convc_context &context) const;
  convc_status upload(const convc_context &context, const void *const *inputs, size_t samples) const;

  struct Block {
    DeviceAddress memory;
    size_t size;
    bool used;
  };
  static constexpr int kBlocks = 32;

  const Device &device_;
  const Driver &driver_;
  CudaHandle stream_ = nullptr;
  CudaHandle running_on_ = nullptr;  // the stream of the run that is being queued
  CudaHandle *graphs_ = nullptr;     // the recorded run of each part
  size_t part_count_ = 0;
  Refusals refusals_;
  DeviceAddress arena_ = 0;
  DeviceAddress scratch_ = 0;  // what the manifest plans for kernels, and its pieces
  Stack workspace_;
  DeviceAddress *ports_ = nullptr;  // inputs, then outputs
  size_t port_count_ = 0;
  // What does not fit there, for modules of a convc that did not plan it; kept for the next run.
  Block blocks_[kBlocks] = {};
};

// TVM's functions for a module's host code; answered for the context that the calling thread runs.
int handle_init_once(void **handle, int (*make)(void **result));
int lookup_from_imports(void *library, const char *name, void **function);
int function_call(void *function, Any *arguments, int32_t count, Any *result);

// The context that the calling thread runs on a device, or NULL; and its stream, for a library that the module calls.
DeviceRun *current_device_run();
void *current_stream();

}  // namespace convc
#endif  // CONVC_DEVICE_H_
