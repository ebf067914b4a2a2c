// libcudart.so.13 and libcuda.so.1 as TVM's CUDA runtime sees them: one sm_90 device whose machine code is an ELF shared object made
// by g++. A TEST DOUBLE: it must never lie where a program that has a GPU could find it.
#include <dlfcn.h>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "cuda_abi.h"
#include "engine_private.h"

using namespace cuda_abi;
using cuda_emulation::Kernel;
using cuda_emulation::MAX_SHARED;
using cuda_emulation::MAX_THREADS;
using cuda_emulation::OpenDeviceMemory;
using cuda_emulation::STATIC_SHARED;

namespace {

constexpr size_t TOTAL_MEMORY = size_t(8) << 30;
constexpr char DEVICE_NAME[] = "CPU emulation of sm_90 (test double)";
constexpr int MULTIPROCESSORS_OF_H200 = 132, L2_OF_H200 = 50 << 20, CLOCK_KHZ = 1980000;
// A stream's handle: TVM only passes it back. Everything runs when it is asked for, so one is like another.
void* const STREAM = reinterpret_cast<void*>(1);

thread_local int last_error = SUCCESS;
std::string message;

int failed(int error, const std::string& what) {
  message = "cuda emulation: " + what;
  return last_error = error;
}

struct Module {
  void* library;
};

struct Function {
  const Kernel* kernel;
  std::string name;
  size_t dynamic_limit = STATIC_SHARED;
};

double now_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool in_limits(const LaunchConfig& c, const Function& f) {
  const unsigned *b = c.block, *g = c.grid;
  return b[0] && b[1] && b[2] && b[0] <= 1024 && b[1] <= 1024 && b[2] <= 64 && b[0] * b[1] * b[2] <= f.kernel->max_threads && g[0] &&
         g[1] && g[2] && g[0] <= 0x7fffffffu && g[1] <= 65535 && g[2] <= 65535;
}

// A launch that waits in a graph, with copies of its arguments' bytes.
struct Recorded {
  LaunchConfig config;
  void* function;
  std::vector<std::string> arguments;
  std::vector<LaunchAttribute> attributes;
};
using Graph = std::vector<Recorded>;
// What the stream that is being captured has been asked so far.
Graph* captured = nullptr;

std::vector<size_t> visited_sizes;

Recorded record(const LaunchConfig& c, void* function, void** arguments) {
  visited_sizes.clear();
  static_cast<Function*>(function)->kernel->sizes([](size_t size) { visited_sizes.push_back(size); });
  Recorded made{c, function, {}, {c.attributes, c.attributes + c.attribute_count}};
  for (size_t i = 0; i < visited_sizes.size(); ++i) made.arguments.emplace_back(static_cast<char*>(arguments[i]), visited_sizes[i]);
  return made;
}

bool foreign_pointer = false;
unsigned launches = 0;

// Outside a launch: dies as the process would on a machine with a GPU, but says what it did.
void on_host_fault(int, siginfo_t* info, void*) {
  const std::string text = "cuda emulation: host code touched " + cuda_emulation::describe_address(info->si_addr) +
                           "; is every loop of the function bound to blocks and threads?\n";
  if (write(STDERR_FILENO, text.data(), text.size()) < 0) abort();
  signal(SIGSEGV, SIG_DFL);
}

}  // namespace

extern "C" {
int cuDevicePrimaryCtxRetain(void**, int);
int cuCtxSetCurrent(void*);


// ---- what the tests ask of the double
void cuda_emulation_set_mode(unsigned order, int copies_land_early) {
  cuda_emulation::set_mode({order, copies_land_early != 0});
  message.clear();
  launches = 0;
}
const char* cuda_emulation_message() { return message.c_str(); }
unsigned cuda_emulation_launches() { return launches; }
void cuda_emulation_open_memory(int open) { cuda_emulation::device_open(open != 0); }
void cuda_emulation_watch_host() {
  struct sigaction action = {};
  action.sa_sigaction = on_host_fault;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, nullptr);
}

// ---- libcudart: device
int cudaGetDeviceCount(int* count) { return *count = 1, SUCCESS; }
int cudaGetDevice(int* device) { return *device = 0, SUCCESS; }
int cudaSetDevice(int device) {
  void* primary = nullptr;
  if (device != 0) return failed(INVALID_DEVICE, "there is one device, 0");
  return cuDevicePrimaryCtxRetain(&primary, device), cuCtxSetCurrent(primary);
}

int cudaDeviceGetAttribute(int* value, int attribute, int) {
  switch (attribute) {
    case MAX_THREADS_PER_BLOCK: case MAX_BLOCK_X: case MAX_BLOCK_Y: *value = MAX_THREADS; break;
    case MAX_BLOCK_Z: *value = 64; break;
    case MAX_GRID_X: *value = 0x7fffffff; break;
    case MAX_GRID_Y: case MAX_GRID_Z: *value = 65535; break;
    case MAX_SHARED_PER_BLOCK: *value = STATIC_SHARED; break;
    case MAX_SHARED_PER_BLOCK_OPTIN: *value = MAX_SHARED; break;
    case MAX_SHARED_PER_MULTIPROCESSOR: *value = MAX_SHARED + 1024; break;
    case WARP_SIZE: *value = cuda_emulation::WARP; break;
    case MAX_REGISTERS_PER_BLOCK: *value = 65536; break;
    case CLOCK_RATE: *value = CLOCK_KHZ; break;
    case MULTIPROCESSORS: *value = MULTIPROCESSORS_OF_H200; break;
    case COMPUTE_MAJOR: *value = 9; break;
    case COMPUTE_MINOR: *value = 0; break;
    case MAX_THREADS_PER_MULTIPROCESSOR: *value = 2048; break;
    case L2_CACHE_SIZE: *value = L2_OF_H200; break;
    default: *value = 0;
  }
  return SUCCESS;
}

int cudaGetDeviceProperties(DeviceProperties* p, int) {
  memset(p, 0, sizeof *p);
  strcpy(p->name, DEVICE_NAME);
  p->total_memory = TOTAL_MEMORY;
  p->shared_per_block = STATIC_SHARED;
  p->registers_per_block = 65536;
  p->warp_size = cuda_emulation::WARP;
  p->major = 9;
  p->multiprocessors = MULTIPROCESSORS_OF_H200;
  return SUCCESS;
}

const char* cudaGetErrorString(int error) { return error == SUCCESS ? "no error" : message.c_str(); }
const char* cudaGetErrorName(int error) { return error == SUCCESS ? "cudaSuccess" : "cudaErrorOfTheEmulation"; }
int cudaGetLastError() {
  const int error = last_error;
  return last_error = SUCCESS, error;
}
int cudaPeekAtLastError() { return last_error; }

// ---- libcudart: memory
int cudaMalloc(void** pointer, size_t bytes) {
  if (cuda_emulation::device_bytes_used() + bytes > TOTAL_MEMORY || !(*pointer = cuda_emulation::device_allocate(bytes)))
    return failed(OUT_OF_MEMORY, "out of device memory at " + std::to_string(bytes) + " bytes");
  return SUCCESS;
}
int cudaFree(void* pointer) {
  if (pointer && !cuda_emulation::device_free(pointer)) return failed(INVALID_VALUE, "cudaFree of what cudaMalloc did not give");
  return SUCCESS;
}
int cudaMallocHost(void** pointer, size_t bytes) { return (*pointer = malloc(bytes)) ? SUCCESS : failed(OUT_OF_MEMORY, "host memory"); }
int cudaFreeHost(void* pointer) { return free(pointer), SUCCESS; }
int cudaMemGetInfo(size_t* free_bytes, size_t* total) {
  *total = TOTAL_MEMORY;
  *free_bytes = TOTAL_MEMORY - cuda_emulation::device_bytes_used();
  return SUCCESS;
}
int cudaMemcpyAsync(void* to, const void* from, size_t bytes, int kind, void*) {
  if (captured) return failed(NOT_SUPPORTED, "a copy in a captured stream");
  if ((kind == HOST_TO_DEVICE || kind == DEVICE_TO_DEVICE) && bytes && !cuda_emulation::is_device_memory(to, bytes))
    return failed(INVALID_DEVICE_POINTER, "a copy to what is not wholly device memory");
  if ((kind == DEVICE_TO_HOST || kind == DEVICE_TO_DEVICE) && bytes && !cuda_emulation::is_device_memory(from, bytes))
    return failed(INVALID_DEVICE_POINTER, "a copy from what is not wholly device memory");
  OpenDeviceMemory open;
  memmove(to, from, bytes);
  return SUCCESS;
}
int cudaMemcpy(void* to, const void* from, size_t bytes, int kind) { return cudaMemcpyAsync(to, from, bytes, kind, nullptr); }
int cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes, void* stream) {
  return cudaMemcpyAsync(to, from, bytes, DEVICE_TO_DEVICE, stream);
}
int cudaMemsetAsync(void* to, int value, size_t bytes, void*) {
  if (bytes && !cuda_emulation::is_device_memory(to, bytes)) return failed(INVALID_DEVICE_POINTER, "cudaMemset of what is not device memory");
  OpenDeviceMemory open;
  return memset(to, value, bytes), SUCCESS;
}

// ---- libcudart: streams, events, graphs
int cudaStreamCreate(void** stream) { return *stream = STREAM, SUCCESS; }
int cudaStreamCreateWithFlags(void** stream, unsigned) { return *stream = STREAM, SUCCESS; }
int cudaStreamDestroy(void*) { return SUCCESS; }
int cudaStreamSynchronize(void*) { return captured ? failed(NOT_SUPPORTED, "waiting for a captured stream") : SUCCESS; }
int cudaDeviceSynchronize() { return SUCCESS; }
int cudaStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }
int cudaEventCreate(void** event) { return *event = new double(0), SUCCESS; }
int cudaEventDestroy(void* event) { return delete static_cast<double*>(event), SUCCESS; }
int cudaEventRecord(void* event, void*) { return *static_cast<double*>(event) = now_ms(), SUCCESS; }
int cudaEventSynchronize(void*) { return SUCCESS; }
int cudaEventElapsedTime(float* ms, void* start, void* end) {
  return *ms = static_cast<float>(*static_cast<double*>(end) - *static_cast<double*>(start)), SUCCESS;
}
int cudaStreamBeginCapture(void* stream, int) {
  if (!stream) return failed(NOT_SUPPORTED, "capture of the default stream");
  if (captured) return failed(NOT_SUPPORTED, "capture of two streams at once");
  return captured = new Graph, SUCCESS;
}
int cudaStreamEndCapture(void*, void** graph) {
  if (!captured) return failed(INVALID_VALUE, "end of a capture that was not begun");
  return *graph = captured, captured = nullptr, SUCCESS;
}
int cudaGraphInstantiate(void** launchable, void* graph, unsigned long long) {
  return *launchable = new Graph(*static_cast<Graph*>(graph)), SUCCESS;
}
int cudaGraphDestroy(void* graph) { return delete static_cast<Graph*>(graph), SUCCESS; }
int cudaGraphExecDestroy(void* launchable) { return delete static_cast<Graph*>(launchable), SUCCESS; }

// ---- libcuda
int cuInit(unsigned) { return SUCCESS; }
int cuDriverGetVersion(int* version) { return *version = 13000, SUCCESS; }
int cuDeviceGetCount(int* count) { return *count = 1, SUCCESS; }
int cuDeviceGetAttribute(int* value, int attribute, int device) { return cudaDeviceGetAttribute(value, attribute, device); }
int cuDeviceGetName(char* name, int bytes, int) { return snprintf(name, bytes, "%s", DEVICE_NAME), SUCCESS; }
int cuGetErrorName(int, const char** name) { return *name = "CUDA_ERROR_OF_THE_EMULATION", SUCCESS; }
int cuGetErrorString(int status, const char** text) {
  return *text = status == cuda_abi::INVALID_CONTEXT ? "invalid device context" : message.c_str(), SUCCESS;
}
int cuTensorMapEncodeTiled() { return failed(NOT_SUPPORTED, "no tensor maps (TMA)"); }

int cuModuleLoadData(void** module, const void* image) {
  auto* header = static_cast<const Elf64_Ehdr*>(image);
  if (memcmp(header->e_ident, ELFMAG, SELFMAG) || header->e_type != ET_DYN || header->e_machine != EM_X86_64)
    return failed(INVALID_IMAGE, "the module holds no code for the emulation (is it built for a real GPU?)");
  const size_t bytes = header->e_shoff + static_cast<size_t>(header->e_shnum) * header->e_shentsize;
  // A root without /proc has a file in place of the memory: a test's empty one.
  const bool in_memory = access("/proc/self/fd", F_OK) == 0;
  char named[] = "/cuda_emulation_XXXXXX";
  const int file = in_memory ? memfd_create("cuda_emulation", MFD_CLOEXEC) : mkstemp(named);
  if (file < 0 || write(file, image, bytes) != static_cast<ssize_t>(bytes)) return failed(OUT_OF_MEMORY, "memfd");
  // The kernels call the engine in this library, which a program may have opened for itself alone.
  Dl_info here;
  if (dladdr(reinterpret_cast<void*>(&cuModuleLoadData), &here)) dlopen(here.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
  // The descriptor stays open for good: dlopen goes by path, and with a number used again it would return the older library.
  const std::string path = in_memory ? "/proc/self/fd/" + std::to_string(file) : named;
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return failed(INVALID_IMAGE, dlerror());
  *module = new Module{library};
  return SUCCESS;
}
int cuModuleUnload(void* module) { return delete static_cast<Module*>(module), SUCCESS; }

int cuModuleGetFunction(void** function, void* module, const char* name) {
  void* kernel = dlsym(static_cast<Module*>(module)->library, (std::string(name) + "__emulated").c_str());
  if (!kernel) return failed(NOT_FOUND, std::string("the module has no kernel ") + name);
  *function = new Function{static_cast<const Kernel*>(kernel), name};
  return SUCCESS;
}

int cuFuncSetAttribute(void* function, int attribute, int value) {
  if (attribute != MAX_DYNAMIC_SHARED) return SUCCESS;
  if (value < 0 || static_cast<size_t>(value) > MAX_SHARED)
    return failed(INVALID_VALUE, std::to_string(value) + " bytes of dynamic shared memory; a block has at most 227 KiB");
  static_cast<Function*>(function)->dynamic_limit = value;
  return SUCCESS;
}

int cuLaunchKernelEx(const LaunchConfig* c, void* function, void** arguments, void**) {
  const Function& f = *static_cast<Function*>(function);
  char shape[160];
  snprintf(shape, sizeof shape, " with grid (%u, %u, %u), block (%u, %u, %u): ", c->grid[0], c->grid[1], c->grid[2], c->block[0],
           c->block[1], c->block[2]);
  const std::string launch = "launch of " + f.name + shape;
  if (!in_limits(*c, f))
    return failed(INVALID_VALUE, launch + "outside the limits of the device or of __launch_bounds__(" + std::to_string(f.kernel->max_threads) + ")");
  const cuda_emulation::Dim3 of = f.kernel->cluster;
  if (c->grid[0] % of.x || c->grid[1] % of.y || c->grid[2] % of.z || of.x * of.y * of.z > cuda_emulation::MAX_CLUSTER)
    return failed(INVALID_VALUE, launch + "not whole clusters of 8 blocks at most, got (" + std::to_string(of.x) + ", " + std::to_string(of.y) + ", " + std::to_string(of.z) + ")");
  if (c->dynamic_shared > f.dynamic_limit)
    return failed(INVALID_VALUE, launch + std::to_string(c->dynamic_shared) + " bytes of dynamic shared memory, " + std::to_string(f.dynamic_limit) + " allowed");
  if (captured) return captured->push_back(record(*c, function, arguments)), SUCCESS;
  ++launches;
  bool early = false;
  for (unsigned i = 0; i < c->attribute_count; ++i) early |= c->attributes[i].id == PROGRAMMATIC_STREAM_SERIALIZATION && c->attributes[i].value;
  OpenDeviceMemory open;
  // What the kernel before it leaves is not there until it has waited.
  cuda_emulation::device_open(!early);
  foreign_pointer = false;
  f.kernel->pointers(arguments, [](const void* p) { foreign_pointer |= p && !cuda_emulation::is_device_memory(p, 0); });
  if (foreign_pointer) return failed(LAUNCH_FAILED, launch + "an argument points to what is not device memory");
  std::string wrong = cuda_emulation::launch(*f.kernel, arguments, {c->grid[0], c->grid[1], c->grid[2]},
                                             {c->block[0], c->block[1], c->block[2]}, c->dynamic_shared, early);
  cuda_emulation::device_open(true);
  if (wrong.empty()) wrong = cuda_emulation::device_damage();
  return wrong.empty() ? SUCCESS : failed(LAUNCH_FAILED, launch + wrong);
}

int cudaGraphLaunch(void* launchable, void*) {
  for (Recorded& launch : *static_cast<Graph*>(launchable)) {
    std::vector<void*> arguments;
    for (std::string& bytes : launch.arguments) arguments.push_back(bytes.data());
    launch.config.attributes = launch.attributes.data();
    if (const int error = cuLaunchKernelEx(&launch.config, launch.function, arguments.data(), nullptr)) return error;
  }
  return SUCCESS;
}

}  // extern "C"
