// What a library's shim asks of whoever has loaded its module: TVM's runtime in Python, libconvc in a product. libconvc fills in the variables
// below; where they are empty, the functions of tvm_ffi and TVM's runtime are there. Those are weak: a product has none of them. And so are
// the variables: a module with two libraries in it has them once.
#pragma once
#include <dlfcn.h>
#include <tvm/ffi/c_api.h>
#include <tvm/ffi/extra/c_env_api.h>

#include <cstring>
#include <exception>
#include <sstream>
#include <string>

#pragma weak TVMFFIEnvGetStream
#pragma weak TVMFFIStringFromByteArray

extern "C" {
using ConvcStream = void*();
using ConvcTake = void*(int type, int device, uint64_t bytes, int code, int bits);
using ConvcGive = int(int type, int device, void* memory);
__attribute__((visibility("default"), weak)) ConvcStream* convc_stream = nullptr;
__attribute__((visibility("default"), weak)) ConvcTake* convc_take_workspace = nullptr;
__attribute__((visibility("default"), weak)) ConvcGive* convc_give_workspace = nullptr;
}

namespace convc_library {

// An error on its way to the caller: the name of its Python class, and what is said.
struct Failure {
  const char* kind;
  std::string text;
};

// Throws at the end of the statement that has put its words together.
class Thrower {
 public:
  explicit Thrower(const char* kind) : kind_(kind) {}
  [[noreturn]] ~Thrower() noexcept(false) { throw Failure{kind_, words_.str()}; }
  std::ostream& words() { return words_; }

 private:
  const char* kind_;
  std::ostringstream words_;
};
#define CONVC_THROW(KIND) ::convc_library::Thrower(#KIND).words()

// Run it and return 0, or leave the message with the module's host and return -1.
template <class Function>
int guarded(Function function) {
  const auto raise = [](const char* kind, const char* text) {
    TVMFFIErrorSetRaisedFromCStrParts(kind, &text, 1);
    return -1;
  };
  try {
    function();
    return 0;
  } catch (const Failure& failure) {
    return raise(failure.kind, failure.text.c_str());
  } catch (const std::exception& error) {
    return raise("InternalError", error.what());
  }
}

inline std::string text_of(const TVMFFIAny& value) {
  if (value.type_index == kTVMFFIRawStr) return value.v_c_str;
  if (value.type_index == kTVMFFISmallStr) return std::string(value.v_bytes, value.small_str_len);
  if (value.type_index != kTVMFFIStr) CONVC_THROW(TypeError) << "a library's call's description must be a string; got a value of type " << value.type_index << ".";
  const TVMFFIByteArray* bytes = TVMFFIBytesGetByteArrayPtr(value.v_obj);
  return std::string(bytes->data, bytes->size);
}

inline const DLTensor* tensor_of(const TVMFFIAny& value) {
  if (value.type_index == kTVMFFIDLTensorPtr) return static_cast<const DLTensor*>(value.v_ptr);
  if (value.type_index != kTVMFFITensor) CONVC_THROW(TypeError) << "a library's call's operand must be a tensor; got a value of type " << value.type_index << ".";
  return TVMFFITensorGetDLTensorPtr(value.v_obj);
}

inline void* current_stream(int device) { return convc_stream ? convc_stream() : TVMFFIEnvGetStream(kDLCUDA, device); }

// Scratch memory of the host's pool, which the kernels of the same stream may have after this call; its address is null where there was none.
class HostMemory {
 public:
  HostMemory(int device, int64_t bytes) : device_(device) {
    if (!bytes) return;
    ConvcTake* const from = take();
    try {
      memory_ = from(kDLCUDA, device, static_cast<uint64_t>(bytes), kDLUInt, 8);
    } catch (const std::exception&) {
      // TVM's pool throws what CUDA's allocation says; no memory is no memory, and the caller says for what.
    }
  }
  ~HostMemory() {
    if (memory_) give()(kDLCUDA, device_, memory_);
  }
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;
  void* address() const { return memory_; }

 private:
  static ConvcTake* take() { return convc_take_workspace ? convc_take_workspace : of_tvm<ConvcTake>("TVMBackendAllocWorkspace"); }
  static ConvcGive* give() { return convc_give_workspace ? convc_give_workspace : of_tvm<ConvcGive>("TVMBackendFreeWorkspace"); }

  template <class Function>
  static Function* of_tvm(const char* name) {
    // Whoever loaded this module has loaded TVM's runtime.
    void* symbol = dlsym(RTLD_DEFAULT, name);
    if (!symbol) {
      void* runtime = dlopen("libtvm_runtime.so", RTLD_NOW | RTLD_NOLOAD);
      symbol = runtime ? dlsym(runtime, name) : nullptr;
    }
    if (!symbol) CONVC_THROW(RuntimeError) << "TVM's runtime (libtvm_runtime.so) must be loaded; got no function " << name << ".";
    return reinterpret_cast<Function*>(symbol);
  }
  int device_;
  void* memory_ = nullptr;
};

}  // namespace convc_library
