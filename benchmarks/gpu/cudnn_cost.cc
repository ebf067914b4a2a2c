// The shim, and what it adds to a call of cuDNN, seen from the host: work is handed to the device and not waited for.
//
//   convc_cudnn_cost(description, tensors...)  returns "ours=9.1;direct=7.4", microseconds a call, each the least of some rounds
#include <chrono>

#include "shim.cc"

namespace convc_cudnn {

template <class Function>
double least_microseconds(Function function) {
  // Few enough that the device's queue, about a thousand deep, does not fill up.
  constexpr int CALLS = 20, ROUNDS = 5;
  double least = 1e9;
  for (int round = 0; round < ROUNDS; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < CALLS; ++i) function();
    const std::chrono::duration<double, std::micro> spent = std::chrono::steady_clock::now() - start;
    least = std::min(least, spent.count() / CALLS);
  }
  return least;
}

}  // namespace convc_cudnn

extern "C" TVM_FFI_DLL_EXPORT int __tvm_ffi_convc_cudnn_cost(void*, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  using namespace convc_cudnn;
  return guarded([&] {
    const Call call(arguments, count);
    const Lease context(call.device());  // the calls below have another one: a context has one user
    Entry& entry = context->entry(call.description, call.tensors);
    if (entry.plan.workspace) CONVC_THROW(ValueError) << "the plan must need no workspace; got " << entry.plan.workspace << " bytes.";
    std::vector<void*> pointers;
    for (const DLTensor* tensor : call.tensors) pointers.push_back(static_cast<char*>(tensor->data) + tensor->byte_offset);
    void* none = nullptr;
    Descriptor pack(BACKEND_VARIANT_PACK_DESCRIPTOR);
    pack.set(ATTR_VARIANT_PACK_DATA_POINTERS, TYPE_VOID_PTR, static_cast<int64_t>(pointers.size()), pointers.data())
        .set(ATTR_VARIANT_PACK_UNIQUE_IDS, entry.graph->identifiers())
        .set(ATTR_VARIANT_PACK_WORKSPACE, TYPE_VOID_PTR, 1, &none)
        .finalize("finalisation of the variant pack");
    const double ours = least_microseconds([&] {
      TVMFFIAny nothing = {};
      if (__tvm_ffi_convc_cudnn(nullptr, arguments, count, &nothing)) CONVC_THROW(RuntimeError) << "the shim must run; got an error.";
    });
    const double direct = least_microseconds(
        [&] { check(Library::get().cudnnBackendExecute(context->handle(), entry.plan.descriptor.raw(), pack.raw()), "cudnnBackendExecute"); });
    const std::string words = "ours=" + std::to_string(ours) + ";direct=" + std::to_string(direct);
    const TVMFFIByteArray bytes = {words.data(), words.size()};
    TVMFFIStringFromByteArray(&bytes, result);
  });
}
