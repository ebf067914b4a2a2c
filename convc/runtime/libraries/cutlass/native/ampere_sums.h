// A sum in parts by mma.sync and cp.async: of every tap a slice has its share of the channels, in whole steps, and writes its sums in float32
// behind the others'. What adds them up is not CUTLASS's.
#pragma once
#include "ampere.h"
#include "cutlass/conv/kernel/default_conv2d_fprop.h"
#include "cutlass/conv/kernel/default_conv3d_fprop.h"
#include "cutlass/epilogue/thread/linear_combination.h"

namespace convc_cutlass {

template <int Rank, class Element, int M, int N, int K, int Stages>
struct AmpereSums {
  static constexpr int EIGHT = 8, FOUR = 4;  // elements of 16 bytes: read as half precision, written as float32
  using Geometry = AmpereGeometry<Rank, Element>;
  using Layout = typename Geometry::Layout;
  using Tile = AmpereTile<M, N, K>;
  using Step = cutlass::epilogue::thread::LinearCombination<float, FOUR, float, float, cutlass::epilogue::thread::ScaleType::Nothing>;

  using TensorOp = cutlass::arch::OpClassTensorOp;
  using Sum = cutlass::arch::OpMultiplyAdd;
  static constexpr auto OPTIMIZED = cutlass::conv::IteratorAlgorithm::kOptimized;
  static constexpr auto STRIDED = cutlass::conv::StrideSupport::kStrided;

  static auto chosen() {
    if constexpr (Rank == 2) {
      return static_cast<typename cutlass::conv::kernel::DefaultConv2dFprop<Element, Layout, Element, Layout, float, Layout, float, TensorOp, cutlass::arch::Sm80, typename Tile::Block, typename Tile::Warp,
                                                                            typename Tile::Instruction, Step, typename Tile::Swizzle, Stages, Sum, OPTIMIZED, STRIDED, EIGHT, EIGHT>::Kernel*>(nullptr);
    } else {
      // Its vectors are 16 bytes in any case.
      return static_cast<typename cutlass::conv::kernel::DefaultConv3dFprop<Element, Layout, Element, Layout, float, Layout, float, TensorOp, cutlass::arch::Sm80, typename Tile::Block, typename Tile::Warp,
                                                                            typename Tile::Instruction, Step, typename Tile::Swizzle, Stages, Sum, OPTIMIZED, STRIDED>::Kernel*>(nullptr);
    }
  }
  using Kernel = std::remove_pointer_t<decltype(chosen())>;
  using Device = cutlass::conv::device::ImplicitGemmConvolution<Kernel>;

  // Started by hand: the device adapter would fill all slices with zeros first, each of which is written whole.
  static const char* run(const ConvcCutlassCall& c) {
    const auto y = Geometry::template reference<float>(c.y, c.result, c.filters, c.samples);
    const typename Device::Arguments arguments{Geometry::problem(c),
                                               Geometry::reference(c.x, c.data, c.channels, c.samples),
                                               Geometry::reference(c.w, c.taps, c.channels, c.filters),
                                               y,
                                               y,
                                               {},
                                               cutlass::conv::SplitKMode::kParallel};
    const cutlass::Status status = Device::can_implement(arguments);
    if (status != cutlass::Status::kSuccess) return cutlass::cutlassGetStatusString(status);
    const typename Kernel::Params params(arguments, nullptr);
    const dim3 grid = typename Tile::Swizzle().get_grid_shape(params.grid_tiled_shape);
    constexpr int bytes = int(sizeof(typename Kernel::SharedStorage));
    cudaError_t problem = cudaSuccess;
    if (bytes >= (48 << 10)) problem = cudaFuncSetAttribute(cutlass::Kernel<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (problem == cudaSuccess) {
      cutlass::Kernel<Kernel><<<grid, 32 * Kernel::WarpCount::kCount, bytes, static_cast<cudaStream_t>(c.stream)>>>(params);
      problem = cudaGetLastError();
    }
    return problem == cudaSuccess ? nullptr : cudaGetErrorString(problem);
  }
};

}  // namespace convc_cutlass
