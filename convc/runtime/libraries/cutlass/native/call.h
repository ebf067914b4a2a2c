// One convolution as a kernel of CUTLASS is given it by the shim. A kernel is a C function, so that the shim, which g++ compiles in
// seconds, and the kernels, which nvcc compiles in up to a minute each, know nothing more of each other; a test puts its own in their place.
#pragma once
#include <cstdint>

extern "C" {

// Everything is dense, channels last; channels are whole eights. Spatial axes, 2 or 3 of them, fill the arrays from the front.
struct ConvcCutlassCall {
  int32_t rank;
  int32_t samples, channels, filters;
  int32_t data[3], taps[3], result[3];
  int32_t lower[3], upper[3], strides[3], dilations[3];
  const void* x;         // (samples, data..., channels)
  const void* w;         // (filters, taps..., channels)
  const void* bias;      // (filters,), or null
  const void* residual;  // like y, added to the sums, or null
  void* y;               // (samples, result..., filters); of a sum in parts (slices, samples, result..., filters), in float32
  float low, high;       // what y is bounded by, infinite where it is not
  int32_t slices;        // parts of the sum, which another kernel adds up: above 1 there is no bias, residual or bound
  int32_t device;
  void* stream;
};

// Launches, and returns null or what went wrong.
using ConvcCutlassKernel = const char*(const ConvcCutlassCall* call);

// A module's kernels by their names, as its calls have them; the last is null.
struct ConvcCutlassEntry {
  const char* name;
  ConvcCutlassKernel* kernel;
};
extern __attribute__((visibility("hidden"))) const ConvcCutlassEntry convc_cutlass_kernels[];
}
