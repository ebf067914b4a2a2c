// CUTLASS's convolution for Hopper: TMA copies patches of the image as im2col would lay them out, wgmma multiplies them.
#pragma once
#include <type_traits>

#include "hopper.h"
#include "cutlass/conv/convolution.h"
#include "cutlass/conv/dispatch_policy.hpp"
#include "cutlass/conv/collective/collective_builder.hpp"
#include "cutlass/conv/kernel/conv_universal.hpp"
#include "cutlass/conv/device/conv_universal_adapter.hpp"

namespace convc_cutlass {

// A convolution of 2 or 3 spatial axes. M: points of the result, N: filters, K: channels of one tap.
template <int Rank, class Element, class Bias, int M, int N, int K, int ClusterM>
struct HopperConvolution {
  using Layout = std::conditional_t<Rank == 2, cutlass::layout::TensorNHWC, cutlass::layout::TensorNDHWC>;
  using Cluster = cute::Shape<cute::Int<ClusterM>, cute::_1, cute::_1>;
  using Ending = Epilogue<Element, Bias, Layout, cute::Shape<cute::Int<M>, cute::Int<N>, cute::Int<K>>, Cluster, cutlass::epilogue::TmaWarpSpecialized>;
  using Main = typename cutlass::conv::collective::CollectiveBuilder<
      Sm90, TensorOp, cutlass::conv::Operator::kFprop, Element, Layout, EIGHT, Element, Layout, EIGHT, float, cute::Shape<cute::Int<M>, cute::Int<N>, cute::Shape<cute::Int<K>>>, Cluster,
      cutlass::conv::collective::StageCountAutoCarveout<static_cast<int>(sizeof(typename Ending::SharedStorage))>,
      cutlass::conv::KernelImplicitTmaWarpSpecializedSm90>::CollectiveOp;
  using Problem = cutlass::conv::ConvProblemShape<cutlass::conv::Operator::kFprop, Rank>;
  using Kernel = cutlass::conv::kernel::ConvUniversal<Problem, Main, Ending>;
  using Device = cutlass::conv::device::ConvUniversalAdapter<Kernel>;

  static const char* run(const ConvcCutlassCall& call) {
    typename Problem::TensorExtent data, weight;
    typename Problem::SpatialExtent lower, upper, strides, dilations;
    data[0] = call.samples;
    weight[0] = call.filters;
    data[Rank + 1] = weight[Rank + 1] = call.channels;
    for (int axis = 0; axis < Rank; ++axis) {
      data[axis + 1] = call.data[axis];
      weight[axis + 1] = call.taps[axis];
      lower[axis] = call.lower[axis];
      upper[axis] = call.upper[axis];
      strides[axis] = call.strides[axis];
      dilations[axis] = call.dilations[axis];
    }
    const Problem problem(cutlass::conv::Mode::kCrossCorrelation, data, weight, lower, upper, strides, dilations, 1);
    typename Kernel::StrideD stride{};
    cute::for_each(cute::make_seq<Rank + 1>{}, [&](auto i) { cute::get<0, i>(stride) = problem.stride_C[Rank - i]; });
    typename Device::Arguments arguments{problem, {static_cast<const Element*>(call.x), static_cast<const Element*>(call.w)}, {}, {}};
    fill<Bias>(arguments.epilogue.thread, call);
    // A descriptor of the residual is made in any case.
    arguments.epilogue.ptr_C = static_cast<const Element*>(call.residual ? call.residual : call.y);
    arguments.epilogue.dC = stride;
    arguments.epilogue.ptr_D = static_cast<Element*>(call.y);
    arguments.epilogue.dD = stride;
    return launch<Device>(arguments, call);
  }
};

}  // namespace convc_cutlass
