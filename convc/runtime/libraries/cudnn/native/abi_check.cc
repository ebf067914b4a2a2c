// Compiled, never linked, where cuDNN 9's header is: our numbers are its numbers.
#include <cudnn_graph.h>

#include "abi.h"

#define SAME(NAME, NUMBER) static_assert(static_cast<int>(CUDNN_##NAME) == NUMBER, #NAME);
CONVC_CUDNN_VALUES(SAME)
static_assert(sizeof(cudnnHandle_t) == sizeof(convc_cudnn::Handle));
static_assert(sizeof(cudnnBackendDescriptor_t) == sizeof(convc_cudnn::RawDescriptor));
static_assert(sizeof(cudnnStatus_t) == sizeof(convc_cudnn::Status));
static_assert(sizeof(cudnnBackendAttributeName_t) == sizeof(int) && sizeof(cudnnBackendAttributeType_t) == sizeof(int));
static_assert(sizeof(cudnnDataType_t) == sizeof(int) && sizeof(cudnnBackendHeurMode_t) == sizeof(int));
