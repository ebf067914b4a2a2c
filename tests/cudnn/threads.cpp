// Two threads call one module's shim at the same time, each on a stream of its own: one convolution, one pooling, one softmax. The double
// lets neither of two convolutions go before both are inside, and refuses a handle that is inside another call.
//
//   threads SHIM DOUBLE ROUNDS     prints the double's story of the first round; 0 if all results were right
//
// Then both meet layers that may fall back, of which cuDNN refuses one call, and one layer for which there is no memory.
//
// This program is the module's host: it fills in what libconvc would, and stands for the emulated device's memory.
#include <dlfcn.h>
#include <tvm/ffi/c_api.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <thread>
#include <vector>

extern "C" {
static thread_local void* stream = nullptr;
static thread_local std::string* said = nullptr;
__attribute__((visibility("default"))) void cuda_emulation_open_memory(int) {}
__attribute__((visibility("default"))) void TVMFFIErrorSetRaisedFromCStrParts(const char*, const char** parts, int32_t count) {
  for (int32_t i = 0; i < count; ++i) *said += parts[i];
}
static void* current_stream() { return stream; }
static std::atomic<bool> full{false};
static void* take(int, int, uint64_t bytes, int, int) {
  if (full) throw std::bad_alloc();
  return std::malloc(bytes);
}
static int give(int, int, void* memory) { return std::free(memory), 0; }
}

using Function = int (*)(void*, const TVMFFIAny*, int32_t, TVMFFIAny*);

namespace {

constexpr int N = 6, C = 4;

struct Tensor : DLTensor {
  std::vector<float> values;
  std::vector<int64_t> extents;
  Tensor(std::vector<int64_t> of, float value) : extents(std::move(of)) {
    size_t size = 1;
    for (int64_t e : extents) size *= static_cast<size_t>(e);
    values.assign(size, value);
    *static_cast<DLTensor*>(this) = {values.data(), {kDLCUDA, 0}, static_cast<int32_t>(extents.size()), {kDLFloat, 32, 1}, extents.data(), nullptr, 0};
  }
};

constexpr int FAILED = -1, LAYERS = 20, NOT_SUPPORTED = 3000;
const std::string CONVOLUTION =
    "kind=forward;layout=NCHW;strides=1,1;pads=0,0;dilations=1,1;steps=;alpha=1.0;beta=0.0;math=strict;transforms=0;compiles=0;policy=heuristic;rank=0;"
    "when=per_shape;deterministic=0;workspace=1048576;engine=;knobs=;spec=conv";

// What the shim returns, or FAILED.
int64_t ask(Function shim, const std::string& text, std::vector<Tensor*> tensors, TVMFFIAny& result) {
  std::vector<TVMFFIAny> arguments(1 + tensors.size());
  arguments[0].type_index = kTVMFFIRawStr;
  arguments[0].v_c_str = text.c_str();
  for (size_t i = 0; i < tensors.size(); ++i) {
    arguments[i + 1].type_index = kTVMFFIDLTensorPtr;
    arguments[i + 1].v_ptr = static_cast<DLTensor*>(tensors[i]);
  }
  return shim(nullptr, arguments.data(), static_cast<int32_t>(arguments.size()), &result) ? FAILED : result.v_int64;
}

bool call(Function shim, const std::string& text, std::vector<Tensor*> tensors, float expected) {
  TVMFFIAny result = {};
  if (ask(shim, text, tensors, result)) {
    std::fprintf(stderr, "%s\n", said->c_str());
    return false;
  }
  for (float value : tensors.back()->values) {
    if (value != expected) return std::fprintf(stderr, "%s: %g in place of %g\n", text.c_str(), value, expected), false;
  }
  return true;
}

bool rounds(Function shim, int thread, int count) {
  std::string words;
  said = &words;
  stream = reinterpret_cast<void*>(static_cast<intptr_t>(100 + thread));
  const float value = static_cast<float>(1 + thread);
  bool right = true;
  for (int round = 0; round < count && right; ++round) {
    Tensor x({1, C, N, N}, value), w({C, C, 1, 1}, 2), y({1, C, N, N}, -1), p({1, C, N / 2, N / 2}, -1), s({1, C, N, N}, -1);
    right = call(shim, CONVOLUTION, {&x, &w, &y}, 2 * C * value) &&
            call(shim, "kind=pool_forward;mode=max;layout=NCHW;window=2,2;strides=2,2;pads=0,0;alpha=1.0;beta=0.0;spec=pool", {&x, &p}, value) &&
            call(shim, "kind=softmax_forward;algorithm=accurate;mode=channel;axis=1;layout=NCHW;alpha=1.0;beta=0.0;spec=soft", {&x, &s}, 1.0F / C);
  }
  return right;
}

// One call of a layer that may fall back, or of its plan, on a stream.
int64_t may_fall(Function shim, int thread, int layer) {
  std::string words;
  said = &words;
  stream = reinterpret_cast<void*>(static_cast<intptr_t>(100 + thread));
  Tensor x({1, C, N, N}, 1), w({C, C, 1, 1}, 2), y({1, C, N, N}, -1);
  TVMFFIAny result = {};
  return ask(shim, "falls=1;" + CONVOLUTION + std::to_string(layer), {&x, &w, &y}, result);
}

template <class Value>
Value* symbol(void* library, const char* name) {
  void* found = dlsym(library, name);
  if (!found) std::fprintf(stderr, "no %s\n", name), std::exit(2);
  return static_cast<Value*>(found);
}

}  // namespace

int main(int, char** words) {
  setenv("CONVC_CUDNN_PATH", words[2], 1);
  void *shim = dlopen(words[1], RTLD_NOW), *library = dlopen(words[2], RTLD_NOW);
  if (!shim || !library) return std::fprintf(stderr, "%s\n", dlerror()), 2;
  *symbol<void* (*)()>(shim, "convc_stream") = current_stream;
  *symbol<void* (*)(int, int, uint64_t, int, int)>(shim, "convc_take_workspace") = take;
  *symbol<int (*)(int, int, void*)>(shim, "convc_give_workspace") = give;
  const auto run = reinterpret_cast<Function>(dlsym(shim, "__tvm_ffi_convc_cudnn"));
  const auto plan = reinterpret_cast<Function>(dlsym(shim, "__tvm_ffi_convc_cudnn_plan"));
  const auto watch = reinterpret_cast<Function>(dlsym(shim, "__tvm_ffi_convc_cudnn_watch"));
  const auto watched = reinterpret_cast<Function>(dlsym(shim, "__tvm_ffi_convc_cudnn_watched"));
  const auto fail = reinterpret_cast<void (*)(const char*, int, int)>(dlsym(library, "cudnn_double_fail"));
  const auto users = reinterpret_cast<Function>(dlsym(shim, "__tvm_ffi_convc_cudnn_users"));
  const auto meet = reinterpret_cast<void (*)(int)>(dlsym(library, "cudnn_double_meet"));
  const auto story = reinterpret_cast<const char* (*)()>(dlsym(library, "cudnn_double_log"));
  const auto living = reinterpret_cast<int (*)()>(dlsym(library, "cudnn_double_living"));
  TVMFFIAny one = {}, result = {};
  one.type_index = kTVMFFIInt, one.v_int64 = 1;
  users(nullptr, &one, 1, &result);
  meet(2);
  const auto together = [&](int count) {
    bool right[2] = {};
    std::thread threads[2];
    for (int i = 0; i < 2; ++i) threads[i] = std::thread([&, i] { right[i] = rounds(run, i, count); });
    for (std::thread& thread : threads) thread.join();
    return right[0] && right[1];
  };
  bool right = together(1);
  std::printf("first: %s\n", story());
  right = right && together(std::atoi(words[3]));
  const std::string rest = story();
  std::printf("more handles: %d, more plans: %d\n", rest.find("create") != std::string::npos, rest.find("heuristics") != std::string::npos);
  meet(0);
  for (int layer = 0; layer < LAYERS && right; ++layer) {
    // Both contexts have a plan and neither has run: only what they tell each other can make them agree.
    int64_t first[2] = {}, then[2] = {};
    std::thread threads[2];
    for (int i = 0; i < 2; ++i) right = right && may_fall(plan, i, layer) != FAILED;
    fail("cudnnBackendExecute", 0, NOT_SUPPORTED);
    for (int i = 0; i < 2; ++i) threads[i] = std::thread([&, i] { first[i] = may_fall(run, i, layer); });
    for (std::thread& thread : threads) thread.join();
    for (int i = 0; i < 2; ++i) then[i] = may_fall(run, i, layer);
    // An error is of a call that was refused behind the other's success.
    right = right && then[0] == then[1] && then[0] != FAILED;
    for (int i = 0; i < 2; ++i) right = right && (first[i] == then[i] || (first[i] == FAILED && then[i] == 0));
    if (!right) std::fprintf(stderr, "layer %d: %d and %d, then %d and %d\n", layer, int(first[0]), int(first[1]), int(then[0]), int(then[1]));
  }
  story();
  full = true;
  watch(nullptr, nullptr, 0, &result);
  const int64_t without = may_fall(run, 0, LAYERS);
  full = false;
  const int64_t behind = may_fall(run, 1, LAYERS);
  watched(nullptr, nullptr, 0, &result);
  std::printf("no memory: %d, then %d: %s\n", int(without), int(behind), std::string(result.v_c_str).substr(0, 29).c_str());
  story();
  one.v_int64 = -1;
  users(nullptr, &one, 1, &result);
  std::printf("behind: %s %d descriptors\n", story(), living());
  return right ? 0 : 1;
}
