// CUTLASS in a packaged module: one function, called by the module's own entry through its symbol. The kernels lie beside it in the module.
//
//   convc_cutlass(description, data, weight, [bias], [residual], result)     launches a convolution on the current stream
//
// The description names the kernel, strides, pads, dilations and steps (convc/runtime/libraries/cutlass/description.py).
#include <limits>
#include <vector>

#include "../../native/description.h"
#include "../../native/host.h"
#include "call.h"

namespace {

using namespace convc_library;

constexpr int64_t ALIGNMENT = 16;  // bytes, of what TMA and vectors of cp.async read
constexpr int64_t EIGHT = 8;       // elements of half precision in so many bytes

std::string shape_of(const DLTensor& tensor) {
  std::string words = "(";
  for (int i = 0; i < tensor.ndim; ++i) words += (i ? ", " : "") + std::to_string(tensor.shape[i]);
  return words + ")";
}

const void* address(const DLTensor& tensor) { return static_cast<const char*>(tensor.data) + tensor.byte_offset; }

// What a kernel reads without looking: dense, aligned, on the device.
void check(const DLTensor& tensor, const char* what, int ndim, const std::string& spec) {
  if (tensor.ndim != ndim) CONVC_THROW(ValueError) << what << " of " << spec << " must have " << ndim << " axes; got shape " << shape_of(tensor) << ".";
  if (tensor.device.device_type != kDLCUDA) CONVC_THROW(ValueError) << what << " of " << spec << " must be on a CUDA device; got device type " << tensor.device.device_type << ".";
  int64_t expected = 1;
  for (int axis = tensor.ndim - 1; axis >= 0; --axis) {
    if (tensor.strides && tensor.shape[axis] > 1 && tensor.strides[axis] != expected) {
      CONVC_THROW(ValueError) << what << " of " << spec << " must be dense; got stride " << tensor.strides[axis] << " along axis " << axis << " of shape " << shape_of(tensor) << ".";
    }
    expected *= tensor.shape[axis];
  }
  if (reinterpret_cast<uintptr_t>(address(tensor)) % ALIGNMENT) CONVC_THROW(ValueError) << what << " of " << spec << " must lie at a multiple of " << ALIGNMENT << " bytes; got another address.";
}

struct Call {
  ConvcCutlassCall numbers = {};
  std::string kernel, spec;

  Call(const TVMFFIAny* arguments, int32_t count) {
    const Description d(count > 0 ? text_of(arguments[0]) : "");
    kernel = d.text("kernel");
    spec = d.text("spec");
    const std::vector<std::string> steps = split(d.text("steps"), ',');
    int32_t operands = 3;
    for (const std::string& step : steps) operands += step == "bias" || step == "add";
    if (count != operands + 1) CONVC_THROW(ValueError) << "a CUTLASS call of " << spec << " must have " << operands << " tensors; got " << count - 1 << ".";
    const DLTensor &x = *tensor_of(arguments[1]), &w = *tensor_of(arguments[2]), &y = *tensor_of(arguments[count - 1]);
    ConvcCutlassCall& n = numbers;
    n.rank = static_cast<int32_t>(d.integers("strides").size());
    if (n.rank != 2 && n.rank != 3) CONVC_THROW(ValueError) << "a CUTLASS call must have 2 or 3 strides; got " << n.rank << " for " << spec << ".";
    // An image is one block of all its channels: (N, 1, spatial..., C).
    check(x, "data", n.rank + 3, spec);
    check(w, "the weight", n.rank + 2, spec);
    // Parts of a sum lie one behind the other: (parts, N, 1, spatial..., C).
    n.slices = parts_of(d);
    const int front = n.slices > 1;
    check(y, "the result", n.rank + 3 + front, spec);
    const bool sums = y.dtype.code == kDLFloat && y.dtype.bits == 32 && y.dtype.lanes == 1;
    if (!is_half(x) || w.dtype.code != x.dtype.code || w.dtype.bits != 16 || !(front ? sums : is_half(y) && y.dtype.code == x.dtype.code)) {
      CONVC_THROW(TypeError) << "a CUTLASS call must have data, weight and result of float16 or of bfloat16, parts of a sum of float32; got others for " << spec << ".";
    }
    if (front && (!steps.empty() || y.shape[0] != n.slices)) {
      CONVC_THROW(ValueError) << "a sum of " << spec << " in " << n.slices << " parts must have a result of so many and no steps; got shape " << shape_of(y) << " and " << steps.size() << " steps.";
    }
    const int last = n.rank + 2;
    n.samples = extent(x, 0);
    n.channels = extent(x, last);
    n.filters = extent(y, last + front);
    if (x.shape[1] != 1 || y.shape[1 + front] != 1 || y.shape[front] != x.shape[0] || w.shape[0] != y.shape[last + front] || w.shape[last - 1] != x.shape[last] || n.channels % EIGHT || n.filters % EIGHT) {
      CONVC_THROW(ValueError) << "shapes of " << spec << " must agree, in whole eights of channels; got data " << shape_of(x) << ", weight " << shape_of(w) << ", result " << shape_of(y) << ".";
    }
    fill(n.lower, d, "lower");
    fill(n.upper, d, "upper");
    fill(n.strides, d, "strides");
    fill(n.dilations, d, "dilations");
    for (int axis = 0; axis < n.rank; ++axis) {
      n.data[axis] = extent(x, axis + 2);
      n.taps[axis] = extent(w, axis + 1);
      n.result[axis] = extent(y, axis + 2 + front);
      const int64_t reach = int64_t(n.dilations[axis]) * (n.taps[axis] - 1) + 1;
      const int64_t results = (n.data[axis] + n.lower[axis] + n.upper[axis] - reach) / n.strides[axis] + 1;
      if (results != n.result[axis]) CONVC_THROW(ValueError) << "the result of " << spec << " must have " << results << " points along spatial axis " << axis << "; got " << n.result[axis] << ".";
    }
    n.low = -std::numeric_limits<float>::infinity();
    n.high = std::numeric_limits<float>::infinity();
    int32_t next = 3;
    for (const std::string& step : steps) take(step, step == "bias" || step == "add" ? tensor_of(arguments[next++]) : nullptr, x);
    n.x = address(x);
    n.w = address(w);
    n.y = const_cast<void*>(address(y));
    n.device = x.device.device_id;
    n.stream = current_stream(n.device);
  }

 private:
  static bool is_half(const DLTensor& t) { return t.dtype.lanes == 1 && t.dtype.bits == 16 && (t.dtype.code == kDLFloat || t.dtype.code == kDLBfloat); }

  int32_t parts_of(const Description& d) const {
    const std::vector<int64_t> values = d.integers("slices");
    if (values.size() != 1 || values[0] < 1 || values[0] > std::numeric_limits<uint16_t>::max()) CONVC_THROW(ValueError) << "the field 'slices' of " << spec << " must be a number of 1 to 65535; got '" << d.text("slices") << "'.";
    return static_cast<int32_t>(values[0]);
  }

  int32_t extent(const DLTensor& tensor, int axis) const {
    const int64_t value = tensor.shape[axis];
    if (value < 1 || value > std::numeric_limits<int32_t>::max()) CONVC_THROW(ValueError) << "extents of " << spec << " must be 1 to 2^31 - 1; got shape " << shape_of(tensor) << ".";
    return static_cast<int32_t>(value);
  }

  void fill(int32_t (&out)[3], const Description& d, const char* name) const {
    const std::vector<int64_t> values = d.integers(name);
    if (static_cast<int32_t>(values.size()) != numbers.rank) CONVC_THROW(ValueError) << "the field '" << name << "' of " << spec << " must have " << numbers.rank << " numbers; got " << values.size() << ".";
    for (size_t i = 0; i < values.size(); ++i) out[i] = static_cast<int32_t>(values[i]);
  }

  void take(const std::string& step, const DLTensor* operand, const DLTensor& x) {
    if (step == "bias") {
      // (1, K); what a kernel is compiled for is part of its name.
      check(*operand, "the bias", 2, spec);
      const bool wide = operand->dtype.code == kDLFloat && operand->dtype.bits == 32;
      if (operand->shape[1] != numbers.filters || !(wide || operand->dtype.code == x.dtype.code)) CONVC_THROW(ValueError) << "the bias of " << spec << " must have " << numbers.filters << " elements of float32 or of the data's type; got shape " << shape_of(*operand) << ".";
      if (wide) kernel += "_wide_bias";
      numbers.bias = address(*operand);
    } else if (step == "add") {
      check(*operand, "the residual", numbers.rank + 3, spec);
      if (operand->dtype.code != x.dtype.code || operand->dtype.bits != 16) CONVC_THROW(TypeError) << "the residual of " << spec << " must have the data's type; got another.";
      numbers.residual = address(*operand);
    } else {
      const std::vector<std::string> parts = split(step, ':');
      if (parts[0] != "relu" && parts.size() != 3) CONVC_THROW(ValueError) << "steps of " << spec << " must be bias, add, relu or clip:LOW:HIGH; got '" << step << "'.";
      numbers.low = parts[0] == "relu" ? 0.0f : std::strtof(parts[1].c_str(), nullptr);
      if (parts[0] != "relu") numbers.high = std::strtof(parts[2].c_str(), nullptr);
    }
  }
};

ConvcCutlassKernel* kernel_of(const Call& call) {
  for (const ConvcCutlassEntry* entry = convc_cutlass_kernels; entry->name; ++entry)
    if (call.kernel == entry->name) return entry->kernel;
  CONVC_THROW(RuntimeError) << "this module must have the kernel '" << call.kernel << "' for " << call.spec << "; got a module without it. Compile the model again.";
}

}  // namespace

extern "C" TVM_FFI_DLL_EXPORT int __tvm_ffi_convc_cutlass(void*, const TVMFFIAny* arguments, int32_t count, TVMFFIAny*) {
  return convc_library::guarded([&] {
    const Call call(arguments, count);
    if (const char* problem = kernel_of(call)(&call.numbers)) {
      CONVC_THROW(RuntimeError) << "CUTLASS's kernel '" << call.kernel << "' must run " << call.spec << "; got: " << problem << ".";
    }
  });
}
