// CUTLASS's matrix product for Hopper, TMA and wgmma: a convolution of one tap. Apart from `hopper_convolution.h`, with which it does not
// compile: CUTLASS 4.2 has two meanings for the convolution's kernel where it sees the headers of products.
#pragma once
#include <limits>

#include "hopper.h"
#include "cutlass/gemm/dispatch_policy.hpp"
#include "cutlass/gemm/collective/collective_builder.hpp"
#include "cutlass/gemm/kernel/gemm_universal.hpp"
#include "cutlass/gemm/device/gemm_universal_adapter.h"

namespace convc_cutlass {

struct Cooperative {
  using Kernel = cutlass::gemm::KernelTmaWarpSpecializedCooperative;
  using Ending = cutlass::epilogue::TmaWarpSpecializedCooperative;
};
struct Pingpong {
  using Kernel = cutlass::gemm::KernelTmaWarpSpecializedPingpong;
  using Ending = cutlass::epilogue::TmaWarpSpecialized;
};

// Puts the rows of a matrix product into m, the points of the result; returns why the call is none, or null.
inline const char* points_of(const ConvcCutlassCall& call, int& m) {
  int64_t points = call.samples;
  for (int axis = 0; axis < call.rank; ++axis) {
    if (call.taps[axis] != 1 || call.strides[axis] != 1 || call.lower[axis] || call.upper[axis]) return "a matrix product takes filters of one tap, stride 1, no pads";
    points *= call.data[axis];
  }
  if (points > std::numeric_limits<int32_t>::max()) return "a matrix product takes less than 2^31 points";
  m = static_cast<int>(points);
  return nullptr;
}

// A filter of one tap and stride 1 without pads: a matrix product of (points, channels) and (filters, channels).
template <class Element, class Bias, int M, int N, int K, int ClusterM, class Schedule>
struct HopperProduct {
  using Row = cutlass::layout::RowMajor;
  using Tile = cute::Shape<cute::Int<M>, cute::Int<N>, cute::Int<K>>;
  using Cluster = cute::Shape<cute::Int<ClusterM>, cute::_1, cute::_1>;
  using Ending = Epilogue<Element, Bias, Row, Tile, Cluster, typename Schedule::Ending>;
  using Main = typename cutlass::gemm::collective::CollectiveBuilder<
      Sm90, TensorOp, Element, Row, EIGHT, Element, cutlass::layout::ColumnMajor, EIGHT, float, Tile, Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(sizeof(typename Ending::SharedStorage))>, typename Schedule::Kernel>::CollectiveOp;
  using Kernel = cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Main, Ending>;
  using Device = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;

  static const char* run(const ConvcCutlassCall& call) {
    int m = 0;
    if (const char* problem = points_of(call, m)) return problem;
    const int n = call.filters, k = call.channels;
    typename Device::Arguments arguments{cutlass::gemm::GemmUniversalMode::kGemm, {m, n, k, 1},
                                         {static_cast<const Element*>(call.x), {k, cute::_1{}, 0}, static_cast<const Element*>(call.w), {k, cute::_1{}, 0}},
                                         {{}, static_cast<const Element*>(call.residual ? call.residual : call.y), {n, cute::_1{}, 0}, static_cast<Element*>(call.y), {n, cute::_1{}, 0}}};
    fill<Bias>(arguments.epilogue.thread, call);
    // Its blocks stay and take one tile after the other: as many as the device has multiprocessors.
    arguments.hw_info.device_id = call.device;
    arguments.hw_info.sm_count = cutlass::KernelHardwareInfo::query_device_multiprocessor_count(call.device);
    return launch<Device>(arguments, call);
  }
};

}  // namespace convc_cutlass
