#include <pthread.h>
#include <stdlib.h>

#include "device.h"
#include "module.h"

namespace convc {
namespace {

constexpr unsigned kNonBlocking = 1;                       // CU_STREAM_NON_BLOCKING: another library's use of the default stream is no concern of ours
constexpr int kRelaxed = 2;                                // CU_STREAM_CAPTURE_MODE_RELAXED
constexpr int kMaxDynamicShared = 8;                       // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
constexpr int kProgrammaticStreamSerialization = 6;        // CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
constexpr int64_t kSharedWithoutAsking = 48 << 10;         // bytes; more must be opted in
constexpr int kDLOpaqueHandle = 3, kDLFloat = 2;           // DLDataTypeCode
constexpr uintptr_t kSetDevice = 1, kFirstKernel = 2;      // what stands for functions in the module's handles

thread_local DeviceRun *current_run = nullptr;
pthread_mutex_t handles = PTHREAD_MUTEX_INITIALIZER;

DeviceAddress address(const void *memory) { return reinterpret_cast<DeviceAddress>(memory); }
void *pointer(DeviceAddress memory) { return reinterpret_cast<void *>(memory); }

}  // namespace

class DeviceRun::Use {
 public:
  Use(DeviceRun &run, CudaHandle stream) : before_(current_run) {
    run.running_on_ = stream;
    current_run = &run;
  }
  ~Use() { current_run = before_; }
  Use(const Use &) = delete;
  Use &operator=(const Use &) = delete;

 private:
  DeviceRun *before_;
};

DeviceRun *current_device_run() { return current_run; }
void *current_stream() { return current_run ? current_run->stream() : nullptr; }

DeviceRun::~DeviceRun() {
  const Device::Current current(device_);
  if (stream_) driver_.cuStreamSynchronize(stream_);
  for (size_t i = 0; i < part_count_; ++i) {
    if (graphs_[i]) driver_.cuGraphExecDestroy(graphs_[i]);
  }
  for (const Block &block : blocks_) {
    if (block.memory) driver_.cuMemFree_v2(block.memory);
  }
  for (size_t i = 0; i < port_count_; ++i) {
    if (ports_[i]) driver_.cuMemFree_v2(ports_[i]);
  }
  if (scratch_) driver_.cuMemFree_v2(scratch_);
  if (arena_) driver_.cuMemFree_v2(arena_);
  if (stream_) driver_.cuStreamDestroy_v2(stream_);
  free(ports_);
  free(graphs_);
}

convc_status DeviceRun::allocate(const Manifest &manifest, const Variant &variant) {
  const Device::Current current(device_);
  if (current.status()) return current.status();
  if (convc_status bad = driver_.check(driver_.cuStreamCreate(&stream_, kNonBlocking), "cuStreamCreate")) return bad;
  const size_t inputs = manifest.inputs.size;
  port_count_ = inputs + manifest.outputs.size;
  ports_ = static_cast<DeviceAddress *>(calloc(port_count_ + 1, sizeof *ports_));
  if (convc_status bad = refusals_.allocate(variant)) return bad;
  part_count_ = 1 + variant.smaller.size;
  graphs_ = static_cast<CudaHandle *>(calloc(part_count_, sizeof *graphs_));
  if (!ports_ || !graphs_) {
    port_count_ = part_count_ = 0;
    return fail(CONVC_ERROR_MEMORY, "memory must be enough for a context; got none.");
  }
  const auto take = [this](DeviceAddress &memory, size_t nbytes) {
    if (!driver_.cuMemAlloc_v2(&memory, nbytes ? nbytes : kAlignment)) return CONVC_OK;
    memory = 0;
    return fail(CONVC_ERROR_MEMORY, "%s must have memory for a context; got none for %zu bytes.", device_.description(), nbytes);
  };
  if (convc_status bad = take(arena_, buffer_bytes(most_arena_bytes(variant)))) return bad;
  if (const auto planned = static_cast<size_t>(most_workspace_bytes(variant))) {
    if (convc_status bad = take(scratch_, planned)) return bad;
    workspace_.set(pointer(scratch_), planned);
  }
  for (size_t i = 0; i < port_count_; ++i) {
    const Tensor &tensor = i < inputs ? manifest.inputs[i] : manifest.outputs[i - inputs];
    if (convc_status bad = take(ports_[i], tensor.nbytes)) return bad;
  }
  return CONVC_OK;
}

void DeviceRun::use_own_buffers(convc_context &context) const {
  for (size_t i = 0; i < port_count_; ++i) context.tensors[2 + i].data = pointer(ports_[i]);
}

convc_status DeviceRun::upload(const convc_context &context, const void *const *inputs, size_t samples) const {
  const List<Tensor> &tensors = context.module->manifest.inputs;
  for (size_t i = 0; i < tensors.size; ++i) {
    const size_t nbytes = bytes_of(tensors[i], samples);
    if (!nbytes) continue;
    const int sent = driver_.cuMemcpyHtoDAsync_v2(ports_[i], inputs[i], nbytes, stream_);
    if (convc_status bad = driver_.check(sent, "uploading an input")) return bad;
  }
  return CONVC_OK;
}

convc_status DeviceRun::call(SafeCall function, const Any *arguments, int32_t count, int times) {
  for (int i = 0; i < times; ++i) {
    Any result = {};
    if (function(nullptr, arguments, count, &result)) return CONVC_ERROR_RUN;  // it has left its message
  }
  return CONVC_OK;
}

template <typename Calls>
convc_status DeviceRun::record(Calls calls, CudaHandle &launchable) {
  if (convc_status bad = driver_.check(driver_.cuStreamBeginCapture_v2(stream_, kRelaxed), "cuStreamBeginCapture")) return bad;
  convc_status status = calls();
  CudaHandle graph = nullptr;
  const int ended = driver_.cuStreamEndCapture(stream_, &graph);
  if (!status) status = driver_.check(ended, "cuStreamEndCapture");
  if (!status) status = driver_.check(driver_.cuGraphInstantiateWithFlags(&launchable, graph, 0), "cuGraphInstantiate");
  if (status) launchable = nullptr;
  if (graph) driver_.cuGraphDestroy(graph);
  return status;
}

convc_status DeviceRun::run(convc_context &context, size_t part, const void *const *inputs, void *const *outputs) {
  const Device::Current current(device_);
  if (current.status()) return current.status();
  const SafeCall entry = context.module->entries[part];
  const Variant &variant = *context.module->variant;
  const auto samples = static_cast<size_t>(part ? variant.smaller[part - 1].batch : variant.batch);
  const auto count = static_cast<int32_t>(context.argument_count);
  const auto once = [&] {
    const Use use(*this, stream_);
    return call(entry, context.arguments, count, 1);
  };
  use_own_buffers(context);
  if (convc_status bad = upload(context, inputs, samples)) return bad;
  if (calls_library(part)) {
    // It may do more on the host than launch: build a plan, take memory, search. Its calls are made anew each time.
    if (convc_status bad = once()) return bad;
  } else if (graphs_[part]) {
    if (convc_status bad = driver_.check(driver_.cuGraphLaunch(graphs_[part], stream_), "cuGraphLaunch")) return bad;
  } else {
    // The first run itself, since code is loaded and memory taken by it, and then what it launches, to be replayed.
    if (convc_status bad = once()) return bad;
    if (convc_status bad = wait()) return bad;
    if (convc_status bad = record(once, graphs_[part])) return bad;
  }
  return fetch(context, outputs, samples);
}

convc_status DeviceRun::warm_up(convc_context &context, size_t part) {
  const Device::Current current(device_);
  if (current.status()) return current.status();
  use_own_buffers(context);
  const List<Tensor> &tensors = context.module->manifest.inputs;
  for (size_t i = 0; i < tensors.size; ++i) {
    void *zeros = calloc(tensors[i].nbytes + 1, 1);
    if (!zeros) return fail(CONVC_ERROR_MEMORY, "memory must be enough for an input; got none for %zu bytes.", static_cast<size_t>(tensors[i].nbytes));
    const int sent = driver_.cuMemcpyHtoDAsync_v2(ports_[i], zeros, tensors[i].nbytes, stream_);
    convc_status status = driver_.check(sent, "uploading an input");
    if (!status) status = wait();
    free(zeros);
    if (status) return status;
  }
  const Use use(*this, stream_);
  refusals_.begin(*context.module);
  const convc_status ran = call(context.module->entries[part], context.arguments, static_cast<int32_t>(context.argument_count), 1);
  if (convc_status bad = refusals_.end(*context.module, part, ran)) return bad;
  return wait();
}

convc_status DeviceRun::queue(convc_context &context, CudaHandle stream) {
  const Device::Current current(device_);
  if (current.status()) return current.status();
  const Use use(*this, stream);
  return call(context.module->entries[0], context.arguments, static_cast<int32_t>(context.argument_count), 1);
}

convc_status DeviceRun::prepare(convc_context &context, const void *const *inputs) {
  const Device::Current current(device_);
  if (current.status()) return current.status();
  use_own_buffers(context);
  if (convc_status bad = upload(context, inputs, most_samples(&context))) return bad;
  const Use use(*this, stream_);
  if (convc_status bad = call(context.module->entries[0], context.arguments, static_cast<int32_t>(context.argument_count), 1)) return bad;
  return wait();
}

convc_status DeviceRun::fetch(const convc_context &context, void *const *outputs, size_t samples) const {
  const Device::Current current(device_);
  if (current.status()) return current.status();
  const List<Tensor> &tensors = context.module->manifest.outputs;
  const DeviceAddress *from = ports_ + context.module->manifest.inputs.size;
  for (size_t i = 0; i < tensors.size; ++i) {
    const size_t nbytes = bytes_of(tensors[i], samples);
    if (!nbytes) continue;
    if (convc_status bad = driver_.check(driver_.cuMemcpyDtoHAsync_v2(outputs[i], from[i], nbytes, stream_), "fetching an output")) return bad;
  }
  return wait();
}

convc_status DeviceRun::time(SafeCall function, const Any *arguments, int32_t count, int repeats, double *seconds) {
  constexpr int kCalls = 10;  // in a graph: between two launches the host is slower than a small kernel
  const Device::Current current(device_);
  if (current.status()) return current.status();
  CudaHandle graph = nullptr, begin = nullptr, end = nullptr;
  convc_status status = record([&] {
    const Use use(*this, stream_);
    return call(function, arguments, count, kCalls);
  }, graph);
  if (!status) status = driver_.check(driver_.cuEventCreate(&begin, 0), "cuEventCreate");
  if (!status) status = driver_.check(driver_.cuEventCreate(&end, 0), "cuEventCreate");
  if (!status) status = driver_.check(driver_.cuGraphLaunch(graph, stream_), "cuGraphLaunch");  // to warm up
  for (int i = 0; !status && i < repeats; ++i) {
    float milliseconds = 0;
    status = driver_.check(driver_.cuEventRecord(begin, stream_), "cuEventRecord");
    if (!status) status = driver_.check(driver_.cuGraphLaunch(graph, stream_), "cuGraphLaunch");
    if (!status) status = driver_.check(driver_.cuEventRecord(end, stream_), "cuEventRecord");
    if (!status) status = driver_.check(driver_.cuEventSynchronize(end), "cuEventSynchronize");
    if (!status) status = driver_.check(driver_.cuEventElapsedTime_v2(&milliseconds, begin, end), "cuEventElapsedTime");
    seconds[i] = 1e-3 * static_cast<double>(milliseconds) / kCalls;
  }
  if (begin) driver_.cuEventDestroy_v2(begin);
  if (end) driver_.cuEventDestroy_v2(end);
  if (graph) driver_.cuGraphExecDestroy(graph);
  return status;
}

size_t DeviceRun::workspace_bytes() const {
  size_t sum = workspace_.size();
  for (const Block &block : blocks_) sum += block.size;
  return sum;
}

void *DeviceRun::take_workspace(size_t nbytes) {
  if (void *memory = workspace_.take(nbytes)) return memory;
  Block *best = nullptr, *empty = nullptr;
  for (Block &block : blocks_) {
    if (!block.memory) {
      if (!empty) empty = &block;
    } else if (!block.used && block.size >= nbytes && (!best || block.size < best->size)) {
      best = &block;
    }
  }
  if (!best && empty && !driver_.cuMemAlloc_v2(&empty->memory, nbytes ? nbytes : kAlignment)) {
    best = empty;
    best->size = nbytes;
  }
  if (!best) {
    if (empty) empty->memory = 0;
    fail(CONVC_ERROR_MEMORY, "%s must have memory for a workspace; got none for %zu bytes.", device_.description(), nbytes);
    return nullptr;
  }
  best->used = true;
  return pointer(best->memory);
}

bool DeviceRun::give_workspace(void *memory) {
  if (workspace_.give(memory)) return true;
  for (Block &block : blocks_) {
    if (block.used && block.memory == address(memory)) return block.used = false, true;
  }
  return false;
}

int DeviceRun::launch(size_t index, const Any *arguments, int32_t count) {
  const Kernel &kernel = device_.kernels_.all[index];
  const size_t plain = kernel.arguments.size, wanted = plain + kernel.extents.size + (kernel.dynamic_shared ? 1 : 0);
  if (count < 0 || static_cast<size_t>(count) != wanted) {
    fail(CONVC_ERROR_RUN, "kernel '%s' must be launched with %zu arguments; got %d.", kernel.name.data, wanted, count);
    return -1;
  }
  // On a little-endian machine a number's first bytes are the same number in a narrower type.
  union {
    int64_t integer;
    float real;
  } values[kMaxKernelArguments];
  void *pointers[kMaxKernelArguments];
  for (size_t i = 0; i < plain; ++i) {
    const DLDataType type = kernel.arguments[i];
    if (type.code == kDLFloat && type.bits == 32) values[i].real = static_cast<float>(arguments[i].v_float64);
    else values[i].integer = arguments[i].v_int64;  // also an address, and a double, bit by bit
    pointers[i] = &values[i];
  }
  unsigned extents[6] = {1, 1, 1, 1, 1, 1};
  for (size_t i = 0; i < kernel.extents.size; ++i) extents[kernel.extents[i]] = static_cast<unsigned>(arguments[plain + i].v_int64);
  const int64_t shared = kernel.dynamic_shared ? arguments[wanted - 1].v_int64 : 0;
  CudaHandle function = device_.functions_[index];
  if (shared > kSharedWithoutAsking) {
    const int asked = driver_.cuFuncSetAttribute(function, kMaxDynamicShared, static_cast<int>(shared));
    if (driver_.check(asked, kernel.name.data)) return -1;
  }
  // It is placed while the kernel before it ends, for whose results it waits by itself.
  LaunchAttribute early = {kProgrammaticStreamSerialization, 1, {}};
  LaunchConfig config = {{extents[0], extents[1], extents[2]}, {extents[3], extents[4], extents[5]}, static_cast<unsigned>(shared), running_on_,
                         &early, kernel.early ? 1u : 0u};
  const int launched = driver_.cuLaunchKernelEx(&config, function, pointers, nullptr);
  return driver_.check(launched, kernel.name.data) ? -1 : 0;
}

int handle_init_once(void **handle, int (*make)(void **result)) {
  if (__atomic_load_n(handle, __ATOMIC_ACQUIRE)) return 0;
  pthread_mutex_lock(&handles);
  int status = 0;
  if (!__atomic_load_n(handle, __ATOMIC_RELAXED)) {
    void *made = nullptr;
    status = make(&made);
    if (!status) __atomic_store_n(handle, made, __ATOMIC_RELEASE);
  }
  pthread_mutex_unlock(&handles);
  return status;
}

// A function's handle is a number, the same for all modules that have this code: two that were loaded from one file share its variables.
int lookup_from_imports(void *, const char *name, void **function) {
  *function = nullptr;
  if (strcmp(name, "__tvm_set_device") == 0) return *function = reinterpret_cast<void *>(kSetDevice), 0;
  if (!current_run) return fail(CONVC_ERROR_RUN, "a kernel must run inside convc_run; got a call from elsewhere."), -1;
  const List<Kernel> &all = current_run->kernels().all;
  for (size_t i = 0; i < all.size; ++i) {
    if (all[i].name.is(name)) return *function = reinterpret_cast<void *>(kFirstKernel + i), 0;
  }
  return fail(CONVC_ERROR_FORMAT, "module must have the kernel '%s' that it launches; got none of that name.", name), -1;
}

int function_call(void *function, Any *arguments, int32_t count, Any *) {
  const auto number = reinterpret_cast<uintptr_t>(function);
  // The context's device is current already.
  if (number == kSetDevice) return 0;
  if (!current_run) return fail(CONVC_ERROR_RUN, "a kernel must run inside convc_run; got a call from elsewhere."), -1;
  return current_run->launch(number - kFirstKernel, arguments, count);
}

}  // namespace convc
