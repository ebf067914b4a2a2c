// A double of CUTLASS's kernels: the same C functions, computed on the CPU, in the order and with the one rounding that the real ones have.
// Memory of the emulated device is the host's. It refuses what the templates of the kernel's form refuse (CUTLASS's can_implement, the
// driver's cuTensorMapEncodeIm2col), and tells every call.
#pragma once
#include <dlfcn.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "call.h"

namespace cutlass_double {

inline float wide_half(uint16_t bits) {
  _Float16 value;
  memcpy(&value, &bits, 2);
  return value;
}
inline uint16_t narrow_half(float value) {
  const _Float16 half = static_cast<_Float16>(value);
  uint16_t bits;
  memcpy(&bits, &half, 2);
  return bits;
}
inline float wide_bfloat(uint16_t bits) {
  const uint32_t whole = uint32_t(bits) << 16;
  float value;
  memcpy(&value, &whole, 4);
  return value;
}
inline uint16_t narrow_bfloat(float value) {
  uint32_t whole;
  memcpy(&whole, &value, 4);
  if (std::isnan(value)) return uint16_t(whole >> 16) | 0x40;
  return uint16_t((whole + 0x7FFF + ((whole >> 16) & 1)) >> 16);
}

// What the kernel of a module was compiled as.
struct Kernel {
  const char* name;
  const char* form;
  int rank;
  bool bfloat, wide_bias, sums;
};

inline std::string& story() {
  static std::string words;
  return words;
}

inline const char* refused(const Kernel& kernel, const ConvcCutlassCall& c) {
  const std::string form = kernel.form;
  const bool product = form == "hopper_cooperative" || form == "hopper_pingpong";
  if (c.channels % 8 || c.filters % 8) return "channels must be whole eights";
  if (kernel.sums != (c.slices > 1)) return "the kernel is of another kind";
  if (kernel.sums && (c.bias || c.residual || c.low > -INFINITY || c.high < INFINITY)) return "parts of sums have no epilogue";
  if (kernel.sums && product && c.channels % (8 * c.slices)) return "parts of a product must be whole eights of channels";
  if (!product && kernel.rank != c.rank) return "the kernel is of another rank";
  for (int a = 0; a < c.rank; ++a) {
    const int span = (c.taps[a] - 1) * c.dilations[a], corner = 1 << (16 / c.rank - 1);
    if (c.lower[a] < 0 || c.upper[a] < 0) return "pads must not be negative";
    if (product && (c.taps[a] != 1 || c.strides[a] != 1 || c.lower[a] || c.upper[a])) return "not a matrix product";
    if (form == "ampere" && c.taps[a] > 32) return "more than 32 taps";
    if (form == "hopper" && (c.strides[a] > 8 || span >= (1 << 16 / c.rank) - 1 || c.lower[a] > corner || c.upper[a] - span < -corner || c.upper[a] - span >= corner)) return "out of TMA's reach";
  }
  for (const void* p : {c.x, c.w, static_cast<const void*>(c.y), c.residual})
    if (reinterpret_cast<uintptr_t>(p) % 16) return "an operand is not aligned";
  return nullptr;
}

// While it exists, the host may read and write what stands for device memory.
struct Opened {
  void (*open)(int) = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "cuda_emulation_open_memory"));
  Opened() {
    if (open) open(1);
  }
  ~Opened() {
    if (open) open(0);
  }
};

inline const char* run(const Kernel& kernel, const ConvcCutlassCall& c) {
  const Opened opened;
  if (!opened.open) return "the double runs on the emulated device only";
  story() += std::string(kernel.name) + (c.bias ? " bias" : "") + (c.residual ? " residual" : "") + (c.slices > 1 ? " in " + std::to_string(c.slices) : "") + "\n";
  if (const char* why = refused(kernel, c)) return why;
  const auto wide = kernel.bfloat ? wide_bfloat : wide_half;
  const auto narrow = kernel.bfloat ? narrow_bfloat : narrow_half;
  const auto* x = static_cast<const uint16_t*>(c.x);
  const auto* w = static_cast<const uint16_t*>(c.w);
  const auto* residual = static_cast<const uint16_t*>(c.residual);
  auto* y = static_cast<uint16_t*>(c.y);
  auto* parts = static_cast<float*>(c.y);
  // Axes that there are not have one point.
  int data[3], taps[3], result[3], lower[3], strides[3], dilations[3];
  for (int a = 0; a < 3; ++a) {
    const bool is = a < c.rank;
    data[a] = is ? c.data[a] : 1, taps[a] = is ? c.taps[a] : 1, result[a] = is ? c.result[a] : 1;
    lower[a] = is ? c.lower[a] : 0, strides[a] = is ? c.strides[a] : 1, dilations[a] = is ? c.dilations[a] : 1;
  }
  size_t at = 0;
  // A slice's channels: whole steps of 8, by turns.
  for (int slice = 0; slice < c.slices; ++slice)
  for (int n = 0; n < c.samples; ++n)
    for (int i = 0; i < result[0]; ++i)
      for (int j = 0; j < result[1]; ++j)
        for (int l = 0; l < result[2]; ++l)
          for (int k = 0; k < c.filters; ++k, ++at) {
            float sum = 0;
            for (int r = 0; r < taps[0]; ++r)
              for (int s = 0; s < taps[1]; ++s)
                for (int t = 0; t < taps[2]; ++t) {
                  const int p[3] = {i * strides[0] - lower[0] + r * dilations[0], j * strides[1] - lower[1] + s * dilations[1], l * strides[2] - lower[2] + t * dilations[2]};
                  if (p[0] < 0 || p[1] < 0 || p[2] < 0 || p[0] >= data[0] || p[1] >= data[1] || p[2] >= data[2]) continue;
                  const uint16_t* point = x + (((size_t(n) * data[0] + p[0]) * data[1] + p[1]) * data[2] + p[2]) * c.channels;
                  const uint16_t* filter = w + (((size_t(k) * taps[0] + r) * taps[1] + s) * taps[2] + t) * c.channels;
                  for (int channel = 0; channel < c.channels; ++channel)
                    if (channel / 8 % c.slices == slice) sum += wide(point[channel]) * wide(filter[channel]);
                }
            if (kernel.sums) {
              parts[at] = sum;
              continue;
            }
            if (c.bias) sum += kernel.wide_bias ? static_cast<const float*>(c.bias)[k] : wide(static_cast<const uint16_t*>(c.bias)[k]);
            if (residual) sum += wide(residual[at]);
            if (!std::isnan(sum)) sum = std::fmin(std::fmax(sum, c.low), c.high);
            y[at] = narrow(sum);
          }
  return nullptr;
}

}  // namespace cutlass_double

extern "C" __attribute__((visibility("default"))) const char* cutlass_double_story() {
  static std::string told;
  told = cutlass_double::story();
  cutlass_double::story().clear();
  return told.c_str();
}
