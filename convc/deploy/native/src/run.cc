// Contexts and runs. A run checks the buffers, stores their addresses and makes one call: no clock, no lock, no allocation.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <new>

#include "cpu.h"
#include "module.h"

namespace convc {
namespace {

constexpr size_t kHugePage = 2 << 20;

convc_status allocate_arena(convc_context &context) {
  void *arena = mmap(nullptr, context.arena_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (arena == MAP_FAILED) return fail(CONVC_ERROR_MEMORY, "memory must be enough for an arena of %zu bytes; got none (%s).", context.arena_size, strerror(errno));
  context.arena = static_cast<unsigned char *>(arena);
  // Fewer address translations; a kernel without huge pages is slower, not wrong.
  if (context.arena_size >= kHugePage) madvise(arena, context.arena_size, MADV_HUGEPAGE);
  return CONVC_OK;
}

convc_status allocate_on_device(convc_context &context) {
  void *memory = malloc(sizeof(DeviceRun));
  if (!memory) return fail(CONVC_ERROR_MEMORY, "memory must be enough for a context; got none.");
  context.device = new (memory) DeviceRun(*context.module->device);
  return context.device->allocate(context.module->manifest, *context.module->variant);
}

convc_status allocate(convc_context &context) {
  const convc_module &module = *context.module;
  context.arena_size = buffer_bytes(most_arena_bytes(*module.variant));
  if (convc_status bad = module.device ? allocate_on_device(context) : allocate_arena(context)) return bad;
  const size_t count = 2 + module.manifest.inputs.size + module.manifest.outputs.size;
  context.argument_count = count;
  context.tensors = static_cast<DLTensor *>(calloc(count, sizeof(DLTensor)));
  context.arguments = static_cast<Any *>(calloc(count, sizeof(Any)));
  if (module.manifest.batch()) {
    context.port_shapes = static_cast<int64_t *>(calloc(count, CONVC_MAX_RANK * sizeof(int64_t)));
    context.part_buffers = static_cast<void **>(calloc(count, sizeof(void *)));
    if (!context.port_shapes || !context.part_buffers) return fail(CONVC_ERROR_MEMORY, "memory must be enough for %zu arguments; got none.", count);
  }
  if (!context.tensors || !context.arguments) return fail(CONVC_ERROR_MEMORY, "memory must be enough for %zu arguments; got none.", count);
  return CONVC_OK;
}

// Everything in the arguments but the callers' addresses stays the same from run to run.
void prepare(convc_context &context) {
  const convc_module &module = *context.module;
  context.byte_shapes[0] = static_cast<int64_t>(buffer_bytes(module.manifest.weights_bytes));
  context.byte_shapes[1] = static_cast<int64_t>(context.arena_size);
  constexpr DLDataType kByte = {1, 8, 1};
  size_t next = 0;
  const auto add = [&](void *data, DLDataType element, const int64_t *shape, size_t rank) {
    context.tensors[next] = {data, module.device ? kDLCUDA : kDLCPU, 0, static_cast<int32_t>(rank), element, shape, nullptr, 0};
    context.arguments[next].type_index = kDLTensorPtr;
    context.arguments[next].v_ptr = &context.tensors[next];
    ++next;
  };
  // Kernels only read the weights; the mapping is read-only and would say so.
  add(module.device ? reinterpret_cast<void *>(module.device->weights()) : const_cast<unsigned char *>(module.weights), kByte, &context.byte_shapes[0], 1);
  add(module.device ? reinterpret_cast<void *>(context.device->arena()) : context.arena, kByte, &context.byte_shapes[1], 1);
  const auto add_port = [&](const Tensor &t) {
    int64_t *shape = t.shape.data;
    if (context.port_shapes && t.shape.size) {
      shape = context.port_shapes + (next - 2) * CONVC_MAX_RANK;
      memcpy(shape, t.shape.data, t.shape.size * sizeof *shape);
    }
    add(nullptr, t.element, shape, t.shape.size);
  };
  for (const Tensor &t : module.manifest.inputs) add_port(t);
  for (const Tensor &t : module.manifest.outputs) add_port(t);
}

convc_status check_buffer(const char *kind, const Tensor &tensor, const void *data, size_t samples) {
  if (!data) return fail(CONVC_ERROR_ARGUMENT, "%s '%s' must be a buffer of %zu bytes; got NULL.", kind, tensor.name.data, bytes_of(tensor, samples));
  const size_t beyond = reinterpret_cast<uintptr_t>(data) % kAlignment;
  if (beyond) {
    return fail(CONVC_ERROR_ARGUMENT, "%s '%s' must start at a multiple of %zu bytes; got %zu bytes behind one. Take the buffer from convc_alloc.", kind,
                tensor.name.data, kAlignment, beyond);
  }
  return CONVC_OK;
}

bool overlap(const void *a, size_t a_bytes, const void *b, size_t b_bytes) {
  const auto x = reinterpret_cast<uintptr_t>(a), y = reinterpret_cast<uintptr_t>(b);
  return x < y + b_bytes && y < x + a_bytes;
}

// Of each thread; for a module for cuda it is the device's.
size_t workspace_here(const convc_module &module) { return module.device ? 0 : static_cast<size_t>(most_workspace_bytes(*module.variant)); }

// Let the shapes be those of a part.
void use_part(convc_context &context, size_t part) {
  if (!context.port_shapes) return;
  const convc_module &module = *context.module;
  const Variant &largest = *module.variant;
  const int64_t batch = part ? largest.smaller[part - 1].batch : largest.batch;
  // The code for a device compares all of them.
  context.byte_shapes[1] = static_cast<int64_t>(buffer_bytes(part ? largest.smaller[part - 1].arena_bytes : largest.arena_bytes));
  int64_t *shape = context.port_shapes;
  const auto set = [&](const Tensor &t) {
    if (t.rows) *shape = t.rows * batch;
    shape += CONVC_MAX_RANK;
  };
  for (const Tensor &t : module.manifest.inputs) set(t);
  for (const Tensor &t : module.manifest.outputs) set(t);
}

// A library's plans are made and its kernels loaded now, and not by the first run.
convc_status warm_up(convc_context &context) {
  if (!context.device) return CONVC_OK;
  convc_status status = CONVC_OK;
  for (size_t part = 0; part < context.module->variant->parts() && !status; ++part) {
    if (!context.device->calls_library(part)) continue;
    use_part(context, part);
    status = context.device->warm_up(context, part);
  }
  use_part(context, 0);
  return status;
}

void place(convc_context *context, const void *const *inputs, size_t input_count, void *const *outputs, size_t output_count) {
  for (size_t i = 0; i < input_count; ++i) context->tensors[2 + i].data = const_cast<void *>(inputs[i]);
  for (size_t i = 0; i < output_count; ++i) context->tensors[2 + input_count + i].data = outputs[i];
}

convc_status check_threads(const convc_module &module, int threads, int &count) {
  if (module.device) {
    count = 1;
    if (threads == 0 || threads == 1) return CONVC_OK;
    return fail(CONVC_ERROR_ARGUMENT, "threads of a module for cuda must be 0 or 1, since the CPU only launches; got %d.", threads);
  }
  const int usable = usable_threads();
  count = threads ? threads : usable;
  if (count < 1 || count > usable) {
    return fail(CONVC_ERROR_ARGUMENT, "threads must be from 1 to the %d usable cores, or 0 for all of them; got %d.", usable, threads);
  }
  return CONVC_OK;
}

}  // namespace

convc_status check_buffers(const convc_context *context, const void *const *inputs, size_t input_count, void *const *outputs,
                           size_t output_count, size_t samples) {
  if (!context) return fail(CONVC_ERROR_ARGUMENT, "context must not be NULL; got NULL.");
  if (context->pool.orphaned()) {
    return fail(CONVC_ERROR_ARGUMENT, "context with %d threads must be used in the process that made it; got a forked child, which has none of its workers."
                " Call convc_set_threads, or make a context here.", context->pool.threads());
  }
  const Manifest &m = context->module->manifest;
  if (input_count != m.inputs.size || output_count != m.outputs.size || (input_count && !inputs) || (output_count && !outputs)) {
    return fail(CONVC_ERROR_ARGUMENT, "buffers must be %zu inputs and %zu outputs; got %zu and %zu.", m.inputs.size, m.outputs.size,
                inputs || !input_count ? input_count : 0, outputs || !output_count ? output_count : 0);
  }
  for (size_t i = 0; i < input_count; ++i) {
    if (convc_status bad = check_buffer("input", m.inputs[i], inputs[i], samples)) return bad;
  }
  for (size_t i = 0; i < output_count; ++i) {
    if (convc_status bad = check_buffer("output", m.outputs[i], outputs[i], samples)) return bad;
    for (size_t j = 0; j < input_count + i; ++j) {
      const Tensor &other = j < input_count ? m.inputs[j] : m.outputs[j - input_count];
      if (overlap(outputs[i], bytes_of(m.outputs[i], samples), j < input_count ? inputs[j] : outputs[j - input_count], bytes_of(other, samples))) {
        return fail(CONVC_ERROR_ARGUMENT, "output '%s' must not overlap other buffers; got the memory of '%s'.", m.outputs[i].name.data, other.name.data);
      }
    }
  }
  return CONVC_OK;
}

convc_status bind(convc_context *context, const void *const *inputs, size_t input_count, void *const *outputs,
                  size_t output_count) {
  if (convc_status bad = check_buffers(context, inputs, input_count, outputs, output_count, most_samples(context))) return bad;
  use_part(*context, 0);
  place(context, inputs, input_count, outputs, output_count);
  return CONVC_OK;
}

size_t most_samples(const convc_context *context) { return context ? static_cast<size_t>(context->module->manifest.batch()) : 0; }

convc_status run_part(convc_context *context, size_t part, const void *const *inputs, void *const *outputs) {
  const Manifest &m = context->module->manifest;
  use_part(*context, part);
  if (context->device) return context->device->run(*context, part, inputs, outputs);
  place(context, inputs, m.inputs.size, outputs, m.outputs.size);
  Any result = {};
  const int code = context->module->entries[part](nullptr, context->arguments, static_cast<int32_t>(context->argument_count), &result);
  return code ? CONVC_ERROR_RUN : CONVC_OK;  // the kernel has left its message
}

}  // namespace convc

convc_context::~convc_context() {
  if (device) {
    device->~DeviceRun();
    free(device);
  }
  if (arena) munmap(arena, arena_size);
  free(tensors);
  free(arguments);
  free(port_shapes);
  free(part_buffers);
  free(staging);
  if (module) convc::release(module);
}

extern "C" {

convc_status convc_context_create(convc_module *module, int threads, convc_context **out) {
  if (!module || !out) return convc::fail(CONVC_ERROR_ARGUMENT, "module and context must not be NULL; got NULL.");
  *out = nullptr;
  if (!module->entries.size) return convc::fail(CONVC_ERROR_ARGUMENT, "module must be loaded with convc_load; got one that was only inspected.");
  int count;
  if (convc_status bad = convc::check_threads(*module, threads, count)) return bad;
  void *memory = aligned_alloc(alignof(convc_context), sizeof(convc_context));
  if (!memory) return convc::fail(CONVC_ERROR_MEMORY, "memory must be enough for a context; got none.");
  auto *context = new (memory) convc_context;
  context->module = convc::hold(module);
  convc_status status = convc::allocate(*context);
  if (!status) {
    convc::prepare(*context);
    status = context->pool.start(count, convc::workspace_here(*module));
  }
  if (!status) status = convc::warm_up(*context);
  if (status) {
    convc_context_destroy(context);
    return status;
  }
  *out = context;
  return CONVC_OK;
}

void convc_context_destroy(convc_context *context) {
  if (!context) return;
  context->~convc_context();
  free(context);
}

convc_status convc_set_threads(convc_context *context, int threads) {
  if (!context) return convc::fail(CONVC_ERROR_ARGUMENT, "context must not be NULL; got NULL.");
  int count;
  if (convc_status bad = convc::check_threads(*context->module, threads, count)) return bad;
  return count == context->pool.threads() && !context->pool.orphaned() ? CONVC_OK : context->pool.start(count, convc::workspace_here(*context->module));
}

int convc_threads(const convc_context *context) { return context ? context->pool.threads() : 0; }

convc_status convc_run(convc_context *context, const void *const *inputs, size_t input_count, void *const *outputs,
                       size_t output_count) {
  if (convc_status bad = convc::check_buffers(context, inputs, input_count, outputs, output_count, convc::most_samples(context))) return bad;
  const convc::Pool::Use use(context->pool);
  return convc::run_part(context, 0, inputs, outputs);
}

convc_status convc_run_on_device(convc_context *context, const void *const *inputs, size_t input_count, void *const *outputs,
                                 size_t output_count, void *stream) {
  if (context && !context->device) {
    return convc::fail(CONVC_ERROR_ARGUMENT, "context must be of a module for cuda to run on a device; got one for CPUs. Use convc_run.");
  }
  if (convc_status bad = convc::bind(context, inputs, input_count, outputs, output_count)) return bad;
  convc::Pool::Use use(context->pool);
  return context->device->queue(*context, stream);
}

const char *convc_context_fallbacks(const convc_context *context) {
  return context && context->device ? context->device->refusals().text() : "";
}

size_t convc_context_workspace_bytes(const convc_context *context) {
  if (!context) return 0;
  return context->pool.workspace_bytes() + (context->device ? context->device->workspace_bytes() : 0);
}

void *convc_alloc(size_t nbytes) {
  if (nbytes > SIZE_MAX - convc::kAlignment) return nullptr;
  const size_t whole = (nbytes + convc::kAlignment - 1) / convc::kAlignment * convc::kAlignment;
  return aligned_alloc(convc::kAlignment, whole ? whole : convc::kAlignment);
}

void convc_free(void *memory) { free(memory); }

}  // extern "C"
