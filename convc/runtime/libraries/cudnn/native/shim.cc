// cuDNN in a packaged module: functions that are called by the module's own entry through their symbols. It is compiled by g++ when the
// model is exported and linked into the module, needs neither cuDNN nor CUDA then, and several modules with it live in one process.
//
//   convc_cudnn(description, tensors...)       runs a convolution, a pooling or a softmax on the current stream; returns 0, or 1 where cuDNN
//                                              refuses it and the description says that the module has a kernel of its own ("falls=1;...")
//   convc_cudnn_plan(description, tensors...)  returns "engine=28;knobs=2:1;workspace=1024" of the plan that it would run, and runs nothing
//   convc_cudnn_watch()                        from here on this thread's calls are written down, until
//   convc_cudnn_watched()                      returns a line for each: "engine=...;workspace=...;microseconds=210;spec=...", of a pooling or
//                                              softmax "spec=...", of one that was refused "refused=WHY", of an error "failed"
//   convc_cudnn_users(1 or -1)                 somebody has loaded this module, or is about to unload it
#include <utility>

#include "lease.h"

namespace convc_cudnn {

namespace {

struct Call {
  std::string description;
  std::vector<const DLTensor*> tensors;

  Call(const TVMFFIAny* arguments, int32_t count) {
    if (count > 0) description = text_of(arguments[0]);
    const bool convolution = convolves(description);
    if (count < (convolution ? 4 : 3)) {
      CONVC_THROW(ValueError) << "a cuDNN call must have a description and " << (convolution ? "three" : "two") << " tensors at least; got " << count << " arguments.";
    }
    for (int32_t i = 1; i < count; ++i) tensors.push_back(tensor_of(arguments[i]));
    for (const DLTensor* tensor : tensors)
      if (tensor->device.device_type != kDLCUDA && !std::getenv("CONVC_CUDNN_DEVICE_PROPERTIES"))
        CONVC_THROW(ValueError) << "cuDNN must be given memory of a CUDA device; got device type " << tensor->device.device_type << ".";
    const size_t at = description.rfind("spec=");
    current_spec = description.c_str() + (at == std::string::npos ? 0 : at + 5);
  }
  ~Call() { current_spec = ""; }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  int device() const { return tensors[0]->device.device_id; }
};

void answer(TVMFFIAny* result, int64_t number) {
  result->type_index = kTVMFFIInt;
  result->zero_padding = 0;
  result->v_int64 = number;
}

// A string of tvm_ffi's; in a product, which may have tvm_ffi beside it, characters that last until this thread's next answer.
void answer(TVMFFIAny* result, const std::string& words) {
  if (!convc_stream && TVMFFIStringFromByteArray) {
    const TVMFFIByteArray bytes = {words.data(), words.size()};
    TVMFFIStringFromByteArray(&bytes, result);
    return;
  }
  static thread_local std::string* kept = nullptr;
  delete std::exchange(kept, new std::string(words));
  result->type_index = kTVMFFIRawStr;
  result->zero_padding = 0;
  result->v_c_str = kept->c_str();
}

}  // namespace

}  // namespace convc_cudnn

extern "C" {

TVM_FFI_DLL_EXPORT int __tvm_ffi_convc_cudnn(void*, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  return convc_cudnn::guarded([&] {
    using namespace convc_cudnn;
    const Call call(arguments, count);
    try {
      // A call that was refused needs no handle.
      std::string absent = Choices::get().refused(call.device(), call.description, [&] { return shapes_of(call.tensors); });
      std::optional<Lease> lease;
      if (absent.empty()) Presence::get().lease(call.device(), falls(call.description), lease, absent);
      if (!lease) Watch::note([&] { return "refused=" + absent; });
      answer(result, lease && (*lease)->run(call.description, call.tensors) ? 0 : 1);
    } catch (...) {
      Watch::note([] { return std::string("failed"); });
      throw;
    }
  });
}

TVM_FFI_DLL_EXPORT int __tvm_ffi_convc_cudnn_plan(void*, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  return convc_cudnn::guarded([&] {
    const convc_cudnn::Call call(arguments, count);
    const convc_cudnn::Lease lease(call.device());
    const convc_cudnn::Entry& entry = lease->entry(call.description, call.tensors);
    if (!entry.refused.empty()) CONVC_THROW(RuntimeError) << entry.refused;
    convc_cudnn::answer(result, entry.plan.words());
  });
}

TVM_FFI_DLL_EXPORT int __tvm_ffi_convc_cudnn_watch(void*, const TVMFFIAny*, int32_t, TVMFFIAny*) {
  return convc_cudnn::guarded([] { convc_cudnn::Watch::begin(); });
}

TVM_FFI_DLL_EXPORT int __tvm_ffi_convc_cudnn_watched(void*, const TVMFFIAny*, int32_t, TVMFFIAny* result) {
  return convc_cudnn::guarded([&] { convc_cudnn::answer(result, convc_cudnn::Watch::end()); });
}

TVM_FFI_DLL_EXPORT int __tvm_ffi_convc_cudnn_users(void*, const TVMFFIAny* arguments, int32_t count, TVMFFIAny*) {
  return convc_cudnn::guarded([&] { convc_cudnn::Idle::get().users(count ? arguments[0].v_int64 : 1); });
}
}
