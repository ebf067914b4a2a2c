// A sum in parts by TMA and wgmma, of one tap: a stack of matrix products, each of its share of the channels, whose results lie in float32
// one behind the other. What adds them up is not CUTLASS's.
#pragma once
#include "hopper_product.h"

namespace convc_cutlass {

template <class Element, int M, int N, int K, int ClusterM, class Schedule>
struct HopperSums {
  static constexpr int FOUR = 4;  // float32 in 16 bytes
  using Row = cutlass::layout::RowMajor;
  using Tile = cute::Shape<cute::Int<M>, cute::Int<N>, cute::Int<K>>;
  using Cluster = cute::Shape<cute::Int<ClusterM>, cute::_1, cute::_1>;
  using Ending = typename cutlass::epilogue::collective::CollectiveBuilder<Sm90, TensorOp, Tile, Cluster, cutlass::epilogue::collective::EpilogueTileAuto, float, float, void, Row, FOUR, float, Row, FOUR,
                                                                            typename Schedule::Ending>::CollectiveOp;
  using Main = typename cutlass::gemm::collective::CollectiveBuilder<
      Sm90, TensorOp, Element, Row, EIGHT, Element, cutlass::layout::ColumnMajor, EIGHT, float, Tile, Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(sizeof(typename Ending::SharedStorage))>, typename Schedule::Kernel>::CollectiveOp;
  using Kernel = cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Main, Ending>;
  using Device = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;

  static const char* run(const ConvcCutlassCall& call) {
    int m = 0;
    if (const char* problem = points_of(call, m)) return problem;
    const int n = call.filters, k = call.channels, slices = call.slices, part = k / slices;
    if (k % (slices * EIGHT)) return "parts of a sum must be whole eights of channels";
    // A part begins so many channels behind the one before, in the same rows.
    typename Device::Arguments arguments{cutlass::gemm::GemmUniversalMode::kGemm, {m, n, part, slices},
                                         {static_cast<const Element*>(call.x), {k, cute::_1{}, part}, static_cast<const Element*>(call.w), {k, cute::_1{}, part}},
                                         {{1.0f, 0.0f}, nullptr, {}, static_cast<float*>(call.y), {n, cute::_1{}, int64_t(m) * n}}};
    arguments.hw_info.device_id = call.device;
    arguments.hw_info.sm_count = cutlass::KernelHardwareInfo::query_device_multiprocessor_count(call.device);
    return launch<Device>(arguments, call);
  }
};

}  // namespace convc_cutlass
