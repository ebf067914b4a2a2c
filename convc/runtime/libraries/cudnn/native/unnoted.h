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
  bool half_split;  // it holds in half precision alone, and where the products may have a workspace
};
inline constexpr Unnoted UNNOTED[] = {
    // Winograd with its products by cuBLASLt, 3x3 and 5x5 with stride 1. An H200 with 9.19, 32 images of 256 channels at 14x14, float32: 3.4
    // times outside of a direct sum's bound, 0.02 off on whole numbers, 80 TFLOP/s where FMAs end at 51; and its workspace of 45 MiB is
    // exactly data, gradient and result in tiles of 6x6.
    {"weight_gradient", 17, NUMERICAL_NOTE_WINOGRAD, false},
    // 1x1 as one product by cuBLASLt. cuDNN leaves it to cuBLASLt whether a sum is split among blocks and the parts are added in the result's
    // type (it sets no CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK); knob 25 is the workspace that it grants: none, 4 MiB, 128 MiB, and
    // without one nothing is split. The same H200, float16, 2048 channels of one image, channels first: 42 times outside of the bound with
    // 4 and with 128 MiB, within it with none. Of the gradients not measured; theirs are asked for alike.
    {"forward", 58, NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION, true},
    {"data_gradient", 63, NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION, true},
    {"weight_gradient", 62, NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION, true},
    // Depthwise, its sum in so many parts (knobs 12 and 17): the first that heuristics offer. An H200 with 9.19, 144 channels of 32 images of
    // 56x56, float16: 12 off on whole numbers, 18 times outside of the bound; in float32 right and in bfloat16, for which it is not offered.
    // That it was this one is inferred: 9.24, asked without a device, offers it first in those two types alone.
    {"weight_gradient", 61, NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION, true},
};
inline const std::string NO_WORKSPACE = "25:0";  // such an engine's knobs, it has but one

// Adds to an engine's notes those that it lacks.
inline void complete(std::vector<int>& notes, const std::string& kind, int64_t engine, const std::string& knobs, bool half) {
  for (const Unnoted& known : UNNOTED)
    if (kind == known.kind && engine == known.engine && (!known.half_split || (half && knobs != NO_WORKSPACE))) notes.push_back(known.note);
}

}  // namespace convc_cudnn
