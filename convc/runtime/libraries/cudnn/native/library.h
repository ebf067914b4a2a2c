// libcudnn.so.9, opened at the first call: a module with cuDNN in it loads without cuDNN and says what is missing when it runs.
#pragma once
#include <dlfcn.h>

#include <cstdlib>
#include <string>

#include "abi.h"
#include "../../native/host.h"

namespace convc_cudnn {

using namespace convc_library;

struct Library {
  Status (*cudnnCreate)(Handle*);
  Status (*cudnnDestroy)(Handle);
  Status (*cudnnSetStream)(Handle, Stream);
  const char* (*cudnnGetErrorString)(Status);
  void (*cudnnGetLastErrorString)(char*, size_t);
  size_t (*cudnnGetVersion)();
  Status (*cudnnBackendCreateDescriptor)(int type, RawDescriptor*);
  Status (*cudnnBackendDestroyDescriptor)(RawDescriptor);
  Status (*cudnnBackendSetAttribute)(RawDescriptor, int name, int type, int64_t count, const void*);
  Status (*cudnnBackendGetAttribute)(RawDescriptor, int name, int type, int64_t room, int64_t* count, void*);
  Status (*cudnnBackendFinalize)(RawDescriptor);
  Status (*cudnnBackendExecute)(Handle, RawDescriptor plan, RawDescriptor variant_pack);

  static const Library& get() {
    static const Library library;
    return library;
  }

  // Another function of it by its name.
  void* function(const char* name) const {
    void* found = dlsym(opened_, name);
    if (!found) CONVC_THROW(RuntimeError) << "cuDNN " << cudnnGetVersion() << " must have the function " << name << "; got a library without it.";
    return found;
  }

 private:
  void* opened_ = nullptr;

  Library() {
    // convc's loader has set the variable to what it found (argument, CONVC_CUDNN_PATH, the pip package); else the system's loader looks.
    const char* named = std::getenv("CONVC_CUDNN_PATH");
    const std::string path = named && *named ? named : "libcudnn.so.9";
    void* opened = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!opened) {
      CONVC_THROW(RuntimeError) << "a step of this module must find cuDNN 9 (libcudnn.so.9); got: " << dlerror()
                                  << ". Install it with `pip install nvidia-cudnn-cu13`, name the file in CONVC_CUDNN_PATH, or"
                                     " compile the model with --cudnn off.";
    }
    opened_ = opened;
#define CONVC_CUDNN_SYMBOL(NAME)                                                                                              \
  if (!(NAME = reinterpret_cast<decltype(NAME)>(dlsym(opened, #NAME)))) {                                                     \
    CONVC_THROW(RuntimeError) << "'" << path << "' must be cuDNN 9 with the function " #NAME "; got a library without it."; \
  }
    CONVC_CUDNN_SYMBOL(cudnnGetVersion)
    if (const size_t version = cudnnGetVersion(); version / 10000 != 9) {
      // Up to cuDNN 8 a version was major * 1000 + minor * 100 + patch.
      const size_t major = version >= 10000 ? version / 10000 : version / 1000;
      CONVC_THROW(RuntimeError) << "'" << path << "' must be cuDNN 9; got cuDNN " << major << " (version " << version
                                  << "). Install it with `pip install nvidia-cudnn-cu13`.";
    }
    CONVC_CUDNN_SYMBOL(cudnnCreate)
    CONVC_CUDNN_SYMBOL(cudnnDestroy)
    CONVC_CUDNN_SYMBOL(cudnnSetStream)
    CONVC_CUDNN_SYMBOL(cudnnGetErrorString)
    CONVC_CUDNN_SYMBOL(cudnnGetLastErrorString)
    CONVC_CUDNN_SYMBOL(cudnnBackendCreateDescriptor)
    CONVC_CUDNN_SYMBOL(cudnnBackendDestroyDescriptor)
    CONVC_CUDNN_SYMBOL(cudnnBackendSetAttribute)
    CONVC_CUDNN_SYMBOL(cudnnBackendGetAttribute)
    CONVC_CUDNN_SYMBOL(cudnnBackendFinalize)
    CONVC_CUDNN_SYMBOL(cudnnBackendExecute)
#undef CONVC_CUDNN_SYMBOL
  }
};

// The call that is being worked on, for messages. A pointer into it: a variable that is destroyed when the thread ends would keep the
// module's code in memory until then.
inline thread_local const char* current_spec = "";

inline std::string words_of(Status status) {
  char text[1024] = {0};
  Library::get().cudnnGetLastErrorString(text, sizeof text);
  return std::string(Library::get().cudnnGetErrorString(status)) + (text[0] ? ": " : "") + text;
}

inline void check(Status status, const char* call) {
  if (status == STATUS_SUCCESS) return;
  CONVC_THROW(RuntimeError) << "cuDNN's " << call << " must succeed for " << current_spec << "; got " << words_of(status) << ".";
}

}  // namespace convc_cudnn
