// What stands behind the handles of convc.h.
#ifndef CONVC_MODULE_H_
#define CONVC_MODULE_H_

#include <atomic>

#include "abi.h"
#include "device.h"
#include "file.h"
#include "manifest.h"
#include "memory.h"
#include "pool.h"

// Shared by its handle and its contexts; goes with the last of them.
struct convc_module {
  std::atomic<int> owners{1};
  convc::ModuleFile file;
  convc::Bump bump;
  char *manifest_text = nullptr;  // taken apart by the parser
  const char *manifest_json = nullptr;
  size_t manifest_size = 0;
  convc::Manifest manifest;
  const convc::Variant *asked = nullptr;    // the one that the caller wants; NULL: the best
  const convc::Variant *variant = nullptr;  // the one in use; NULL if only looked at and none fits
  const unsigned char *weights = nullptr;
  void *library = nullptr;                      // dlopen's handle, or
  const convc_static_module *linked = nullptr;  // the code in this program
  // Of the variant in use, then of its smaller batch sizes.
  convc::List<convc::SafeCall> entries;
  convc::Device *device = nullptr;  // of a module for cuda, once it is loaded
  bool shares_library = false;      // one of the users of its cuDNN

  convc_module() = default;
  ~convc_module();

  // The address of a name in the module's code, or nullptr.
  void *find(const char *name) const;
  // The code of a kernel or the entry.
  convc::SafeCall function(const char *name) const;
};

struct convc_context {
  convc_module *module = nullptr;
  convc::Pool pool;
  convc::DeviceRun *device = nullptr;  // of a module for cuda, which has its arena there
  unsigned char *arena = nullptr;
  size_t arena_size = 0;
  size_t argument_count = 0;
  convc::DLTensor *tensors = nullptr;  // weights, arena, inputs, outputs
  convc::Any *arguments = nullptr;
  int64_t byte_shapes[2] = {};
  // With a symbolic batch, else NULL: the shapes of inputs and outputs for the size that runs, CONVC_MAX_RANK numbers each; the addresses
  // of a part's inputs and outputs; and memory for those that cannot be the caller's.
  int64_t *port_shapes = nullptr;
  void **part_buffers = nullptr;
  unsigned char *staging = nullptr;

  convc_context() = default;
  ~convc_context();
};

namespace convc {

// Check the caller's buffers, of so many samples where the batch is symbolic.
convc_status check_buffers(const convc_context *context, const void *const *inputs, size_t input_count, void *const *outputs,
                           size_t output_count, size_t samples);
// How many samples `convc_run` has.
size_t most_samples(const convc_context *context);
// Run the entry of a part between checked buffers.
convc_status run_part(convc_context *context, size_t part, const void *const *inputs, void *const *outputs);
// Check the buffers of a whole run, and put their addresses into the context's tensors.
convc_status bind(convc_context *context, const void *const *inputs, size_t input_count, void *const *outputs,
                  size_t output_count);

// Bytes of a tensor for so many samples.
inline size_t bytes_of(const Tensor &tensor, size_t samples) { return tensor.rows ? tensor.sample_bytes * samples : tensor.nbytes; }

// Take one more, or one less, owner.
convc_module *hold(convc_module *module);
void release(convc_module *module);

}  // namespace convc
#endif  // CONVC_MODULE_H_
