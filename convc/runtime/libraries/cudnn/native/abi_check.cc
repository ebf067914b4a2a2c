// Compiled, never linked, where cuDNN 9's headers are: our numbers are its numbers, our functions take as many arguments as its.
#include <cudnn_graph.h>
#include <cudnn_ops.h>

#include "abi.h"

#define SAME(NAME, NUMBER) static_assert(static_cast<int>(CUDNN_##NAME) == NUMBER, #NAME);
CONVC_CUDNN_VALUES(SAME)
static_assert(sizeof(cudnnHandle_t) == sizeof(convc_cudnn::Handle));
static_assert(sizeof(cudnnBackendDescriptor_t) == sizeof(convc_cudnn::RawDescriptor));
static_assert(sizeof(cudnnStatus_t) == sizeof(convc_cudnn::Status));
static_assert(sizeof(cudnnBackendAttributeName_t) == sizeof(int) && sizeof(cudnnBackendAttributeType_t) == sizeof(int));
static_assert(sizeof(cudnnDataType_t) == sizeof(int) && sizeof(cudnnBackendHeurMode_t) == sizeof(int));

// Pointers of ours are void*, where cuDNN has types of its own; enumerations are int.
#include "operation.h"
template <class... Ours, class... Theirs>
constexpr bool same_sizes(convc_cudnn::Status (*)(Ours...), cudnnStatus_t (*)(Theirs...)) {
  if constexpr (sizeof...(Ours) != sizeof...(Theirs)) return false;
  else return ((sizeof(Ours) == sizeof(Theirs) && std::is_pointer_v<Ours> == std::is_pointer_v<Theirs>) && ...);
}
#define ALIKE(NAME, PARAMETERS) static_assert(same_sizes(decltype(convc_cudnn::OperationLibrary::NAME)(nullptr), decltype(&::NAME)(nullptr)), #NAME);
CONVC_CUDNN_OPERATIONS(ALIKE)
