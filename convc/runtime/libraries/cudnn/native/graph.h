// One convolution with its epilogue as a cuDNN operation graph.
#pragma once
#include <limits>
#include <memory>

#include "../../native/description.h"
#include "descriptor.h"
#include "shape.h"

namespace convc_cudnn {

class Graph {
 public:
  // Tensors: forward (data, weight, operands of the steps..., result), data_gradient (dy, weight, dx), weight_gradient (data, dy, dw).
  // Throws ValueError for a kind or a step that is none.
  Graph(const Description& d, const std::vector<const DLTensor*>& tensors, Handle handle)
      : compute_(data_type(tensors[0]->dtype) == DATA_DOUBLE ? DATA_DOUBLE : DATA_FLOAT), channels_last_(d.text("layout") == "NHWC") {
    const int spatial = static_cast<int>(d.integers("strides").size());
    for (const DLTensor* tensor : tensors) {
      described_.emplace_back(*tensor, channels_last_, spatial);
      types_.push_back(data_type(tensor->dtype));
    }
    convolution_ = convolution(d);
    const std::string& kind = d.text("kind");
    if (kind == "forward")
      forward(d);
    else if (kind == "data_gradient")
      gradient(d, BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
               ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
               {ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX});
    else if (kind == "weight_gradient")
      gradient(d, BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
               ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA, ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
               {ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW});
    else
      CONVC_THROW(ValueError) << "kind must be forward, data_gradient or weight_gradient; got '" << kind << "'.";
    std::vector<RawDescriptor> raw;
    for (const Descriptor& operation : operations_) raw.push_back(operation.raw());
    graph_ = Descriptor(BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    graph_.set(ATTR_OPERATIONGRAPH_OPS, TYPE_BACKEND_DESCRIPTOR, static_cast<int64_t>(raw.size()), raw.data());
    if (handle) graph_.set(ATTR_OPERATIONGRAPH_HANDLE, TYPE_HANDLE, 1, &handle);
    graph_.finalize("finalisation of the operation graph");
  }

  const Descriptor& descriptor() const { return graph_; }
  // The tensors' identifiers, in the order of the arguments.
  const std::vector<int64_t>& identifiers() const { return identifiers_; }
  // Whether the operands and the result have two bytes.
  bool half() const { return types_.front() == DATA_HALF || types_.front() == DATA_BFLOAT16; }

 private:
  Descriptor convolution(const Description& d) const {
    const std::vector<int64_t> strides = raised(d.integers("strides"), 1);
    Descriptor made(BACKEND_CONVOLUTION_DESCRIPTOR);
    made.set(ATTR_CONVOLUTION_COMP_TYPE, TYPE_DATA_TYPE, compute_)
        .set(ATTR_CONVOLUTION_CONV_MODE, TYPE_CONVOLUTION_MODE, CROSS_CORRELATION)
        .set(ATTR_CONVOLUTION_SPATIAL_DIMS, {static_cast<int64_t>(strides.size())})
        .set(ATTR_CONVOLUTION_PRE_PADDINGS, raised(d.integers("pads"), 0))
        .set(ATTR_CONVOLUTION_POST_PADDINGS, raised(d.integers("pads"), 0))
        .set(ATTR_CONVOLUTION_FILTER_STRIDES, strides)
        .set(ATTR_CONVOLUTION_DILATIONS, raised(d.integers("dilations"), 1))
        .finalize("finalisation of the convolution descriptor");
    return made;
  }

  Descriptor tensor(int64_t identifier, const Shape& shape, Value type, bool is_virtual) const {
    Descriptor made(BACKEND_TENSOR_DESCRIPTOR);
    made.set(ATTR_TENSOR_DATA_TYPE, TYPE_DATA_TYPE, type)
        .set(ATTR_TENSOR_DIMENSIONS, shape.extents)
        .set(ATTR_TENSOR_STRIDES, shape.strides)
        .set(ATTR_TENSOR_UNIQUE_ID, {identifier})
        .set(ATTR_TENSOR_BYTE_ALIGNMENT, {16});
    if (is_virtual) made.set(ATTR_TENSOR_IS_VIRTUAL, TYPE_BOOLEAN, 1, &is_virtual);
    made.finalize("finalisation of a tensor descriptor");
    return made;
  }

  const Descriptor& real(size_t argument) {
    // Its own: the bias of a layer in half precision may be float32.
    keep_.push_back(tensor(static_cast<int64_t>(argument) + 1, described_[argument], types_[argument], false));
    return keep_.back();
  }
  // A value between two operations: it has the result's shape and the sums' type, and no memory.
  const Descriptor& between(int64_t step) {
    keep_.push_back(tensor(1000 + step, described_.back(), compute_, true));
    return keep_.back();
  }

  void scales(Descriptor& operation, const Description& d, Value alpha_name, Value beta_name) const {
    const double alpha = d.number("alpha"), beta = d.number("beta");
    const float alpha_float = static_cast<float>(alpha), beta_float = static_cast<float>(beta);
    const bool wide = compute_ == DATA_DOUBLE;
    operation.set(alpha_name, wide ? TYPE_DOUBLE : TYPE_FLOAT, 1, wide ? static_cast<const void*>(&alpha) : &alpha_float);
    operation.set(beta_name, wide ? TYPE_DOUBLE : TYPE_FLOAT, 1, wide ? static_cast<const void*>(&beta) : &beta_float);
  }

  void add(Descriptor operation) {
    operation.finalize("finalisation of an operation");
    operations_.push_back(std::move(operation));
  }

  void name_arguments() {
    for (size_t i = 0; i < described_.size(); ++i) identifiers_.push_back(static_cast<int64_t>(i) + 1);
  }

  void forward(const Description& d) {
    keep_.reserve(32);  // references into it must last
    std::vector<std::string> steps = split(d.text("steps"), ',');
    const size_t result = described_.size() - 1;
    // The residual first, then the bias: the other order has no engine that is compiled beforehand (9.28, sm_90).
    size_t operand = 2;
    std::vector<std::pair<std::string, size_t>> ordered;
    for (const std::string& step : steps) {
      const bool takes = step == "bias" || step == "add";
      const auto at = step == "add" && !ordered.empty() && ordered.back().first == "bias" ? ordered.end() - 1 : ordered.end();
      ordered.insert(at, {step, takes ? operand++ : 0});
    }
    if (operand != result) {
      CONVC_THROW(ValueError) << "steps '" << d.text("steps") << "' must have " << operand - 2 << " operands; got " << result - 2 << ".";
    }
    Descriptor first(BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    const Descriptor* value = ordered.empty() ? &real(result) : &between(0);
    first.set(ATTR_OPERATION_CONVOLUTION_FORWARD_X, real(0))
        .set(ATTR_OPERATION_CONVOLUTION_FORWARD_W, real(1))
        .set(ATTR_OPERATION_CONVOLUTION_FORWARD_Y, *value)
        .set(ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, convolution_);
    scales(first, d, ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, ATTR_OPERATION_CONVOLUTION_FORWARD_BETA);
    add(std::move(first));
    for (size_t i = 0; i < ordered.size(); ++i) {
      const auto& [step, argument] = ordered[i];
      const Descriptor* next = i + 1 == ordered.size() ? &real(result) : &between(static_cast<int64_t>(i) + 1);
      if (step == "bias") {
        // (K), or one block of all channels (1, K), seen as (1, K, 1, 1)
        Shape& bias = described_[argument];
        const int64_t channels = bias.extents.back();
        bias.extents.assign(described_[result].extents.size(), 1);
        bias.extents[1] = channels;
        bias.strides.assign(bias.extents.size(), 1);
        bias.strides[0] = channels;
      }
      pointwise(step, *value, argument ? &real(argument) : nullptr, *next);
      value = next;
    }
    name_arguments();
  }

  // add, bias: x + operand; relu; clip:LOW:HIGH
  void pointwise(const std::string& step, const Descriptor& x, const Descriptor* operand, const Descriptor& y) {
    Descriptor mode(BACKEND_POINTWISE_DESCRIPTOR);
    mode.set(ATTR_POINTWISE_MODE, TYPE_POINTWISE_MODE, operand ? POINTWISE_ADD : POINTWISE_RELU_FWD);
    mode.set(ATTR_POINTWISE_MATH_PREC, TYPE_DATA_TYPE, compute_);
    if (!operand) {
      const std::vector<std::string> parts = split(step, ':');
      if (parts[0] != "relu" && (parts[0] != "clip" || parts.size() != 3)) {
        CONVC_THROW(ValueError) << "a step must be bias, add, relu or clip:LOW:HIGH; got '" << step << "'.";
      }
      if (parts[0] == "clip") {
        const double low = std::strtod(parts[1].c_str(), nullptr), high = std::strtod(parts[2].c_str(), nullptr);
        mode.set(ATTR_POINTWISE_RELU_LOWER_CLIP, TYPE_DOUBLE, 1, &low).set(ATTR_POINTWISE_RELU_UPPER_CLIP, TYPE_DOUBLE, 1, &high);
      }
    }
    mode.finalize("finalisation of a pointwise descriptor");
    Descriptor operation(BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    operation.set(ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, mode).set(ATTR_OPERATION_POINTWISE_XDESC, x).set(ATTR_OPERATION_POINTWISE_YDESC, y);
    if (operand) operation.set(ATTR_OPERATION_POINTWISE_BDESC, *operand);
    add(std::move(operation));
    modes_.push_back(std::move(mode));
  }

  void gradient(const Description& d, Value operation, Value alpha, Value beta, Value convolution, const std::vector<Value>& arguments) {
    if (described_.size() != 3) CONVC_THROW(ValueError) << "a gradient must have three tensors; got " << described_.size() << ".";
    keep_.reserve(3);
    Descriptor made(operation);
    for (size_t i = 0; i < 3; ++i) made.set(arguments[i], real(i));
    made.set(convolution, convolution_);
    scales(made, d, alpha, beta);
    add(std::move(made));
    name_arguments();
  }

  Value compute_;
  bool channels_last_;
  std::vector<Shape> described_;
  std::vector<Value> types_;  // of the elements
  Descriptor convolution_, graph_;
  std::vector<Descriptor> keep_, modes_, operations_;
  std::vector<int64_t> identifiers_;
};

}  // namespace convc_cudnn
