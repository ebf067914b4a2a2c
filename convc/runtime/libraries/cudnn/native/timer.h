// The time between two places of a stream, by events of CUDA's driver, which is there wherever cuDNN runs.
#pragma once
#include <dlfcn.h>

#include "abi.h"
#include "../../native/host.h"

namespace convc_cudnn {

class Timer {
 public:
  Timer() {
    for (void*& event : events_) require(driver().cuEventCreate(&event, 0), "cuEventCreate");
  }
  ~Timer() {
    for (void* event : events_) driver().cuEventDestroy_v2(event);
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  void begin(Stream stream) { require(driver().cuEventRecord(events_[0], stream), "cuEventRecord"); }
  // Milliseconds since then, once the stream has come so far.
  float end(Stream stream) {
    float milliseconds = 0;
    require(driver().cuEventRecord(events_[1], stream), "cuEventRecord");
    require(driver().cuEventSynchronize(events_[1]), "cuEventSynchronize");
    require(driver().cuEventElapsedTime(&milliseconds, events_[0], events_[1]), "cuEventElapsedTime");
    return milliseconds;
  }

 private:
  struct Driver {
    int (*cuEventCreate)(void**, unsigned);
    int (*cuEventDestroy_v2)(void*);
    int (*cuEventRecord)(void*, Stream);
    int (*cuEventSynchronize)(void*);
    int (*cuEventElapsedTime)(float*, void*, void*);
  };

  static const Driver& driver() {
    static const Driver found = [] {
      void* opened = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
      if (!opened) CONVC_THROW(RuntimeError) << "policy time must find CUDA's driver (libcuda.so.1); got: " << dlerror() << ".";
      Driver d;
#define CONVC_CUDA_SYMBOL(NAME)                                                                                \
  if (!(d.NAME = reinterpret_cast<decltype(d.NAME)>(dlsym(opened, #NAME)))) {                                  \
    CONVC_THROW(RuntimeError) << "libcuda.so.1 must have the function " #NAME "; got a library without it."; \
  }
      CONVC_CUDA_SYMBOL(cuEventCreate)
      CONVC_CUDA_SYMBOL(cuEventDestroy_v2)
      CONVC_CUDA_SYMBOL(cuEventRecord)
      CONVC_CUDA_SYMBOL(cuEventSynchronize)
      CONVC_CUDA_SYMBOL(cuEventElapsedTime)
#undef CONVC_CUDA_SYMBOL
      return d;
    }();
    return found;
  }

  static void require(int status, const char* call) {
    if (status) CONVC_THROW(RuntimeError) << "CUDA's " << call << " must succeed; got error " << status << ".";
  }

  void* events_[2] = {nullptr, nullptr};
};

}  // namespace convc_cudnn
