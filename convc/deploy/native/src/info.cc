// What a module is: everything that can be asked of it without running it.
#include "module.h"

namespace {

convc_status info_of(const convc_module *module, const char *kind, bool inputs, size_t index, convc_tensor_info *info) {
  if (!module || !info) return convc::fail(CONVC_ERROR_ARGUMENT, "module and info must not be NULL; got NULL.");
  const auto &tensors = inputs ? module->manifest.inputs : module->manifest.outputs;
  if (index >= tensors.size) return convc::fail(CONVC_ERROR_ARGUMENT, "%s must be below %zu; got %zu.", kind, tensors.size, index);
  const convc::Tensor &t = tensors[index];
  *info = {t.name.data, t.dtype.data, static_cast<int32_t>(t.shape.size), t.shape.data, t.nbytes};
  return CONVC_OK;
}

size_t sum(const convc::List<convc::Tensor> &tensors) {
  size_t total = 0;
  for (const convc::Tensor &t : tensors) total += t.nbytes;
  return total;
}

// The variant in use; if none can be, the one asked for, or the first.
const convc::Variant &shown(const convc_module *module) {
  if (module->variant) return *module->variant;
  return module->asked ? *module->asked : module->manifest.variants[0];
}

}  // namespace

extern "C" {

size_t convc_input_count(const convc_module *module) { return module ? module->manifest.inputs.size : 0; }
size_t convc_output_count(const convc_module *module) { return module ? module->manifest.outputs.size : 0; }

convc_status convc_input_info(const convc_module *module, size_t index, convc_tensor_info *info) {
  return info_of(module, "input", true, index, info);
}

convc_status convc_output_info(const convc_module *module, size_t index, convc_tensor_info *info) {
  return info_of(module, "output", false, index, info);
}

const char *convc_module_name(const convc_module *module) { return module ? module->manifest.name.data : ""; }
const char *convc_module_cpu(const convc_module *module) { return module ? shown(module).mcpu.data : ""; }

const char *convc_module_device(const convc_module *module) { return module && module->device ? module->device->description() : ""; }

const char *convc_module_manifest(const convc_module *module, size_t *size) {
  if (size) *size = module ? module->manifest_size : 0;
  return module ? module->manifest_json : "";
}

convc_status convc_module_memory(const convc_module *module, convc_memory *memory) {
  if (!module || !memory) return convc::fail(CONVC_ERROR_ARGUMENT, "module and memory must not be NULL; got NULL.");
  const convc::Variant &variant = shown(module);
  *memory = {convc::buffer_bytes(module->manifest.weights_bytes), convc::buffer_bytes(convc::most_arena_bytes(variant)),
             static_cast<size_t>(convc::most_workspace_bytes(variant)), sum(module->manifest.inputs), sum(module->manifest.outputs)};
  return CONVC_OK;
}

size_t convc_step_count(const convc_module *module) { return module ? shown(module).steps.size : 0; }

convc_status convc_step_info_at(const convc_module *module, size_t index, convc_step_info *info) {
  if (!module || !info) return convc::fail(CONVC_ERROR_ARGUMENT, "module and info must not be NULL; got NULL.");
  const auto &steps = shown(module).steps;
  if (index >= steps.size) return convc::fail(CONVC_ERROR_ARGUMENT, "step must be below %zu; got %zu.", steps.size, index);
  const convc::Step &s = steps[index];
  *info = {s.node.data, s.op.data, s.algorithm.data, s.flops, s.nbytes};
  return CONVC_OK;
}

}  // extern "C"
