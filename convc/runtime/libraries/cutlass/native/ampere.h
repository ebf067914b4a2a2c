// CUTLASS's kernels by mma.sync and cp.async (sm_80 and all later devices): implicit GEMM, channels last; the epilogue adds bias and residual
// in float32, bounds and rounds once.
#pragma once
#include <type_traits>

#include "cutlass/cutlass.h"
#include "cutlass/functional.h"
#include "cutlass/numeric_conversion.h"
#include "cutlass/conv/kernel/default_conv2d_fprop_with_broadcast.h"
#include "cutlass/conv/kernel/default_conv3d_fprop_with_broadcast.h"
#include "cutlass/conv/device/implicit_gemm_convolution.h"
#include "cutlass/epilogue/thread/activation.h"

#include "call.h"
#include "launch.h"

namespace convc_cutlass {

// y = clamp(sums + bias + residual), as CUTLASS's epilogues with a broadcast vector call it.
template <class Element, class Bias, int Count>
struct Bounded {
  using ElementOutput = Element;
  using ElementC = Element;
  using ElementZ = Element;
  using ElementT = Element;
  using ElementAccumulator = float;
  using ElementCompute = float;
  using ElementVector = Bias;
  static int const kElementsPerAccess = Count;
  static int const kCount = Count;
  static bool const kIsSingleSource = true;
  static bool const kIsHeavy = false;
  static bool const kStoreZ = true;
  static bool const kStoreT = false;
  using Sums = cutlass::Array<float, Count>;
  using FragmentAccumulator = Sums;
  using FragmentCompute = Sums;
  using FragmentC = cutlass::Array<Element, Count>;
  using FragmentZ = FragmentC;
  using FragmentT = FragmentC;
  using FragmentOutput = FragmentC;

  struct Params {
    float low, high;
    bool residual;
  };

  Params params;

  CUTLASS_HOST_DEVICE Bounded(const Params& params) : params(params) {}
  CUTLASS_HOST_DEVICE bool is_source_needed() const { return params.residual; }
  CUTLASS_HOST_DEVICE void set_k_partition(int, int) {}

  CUTLASS_HOST_DEVICE void operator()(FragmentZ& z, FragmentT&, const Sums& sums, const Sums& bias) const {
    z = bounded(cutlass::plus<Sums>()(sums, bias));
  }
  CUTLASS_HOST_DEVICE void operator()(FragmentZ& z, FragmentT&, const Sums& sums, const FragmentC& residual, const Sums& bias) const {
    const Sums wide = cutlass::NumericArrayConverter<float, Element, Count>()(residual);
    z = bounded(cutlass::plus<Sums>()(cutlass::plus<Sums>()(sums, bias), wide));
  }

 private:
  CUTLASS_HOST_DEVICE FragmentZ bounded(const Sums& sums) const {
    return cutlass::NumericArrayConverter<Element, float, Count>()(cutlass::epilogue::thread::Clamp<Sums>()(sums, params.low, params.high));
  }
};

// A convolution of 2 or 3 spatial axes: its problem and tensors as CUTLASS has them.
template <int Rank, class Element>
struct AmpereGeometry {
  using Layout = std::conditional_t<Rank == 2, cutlass::layout::TensorNHWC, cutlass::layout::TensorNDHWC>;

  static auto problem(const ConvcCutlassCall& c) {
    const auto mode = cutlass::conv::Mode::kCrossCorrelation;
    // The pads behind the image are what the result's extents leave over.
    if constexpr (Rank == 2) {
      return cutlass::conv::Conv2dProblemSize(c.samples, c.data[0], c.data[1], c.channels, c.filters, c.taps[0], c.taps[1], c.result[0], c.result[1], c.lower[0], c.lower[1], c.strides[0], c.strides[1],
                                              c.dilations[0], c.dilations[1], mode, c.slices);
    } else {
      return cutlass::conv::Conv3dProblemSize(c.samples, c.data[0], c.data[1], c.data[2], c.channels, c.filters, c.taps[0], c.taps[1], c.taps[2], c.result[0], c.result[1], c.result[2], c.lower[0],
                                              c.lower[1], c.lower[2], c.strides[0], c.strides[1], c.strides[2], c.dilations[0], c.dilations[1], c.dilations[2], mode, c.slices);
    }
  }

  template <class Stored = Element>
  static auto reference(const void* memory, const int32_t (&space)[3], int32_t channels, int32_t samples) {
    auto* pointer = static_cast<Stored*>(const_cast<void*>(memory));
    if constexpr (Rank == 2) {
      return cutlass::TensorRef<Stored, Layout>(pointer, Layout::packed({samples, space[0], space[1], channels}));
    } else {
      return cutlass::TensorRef<Stored, Layout>(pointer, Layout::packed({samples, space[0], space[1], space[2], channels}));
    }
  }
};

// A block's tile: M points of the result, N filters, K channels of one tap.
template <int M, int N, int K>
struct AmpereTile {
  using Block = cutlass::gemm::GemmShape<M, N, K>;
  using Warp = cutlass::gemm::GemmShape<(M > 128 ? M / 4 : M / 2), N / 2, K>;
  using Instruction = cutlass::gemm::GemmShape<16, 8, 16>;
  using Swizzle = cutlass::gemm::threadblock::GemmIdentityThreadblockSwizzle<4>;
};

template <int Rank, class Element, class Bias, int M, int N, int K, int Stages>
struct AmpereConvolution {
  static constexpr int EIGHT = 8;  // elements of 16 bytes: one cp.async
  using Geometry = AmpereGeometry<Rank, Element>;
  using Layout = typename Geometry::Layout;
  using Tile = AmpereTile<M, N, K>;
  using Step = Bounded<Element, Bias, EIGHT>;

  template <template <class, class, class, class, class, class, class, class, class, class, class, class, class, class, int, class, cutlass::conv::IteratorAlgorithm, cutlass::conv::StrideSupport, int, int>
            class Default>
  using Made = typename Default<Element, Layout, Element, Layout, Element, Layout, float, cutlass::arch::OpClassTensorOp, cutlass::arch::Sm80, typename Tile::Block, typename Tile::Warp,
                                typename Tile::Instruction, Step, typename Tile::Swizzle, Stages, cutlass::arch::OpMultiplyAdd, cutlass::conv::IteratorAlgorithm::kOptimized,
                                cutlass::conv::StrideSupport::kStrided, EIGHT, EIGHT>::Kernel;

  static auto chosen() {
    if constexpr (Rank == 2) {
      return static_cast<Made<cutlass::conv::kernel::DefaultConv2dFpropWithBroadcast>*>(nullptr);
    } else {
      return static_cast<Made<cutlass::conv::kernel::DefaultConv3dFpropWithBroadcast>*>(nullptr);
    }
  }
  using Kernel = std::remove_pointer_t<decltype(chosen())>;
  using Device = cutlass::conv::device::ImplicitGemmConvolution<Kernel>;

  static const char* run(const ConvcCutlassCall& c) {
    const auto y = Geometry::reference(c.y, c.result, c.filters, c.samples);
    typename Device::Arguments arguments{Geometry::problem(c),
                                         Geometry::reference(c.x, c.data, c.channels, c.samples),
                                         Geometry::reference(c.w, c.taps, c.channels, c.filters),
                                         c.residual ? Geometry::reference(c.residual, c.result, c.filters, c.samples) : y,
                                         y,
                                         {c.low, c.high, c.residual != nullptr},
                                         cutlass::conv::SplitKMode::kSerial,
                                         const_cast<void*>(c.bias),
                                         nullptr,
                                         0,
                                         0};
    return launch<Device>(arguments, c);
  }
};

}  // namespace convc_cutlass
