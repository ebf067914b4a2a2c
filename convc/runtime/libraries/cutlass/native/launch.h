// How every template's adapter is asked whether it takes the arguments, and started.
#pragma once
#include "cutlass/cutlass.h"

#include "call.h"

namespace convc_cutlass {

template <class Device>
const char* launch(typename Device::Arguments& arguments, const ConvcCutlassCall& call) {
  const auto stream = static_cast<cudaStream_t>(call.stream);
  Device device;
  cutlass::Status status = Device::can_implement(arguments);
  // No kernel here asks for scratch memory: none splits a sum.
  if (status == cutlass::Status::kSuccess) status = device.initialize(arguments, nullptr, stream);
  if (status == cutlass::Status::kSuccess) status = device.run(stream);
  return status == cutlass::Status::kSuccess ? nullptr : cutlass::cutlassGetStatusString(status);
}

}  // namespace convc_cutlass
