// The kernels inside a module's host code: their names, how they are launched, and their machine code.
//
// TVM puts one block into the host code, `__tvm_ffi__library_bin`. All numbers are little-endian, 8 bytes where nothing else is said;
// texts begin with their length:
//
//   size of the rest; two lists of numbers (the tree of modules); "_lib"; "cuda"; size of the module; the module:
//     "cubin"; number of kernels; for each: its name, its name, argument types (number, 4 bytes each: DLDataType), launch tags (number,
//     texts), extra tags (number, 4 bytes each); machine code (text: a fat binary)
//
// SOURCE  tvm/runtime/metadata.h 0.27 (FunctionInfo), tvm/ffi/extra/module.h 0.1; written by convc/schedules/cuda/compiler.py (embed).
#ifndef CONVC_KERNELS_H_
#define CONVC_KERNELS_H_

#include "abi.h"
#include "error.h"
#include "memory.h"

namespace convc {

struct Kernel {
  Text name;
  List<DLDataType> arguments;
  // What the numbers behind the arguments are, in order: grid[0..2], block[0..2].
  List<int> extents;
  bool dynamic_shared = false;  // one more number: bytes of shared memory
  bool early = false;           // a programmatic dependent launch
};

struct Kernels {
  List<Kernel> all;
  const unsigned char *code = nullptr;  // the fat binary
};

constexpr size_t kMaxKernelArguments = 128;

// Read the block at `data`, NULL for a module without kernels.
convc_status parse_kernels(const unsigned char *data, Bump &bump, Kernels &kernels);

}  // namespace convc
#endif  // CONVC_KERNELS_H_
