// Pooling and softmax, forward and backward, by cuDNN's functions for them. Its graph interface has poolings too, but compiles an engine
// for each while the program runs.
#pragma once
#include <memory>

#include "../../native/description.h"
#include "shape.h"

namespace convc_cudnn {

// The part of cuDNN that convolutions do not need; looked for when the first of these operations runs.
struct OperationLibrary {
#define CONVC_CUDNN_OPERATIONS(F) \
  F(cudnnCreateTensorDescriptor, (void**)) F(cudnnDestroyTensorDescriptor, (void*)) \
  F(cudnnSetTensorNdDescriptor, (void*, int type, int rank, const int* extents, const int* strides)) \
  F(cudnnCreatePoolingDescriptor, (void**)) F(cudnnDestroyPoolingDescriptor, (void*)) \
  F(cudnnSetPoolingNdDescriptor, (void*, int mode, int nan, int rank, const int* window, const int* pads, const int* strides)) \
  F(cudnnPoolingForward, (Handle, void* pooling, const void* alpha, void* x_of, const void* x, const void* beta, void* y_of, void* y)) \
  F(cudnnPoolingBackward, (Handle, void* pooling, const void* alpha, void* y_of, const void* y, void* dy_of, const void* dy, void* x_of, \
                           const void* x, const void* beta, void* dx_of, void* dx)) \
  F(cudnnSoftmaxForward, (Handle, int algorithm, int mode, const void* alpha, void* x_of, const void* x, const void* beta, void* y_of, void* y)) \
  F(cudnnSoftmaxBackward, (Handle, int algorithm, int mode, const void* alpha, void* y_of, const void* y, void* dy_of, const void* dy, \
                           const void* beta, void* dx_of, void* dx))
#define CONVC_CUDNN_MEMBER(NAME, PARAMETERS) Status(*NAME) PARAMETERS = nullptr;
  CONVC_CUDNN_OPERATIONS(CONVC_CUDNN_MEMBER)
#undef CONVC_CUDNN_MEMBER

  static const OperationLibrary& get() {
    static const OperationLibrary library;
    return library;
  }

 private:
  OperationLibrary() {
#define CONVC_CUDNN_FIND(NAME, PARAMETERS) NAME = reinterpret_cast<decltype(NAME)>(Library::get().function(#NAME));
    CONVC_CUDNN_OPERATIONS(CONVC_CUDNN_FIND)
#undef CONVC_CUDNN_FIND
  }
};

class Operation {
  // Destroyed also where the constructor throws behind it.
  using Owned = std::unique_ptr<void, void (*)(void*)>;

 public:
  // Tensors: pool_forward (x, y), pool_backward (y, dy, x, dx) or, of an average, (dy, dx), softmax_forward (x, y), softmax_backward (y, dy, dx).
  // Throws ValueError for a kind, a mode or a number of tensors that is none.
  Operation(const Description& d, const std::vector<const DLTensor*>& given) : kind_(d.text("kind")) {
    pooling_ = kind_.rfind("pool", 0) == 0;
    std::vector<const DLTensor*> tensors = given;
    if (kind_ == "pool_backward" && d.text("mode").rfind("average", 0) == 0 && given.size() == 2) {
      // An average's gradient depends on no values: the two tensors stand for those of the same shape.
      order_ = {0, 0, 1, 1};
      tensors = {given[0], given[0], given[1], given[1]};
    }
    wide_ = data_type(tensors[0]->dtype) == DATA_DOUBLE;
    const size_t wanted = kind_ == "pool_forward" || kind_ == "softmax_forward" ? 2 : kind_ == "pool_backward" ? 4 : kind_ == "softmax_backward" ? 3 : 0;
    if (!wanted) {
      CONVC_THROW(ValueError) << "kind must be pool_forward, pool_backward, softmax_forward or softmax_backward; got '" << kind_ << "'.";
    }
    if (tensors.size() != wanted) CONVC_THROW(ValueError) << kind_ << " must have " << wanted << " tensors; got " << tensors.size() << ".";
    alpha_ = d.number("alpha"), beta_ = d.number("beta");
    alpha_float_ = static_cast<float>(alpha_), beta_float_ = static_cast<float>(beta_);
    for (const DLTensor* tensor : tensors) add(*tensor, d);
    if (pooling_)
      pool(d);
    else
      soften(d);
  }

  void run(Handle handle, const std::vector<void*>& given) const {
    const OperationLibrary& cudnn = OperationLibrary::get();
    std::vector<void*> p = given;
    if (!order_.empty()) p = {given[order_[0]], given[order_[1]], given[order_[2]], given[order_[3]]};
    const void* alpha = wide_ ? static_cast<const void*>(&alpha_) : &alpha_float_;
    const void* beta = wide_ ? static_cast<const void*>(&beta_) : &beta_float_;
    const auto of = [&](size_t tensor) { return of_[tensor].get(); };
    void* pooling = descriptor_.get();
    if (kind_ == "pool_forward")
      check(cudnn.cudnnPoolingForward(handle, pooling, alpha, of(0), p[0], beta, of(1), p[1]), "cudnnPoolingForward");
    else if (kind_ == "pool_backward")
      check(cudnn.cudnnPoolingBackward(handle, pooling, alpha, of(0), p[0], of(1), p[1], of(2), p[2], beta, of(3), p[3]), "cudnnPoolingBackward");
    else if (kind_ == "softmax_forward")
      check(cudnn.cudnnSoftmaxForward(handle, algorithm_, mode_, alpha, of(0), p[0], beta, of(1), p[1]), "cudnnSoftmaxForward");
    else
      check(cudnn.cudnnSoftmaxBackward(handle, algorithm_, mode_, alpha, of(0), p[0], of(1), p[1], beta, of(2), p[2]), "cudnnSoftmaxBackward");
  }

 private:
  static std::vector<int> narrow(const std::vector<int64_t>& values) { return std::vector<int>(values.begin(), values.end()); }

  // The number that cuDNN has for a word.
  static int chosen(const char* what, const std::string& word, const std::vector<std::pair<std::string, int>>& words) {
    std::string known;
    for (const auto& [name, number] : words) {
      if (name == word) return number;
      known += (known.empty() ? "" : ", ") + name;
    }
    CONVC_THROW(ValueError) << what << " must be one of " << known << "; got '" << word << "'.";
  }

  void add(const DLTensor& tensor, const Description& d) {
    Shape shape = pooling_ ? Shape(tensor, d.text("layout") == "NHWC", static_cast<int>(d.integers("window").size())) : soft_shape(tensor, d);
    // (N, C): what cuDNN takes has two spatial dimensions at least, and a mean of maps without any as many as the maps.
    while (shape.extents.size() < rank_) shape.extents.push_back(1), shape.strides.push_back(1);
    rank_ = shape.extents.size();
    void* made = nullptr;
    check(OperationLibrary::get().cudnnCreateTensorDescriptor(&made), "cudnnCreateTensorDescriptor");
    of_.emplace_back(made, [](void* raw) { OperationLibrary::get().cudnnDestroyTensorDescriptor(raw); });
    const std::vector<int> extents = narrow(shape.extents), strides = narrow(shape.strides);
    check(OperationLibrary::get().cudnnSetTensorNdDescriptor(made, data_type(tensor.dtype), static_cast<int>(extents.size()), extents.data(), strides.data()),
          "cudnnSetTensorNdDescriptor");
  }

  // Axis 1 is cuDNN's own, of at most 5 dimensions. Any other axis of a compact tensor, and all of more dimensions, is that of (all before
  // it, the axis, all behind it).
  static Shape soft_shape(const DLTensor& tensor, const Description& d) {
    int64_t axis = d.integer("axis");
    const bool last = axis == 1 && d.text("layout") == "NHWC" && d.text("mode") == "channel";
    if (axis == 1 && tensor.ndim <= 5) return Shape(tensor, d.text("layout") == "NHWC");
    if (last) axis = tensor.ndim - 1;
    if (axis < 0 || axis >= tensor.ndim) CONVC_THROW(ValueError) << "axis must be in [0, " << tensor.ndim << "); got " << axis << ".";
    int64_t size = 1;
    std::vector<int64_t> merged = {1, tensor.shape[axis], 1};
    for (int i = tensor.ndim - 1; i >= 0; --i) {
      if (tensor.strides && tensor.shape[i] > 1 && tensor.strides[i] != size) {
        CONVC_THROW(ValueError) << "softmax over axis " << axis << " must have a tensor without gaps; got strides that are not its shape's.";
      }
      size *= tensor.shape[i];
      if (i != axis) merged[i < axis ? 0 : 2] *= tensor.shape[i];
    }
    DLTensor plain = tensor;
    plain.ndim = 3, plain.shape = merged.data(), plain.strides = nullptr;
    return Shape(plain, false);
  }

  void pool(const Description& d) {
    const int mode = chosen("mode", d.text("mode"),
                            {{"max", POOLING_MAX}, {"average", POOLING_AVERAGE_COUNT_INCLUDE_PADDING},
                             {"average_exclude_padding", POOLING_AVERAGE_COUNT_EXCLUDE_PADDING}, {"max_deterministic", POOLING_MAX_DETERMINISTIC}});
    const std::vector<int> window = narrow(raised(d.integers("window"), 1)), pads = narrow(raised(d.integers("pads"), 0)),
                           strides = narrow(raised(d.integers("strides"), 1));
    void* made = nullptr;
    check(OperationLibrary::get().cudnnCreatePoolingDescriptor(&made), "cudnnCreatePoolingDescriptor");
    descriptor_ = Owned(made, [](void* raw) { OperationLibrary::get().cudnnDestroyPoolingDescriptor(raw); });
    check(OperationLibrary::get().cudnnSetPoolingNdDescriptor(made, mode, PROPAGATE_NAN, static_cast<int>(window.size()), window.data(), pads.data(), strides.data()),
          "cudnnSetPoolingNdDescriptor");
  }

  void soften(const Description& d) {
    algorithm_ = chosen("algorithm", d.text("algorithm"), {{"accurate", SOFTMAX_ACCURATE}, {"log", SOFTMAX_LOG}, {"fast", SOFTMAX_FAST}});
    mode_ = chosen("mode", d.text("mode"), {{"instance", SOFTMAX_MODE_INSTANCE}, {"channel", SOFTMAX_MODE_CHANNEL}});
  }

  std::string kind_;
  bool pooling_ = false, wide_ = false;
  size_t rank_ = 4;  // of the tensors, as cuDNN is told
  std::vector<size_t> order_;  // which argument stands for each of cuDNN's, where there are fewer
  double alpha_ = 1, beta_ = 0;
  float alpha_float_ = 1, beta_float_ = 0;
  std::vector<Owned> of_;  // the tensors' descriptors
  Owned descriptor_{nullptr, [](void*) {}};
  int algorithm_ = 0, mode_ = 0;
};

}  // namespace convc_cudnn
