// What cuDNN does not note of its engines. Their numbers mean the same in 9.19 and 9.28, both asked without a device about an H200 with a
// stand-in for cuBLASLt that answers; without cuBLASLt none of these is offered.
#pragma once
#include <string>
#include <vector>

#include "abi.h"

namespace convc_cudnn {

struct Unnoted {
  const char* kind;
  int64_t engine;
  Value note;
  bool half_only;  // whether it holds of half precision alone
};
inline constexpr Unnoted UNNOTED[] = {
    // Winograd with its products by cuBLASLt, 3x3 and 5x5 with stride 1. An H200 with 9.19, 32 images of 256 channels at 14x14, float32: 3.4
    // times outside of a direct sum's bound, 0.02 off on whole numbers, 80 TFLOP/s where FMAs end at 51; and its workspace of 45 MiB is
    // exactly data, gradient and result in tiles of 6x6.
    {"weight_gradient", 17, NUMERICAL_NOTE_WINOGRAD, false},
    // 1x1 as one product by cuBLASLt, which may split a sum among blocks and add the parts in the result's type. The same H200, float16,
    // 2048 channels of one image channels first: 42 times outside of the bound, though within it with 32 images, whose sums need not be
    // split. What cuBLASLt does depends on the shape and its version. Of the gradients not measured; theirs is the same product.
    {"forward", 58, NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION, true},
    {"data_gradient", 63, NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION, true},
    {"weight_gradient", 62, NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION, true},
};

// Adds to an engine's notes those that it lacks.
inline void complete(std::vector<int>& notes, const std::string& kind, int64_t engine, bool half) {
  for (const Unnoted& known : UNNOTED)
    if (kind == known.kind && engine == known.engine && (half || !known.half_only)) notes.push_back(known.note);
}

}  // namespace convc_cudnn
