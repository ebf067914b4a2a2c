// What CUTLASS's kernels for Hopper (sm_90a) share: an epilogue that adds bias and residual in float32, bounds and rounds once.
//
// A residual is part of every kernel: without one its factor is 0 and it is not read, at the price of some shared memory.
#pragma once
#include "cutlass/cutlass.h"
#include "cute/tensor.hpp"
// Before CUTLASS's own headers, which use what it declares and do not include it (4.1).
#include "cutlass/kernel_hardware_info.hpp"
#include "cutlass/tensor_ref.h"
#include "cutlass/epilogue/thread/activation.h"
#include "cutlass/epilogue/fusion/operations.hpp"
#include "cutlass/epilogue/collective/collective_builder.hpp"

#include "call.h"
#include "launch.h"

namespace convc_cutlass {

using Sm90 = cutlass::arch::Sm90;
using TensorOp = cutlass::arch::OpClassTensorOp;
constexpr int EIGHT = 8;  // elements of 16 bytes: what TMA takes at least

template <class Element, class Bias>
using Fusion = cutlass::epilogue::fusion::LinCombPerColBiasEltAct<cutlass::epilogue::thread::Clamp, Element, float, Bias, Element, float>;

template <class Element, class Bias, class Layout, class Tile, class Cluster, class Schedule>
using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<Sm90, TensorOp, Tile, Cluster, cutlass::epilogue::collective::EpilogueTileAuto, float, float,
                                                                            Element, Layout, EIGHT, Element, Layout, EIGHT, Schedule, Fusion<Element, Bias>>::CollectiveOp;

template <class Bias, class Arguments>
void fill(Arguments& thread, const ConvcCutlassCall& call) {
  thread.alpha = 1.0f;
  thread.beta = call.residual ? 1.0f : 0.0f;
  thread.bias_ptr = static_cast<const Bias*>(call.bias);
  thread.activation.lower_bound = call.low;
  thread.activation.upper_bound = call.high;
}

}  // namespace convc_cutlass
