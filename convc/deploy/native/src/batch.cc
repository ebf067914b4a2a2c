// A symbolic batch: a run of any number of samples, on code for a few batch sizes. As convc/runtime/batched_module.py does it: split into
// the sizes there are, the largest first; what is then fewer than the smallest is filled up with repeats of the last sample.
#include <stdlib.h>
#include <string.h>

#include "module.h"

namespace convc {
namespace {

// Where a part's samples lie in a caller's buffer.
struct Slice {
  const Tensor &tensor;
  size_t at, count, size;  // first sample, samples that there are, samples that the code takes

  size_t offset() const { return tensor.rows ? tensor.sample_bytes * at : 0; }
  // Whether kernels may have the caller's memory itself.
  bool in_place() const { return !tensor.rows || (count == size && offset() % kAlignment == 0); }
};

// Room for every port at the largest size; taken once, by the first run that needs it.
convc_status make_staging(convc_context *context) {
  if (context->staging) return CONVC_OK;
  size_t sum = 0;
  for (const Tensor &t : context->module->manifest.inputs) sum += round_up(t.nbytes);
  for (const Tensor &t : context->module->manifest.outputs) sum += round_up(t.nbytes);
  context->staging = static_cast<unsigned char *>(convc_alloc(sum));
  return context->staging ? CONVC_OK : fail(CONVC_ERROR_MEMORY, "memory must be enough for %zu bytes of a part of the batch; got none.", sum);
}

size_t most_sample_bytes(const Manifest &m) {
  size_t most = 0;
  for (const Tensor &t : m.inputs) most = t.sample_bytes > most ? t.sample_bytes : most;
  for (const Tensor &t : m.outputs) most = t.sample_bytes > most ? t.sample_bytes : most;
  return most;
}

void copy_input(const Slice &slice, const void *from, unsigned char *to) {
  const size_t sample = slice.tensor.sample_bytes;
  memcpy(to, static_cast<const unsigned char *>(from) + slice.offset(), slice.count * sample);
  for (size_t i = slice.count; i < slice.size; ++i) memcpy(to + i * sample, to + (slice.count - 1) * sample, sample);
}

convc_status run_samples(convc_context *context, size_t part, size_t at, size_t count, size_t size, const void *const *inputs, void *const *outputs) {
  const Manifest &m = context->module->manifest;
  const size_t input_count = m.inputs.size, ports = input_count + m.outputs.size;
  void **buffers = context->part_buffers;
  size_t staged = 0;
  for (size_t i = 0; i < ports; ++i) {
    const bool is_input = i < input_count;
    const Slice slice = {is_input ? m.inputs[i] : m.outputs[i - input_count], at, count, size};
    if (slice.in_place()) {
      // Kernels only read inputs.
      auto *whole = static_cast<unsigned char *>(is_input ? const_cast<void *>(inputs[i]) : outputs[i - input_count]);
      buffers[i] = whole + slice.offset();
      continue;
    }
    if (convc_status bad = make_staging(context)) return bad;
    buffers[i] = context->staging + staged;
    staged += round_up(slice.tensor.nbytes);
    if (is_input) copy_input(slice, inputs[i], static_cast<unsigned char *>(buffers[i]));
  }
  if (convc_status bad = run_part(context, part, buffers, buffers + input_count)) return bad;
  for (size_t i = 0; i < m.outputs.size; ++i) {
    const Slice slice = {m.outputs[i], at, count, size};
    if (!slice.in_place()) memcpy(static_cast<unsigned char *>(outputs[i]) + slice.offset(), buffers[input_count + i], count * slice.tensor.sample_bytes);
  }
  return CONVC_OK;
}

}  // namespace
}  // namespace convc

using namespace convc;

extern "C" {

size_t convc_module_batch(const convc_module *module) { return module ? static_cast<size_t>(module->manifest.batch()) : 0; }

size_t convc_input_sample_bytes(const convc_module *module, size_t index) {
  return module && index < module->manifest.inputs.size ? module->manifest.inputs[index].sample_bytes : 0;
}

size_t convc_output_sample_bytes(const convc_module *module, size_t index) {
  return module && index < module->manifest.outputs.size ? module->manifest.outputs[index].sample_bytes : 0;
}

convc_status convc_run_batch(convc_context *context, size_t samples, const void *const *inputs, size_t input_count,
                             void *const *outputs, size_t output_count) {
  if (context && !context->module->manifest.batch()) {
    return fail(CONVC_ERROR_ARGUMENT, "module must have a symbolic batch to run %zu samples; got one of fixed shapes. Use convc_run.", samples);
  }
  const size_t largest = context ? most_sample_bytes(context->module->manifest) : 0;
  if (largest && samples > SIZE_MAX / 2 / largest) {
    return fail(CONVC_ERROR_ARGUMENT, "samples must fit into memory, %zu bytes each; got %zu.", largest, samples);
  }
  if (convc_status bad = check_buffers(context, inputs, input_count, outputs, output_count, samples)) return bad;
  const Variant &variant = *context->module->variant;
  const Pool::Use use(context->pool);
  size_t at = 0;
  for (size_t part = 0; part <= variant.smaller.size; ++part) {
    const auto size = static_cast<size_t>(part ? variant.smaller[part - 1].batch : variant.batch);
    const bool last = part == variant.smaller.size;
    while (samples - at >= size || (last && at < samples)) {
      const size_t count = samples - at < size ? samples - at : size;
      if (convc_status bad = run_samples(context, part, at, count, size, inputs, outputs)) return bad;
      at += count;
    }
  }
  return CONVC_OK;
}

}  // extern "C"
