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
  convc::SafeCall entry = nullptr;
  convc::Device *device = nullptr;  // of a module for cuda, once it is loaded

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

  convc_context() = default;
  ~convc_context();
};

namespace convc {

// Check the caller's buffers.
convc_status check_buffers(const convc_context *context, const void *const *inputs, size_t input_count, void *const *outputs,
                           size_t output_count);
// The same, and put their addresses into the context's tensors.
convc_status bind(convc_context *context, const void *const *inputs, size_t input_count, void *const *outputs,
                  size_t output_count);

// Take one more, or one less, owner.
convc_module *hold(convc_module *module);
void release(convc_module *module);

}  // namespace convc
#endif  // CONVC_MODULE_H_
