// A tensor's extents and strides in cuDNN's order, (N, C, spatial...), whichever order its memory has.
#pragma once
#include <algorithm>
#include <numeric>
#include <vector>

#include "../../native/host.h"
#include "library.h"

namespace convc_cudnn {

// cuDNN's data type of an element; anything else is refused at compile time (convc/schedules/cuda/cudnn.py) and here once more.
inline Value data_type(DLDataType type) {
  if (type.lanes == 1 && type.code == kDLFloat) {
    if (type.bits == 32) return DATA_FLOAT;
    if (type.bits == 16) return DATA_HALF;
    if (type.bits == 64) return DATA_DOUBLE;
  }
  if (type.lanes == 1 && type.code == kDLBfloat && type.bits == 16) return DATA_BFLOAT16;
  CONVC_THROW(TypeError) << "cuDNN must be given float16, bfloat16, float32 or float64; got type code " << int(type.code) << " of "
                           << int(type.bits) << " bits.";
}

struct Shape {
  std::vector<int64_t> extents, strides;

  // `spatial`: how many spatial axes there are, where an image may be one block of all its channels, (N, 1, spatial..., C).
  Shape(const DLTensor& tensor, bool channels_last, int spatial = 0) {
    const int rank = tensor.ndim;
    std::vector<int64_t> own(rank, 1);
    if (tensor.strides) own.assign(tensor.strides, tensor.strides + rank);
    for (int axis = rank - 2; !tensor.strides && axis >= 0; --axis) own[axis] = own[axis + 1] * tensor.shape[axis + 1];
    std::vector<int> order(rank);
    std::iota(order.begin(), order.end(), 0);
    if (channels_last && spatial && rank == spatial + 3 && tensor.shape[1] == 1) order.erase(order.begin() + 1);
    if (channels_last && order.size() > 2) std::rotate(order.begin() + 1, order.end() - 1, order.end());
    for (int axis : order) {
      extents.push_back(tensor.shape[axis]);
      strides.push_back(own[axis]);
    }
    // cuDNN has nothing of one spatial dimension: an image of height 1 is one.
    if (extents.size() == 3) {
      extents.insert(extents.begin() + 2, 1);
      strides.insert(strides.begin() + 2, strides[2] * extents[3]);
    }
  }
};

// In front, what one spatial dimension leaves out.
inline std::vector<int64_t> raised(std::vector<int64_t> values, int64_t missing) {
  if (values.size() == 1) values.insert(values.begin(), missing);
  return values;
}

}  // namespace convc_cudnn
