// Timing a module step by step, from its manifest's own windows; a normal run does none of this.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "module.h"

namespace convc {
namespace {

double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

struct Call {
  SafeCall function;
  Any *arguments;
  int32_t count;
  size_t step;  // whose time it is: that of what stands in a refused step's place is the step's
};

struct Calls {
  Call *data;
  size_t size;
};

convc_status prepare_call(convc_context *context, Bump &bump, const Step &step, Call &call) {
  const size_t inputs = context->module->manifest.inputs.size;
  call.function = context->module->function(step.symbol.data);
  if (!call.function) return fail(CONVC_ERROR_FORMAT, "module must export its step '%s'; got no such symbol.", step.symbol.data);
  call.count = static_cast<int32_t>(step.arguments.size);
  call.arguments = static_cast<Any *>(bump.take(step.arguments.size * sizeof(Any)));
  auto *tensors = static_cast<DLTensor *>(bump.take(step.arguments.size * sizeof(DLTensor)));
  if (!call.arguments || !tensors) return fail(CONVC_ERROR_MEMORY, "memory must be enough for a profile; got none.");
  for (size_t j = 0; j < step.arguments.size; ++j) {
    const Argument &a = step.arguments[j];
    size_t whole = a.space == Space::kWeights ? 0 : a.space == Space::kArena ? 1 : 2 + static_cast<size_t>(a.index);
    if (a.space == Space::kOutput) whole += inputs;
    tensors[j] = {static_cast<char *>(context->tensors[whole].data) + a.offset, context->device ? kDLCUDA : kDLCPU, 0, static_cast<int32_t>(a.shape.size),
                  a.element, a.shape.data, a.strides.size ? a.strides.data : nullptr, 0};
    call.arguments[j].type_index = kDLTensorPtr;
    call.arguments[j].v_ptr = &tensors[j];
  }
  return CONVC_OK;
}

bool refused(const convc_context *context, size_t step) { return context->device && context->device->refusals().refused(0, step); }

// Every step's function and arguments, in the order of execution.
convc_status prepare_calls(convc_context *context, Bump &bump, Calls &calls) {
  const List<Step> &steps = context->module->variant->steps;
  size_t most = 0;
  for (const Step &step : steps) most += 1 + step.otherwise.size;
  calls = {static_cast<Call *>(bump.take(most * sizeof(Call))), 0};
  if (!calls.data) return fail(CONVC_ERROR_MEMORY, "memory must be enough for a profile; got none.");
  for (size_t i = 0; i < steps.size; ++i) {
    const bool instead = refused(context, i);
    for (size_t j = 0; j < (instead ? steps[i].otherwise.size : 1); ++j) {
      Call &call = calls.data[calls.size++];
      call.step = i;
      if (convc_status bad = prepare_call(context, bump, instead ? steps[i].otherwise[j] : steps[i], call)) return bad;
    }
  }
  return CONVC_OK;
}

bool run_call(const Call &call) {
  Any result = {};
  return call.function(nullptr, call.arguments, call.count, &result) == 0;
}

// The same on a device, where a clock on the host would only see launches: each step by itself, between events.
convc_status time_on_device(convc_context *context, const Calls &calls, size_t rounds, double *times) {
  for (size_t i = 0; i < calls.size; ++i) {
    const Call &call = calls.data[i];
    if (convc_status bad = context->device->time(call.function, call.arguments, call.count, static_cast<int>(rounds), times + i * rounds)) return bad;
  }
  return CONVC_OK;
}

// Time every call `rounds` times, after once that does not count; times[call * rounds + round].
convc_status time_calls(convc_context *context, const Calls &calls, size_t rounds, double *times) {
  Pool::Use use(context->pool);
  if (context->device) return time_on_device(context, calls, rounds, times);
  for (size_t round = 0; round <= rounds; ++round) {
    for (size_t i = 0; i < calls.size; ++i) {
      const double start = now();
      if (!run_call(calls.data[i])) return CONVC_ERROR_RUN;
      if (round) times[i * rounds + round - 1] = now() - start;
    }
  }
  return CONVC_OK;
}

// From the calls' times to the steps', in place: a step has one call at least, and they come in order.
void add_up(const Calls &calls, size_t rounds, double *times) {
  for (size_t i = 0; i < calls.size; ++i) {
    const size_t step = calls.data[i].step;
    const bool first = !i || calls.data[i - 1].step != step;
    for (size_t round = 0; round < rounds; ++round) {
      times[step * rounds + round] = times[i * rounds + round] + (first ? 0 : times[step * rounds + round]);
    }
  }
}

// What a context needs before its steps can be called one by one: the caller's buffers, or on a device their contents.
convc_status feed(convc_context *context, const void *const *inputs, size_t input_count, void *const *outputs, size_t output_count) {
  if (!context || !context->device) return bind(context, inputs, input_count, outputs, output_count);
  if (convc_status bad = check_buffers(context, inputs, input_count, outputs, output_count, most_samples(context))) return bad;
  Pool::Use use(context->pool);
  return context->device->prepare(*context, inputs);
}

int by_value(const void *a, const void *b) {
  const double x = *static_cast<const double *>(a), y = *static_cast<const double *>(b);
  return x < y ? -1 : x > y;
}

void write_text(FILE *file, const Text &text) {
  fputc('"', file);
  for (size_t i = 0; i < text.size; ++i) {
    const auto c = static_cast<unsigned char>(text.data[i]);
    if (c == '"' || c == '\\') fprintf(file, "\\%c", c);
    else if (c < 0x20) fprintf(file, "\\u%04x", c);
    else fputc(c, file);
  }
  fputc('"', file);
}

}  // namespace
}  // namespace convc

using namespace convc;

extern "C" convc_status convc_profile(convc_context *context, const void *const *inputs, size_t input_count,
                                      void *const *outputs, size_t output_count, int repeats, double *seconds) {
  if (convc_status bad = feed(context, inputs, input_count, outputs, output_count)) return bad;
  if (repeats < 1 || repeats > 1000000 || !seconds) return fail(CONVC_ERROR_ARGUMENT, "repeats must be from 1 to 1000000 and seconds an array; got %d.", repeats);
  Bump bump;
  Calls calls;
  if (convc_status bad = prepare_calls(context, bump, calls)) return bad;
  const size_t steps = context->module->variant->steps.size, rounds = static_cast<size_t>(repeats);
  auto *times = static_cast<double *>(bump.take(calls.size * rounds * sizeof(double)));
  if (!times) return fail(CONVC_ERROR_MEMORY, "memory must be enough for %zu times; got none.", calls.size * rounds);
  if (convc_status bad = time_calls(context, calls, rounds, times)) return bad;
  add_up(calls, rounds, times);
  for (size_t i = 0; i < steps; ++i) {
    qsort(times + i * rounds, rounds, sizeof(double), by_value);
    const double *middle = times + i * rounds + rounds / 2;
    seconds[i] = rounds % 2 ? *middle : 0.5 * (middle[-1] + middle[0]);
  }
  return context->device ? context->device->fetch(*context, outputs, most_samples(context)) : CONVC_OK;
}

// SOURCE  "Trace Event Format": complete events ("ph": "X"), microseconds.
extern "C" convc_status convc_trace(convc_context *context, const void *const *inputs, size_t input_count, void *const *outputs,
                                    size_t output_count, const char *path) {
  if (convc_status bad = feed(context, inputs, input_count, outputs, output_count)) return bad;
  if (!path) return fail(CONVC_ERROR_ARGUMENT, "path must be a file's name; got NULL.");
  Bump bump;
  Calls calls;
  if (convc_status bad = prepare_calls(context, bump, calls)) return bad;
  const List<Step> &steps = context->module->variant->steps;
  auto *times = static_cast<double *>(bump.take((calls.size + 1) * sizeof(double)));
  if (!times) return fail(CONVC_ERROR_MEMORY, "memory must be enough for %zu times; got none.", calls.size);
  if (context->device) {
    // One behind the other, as they run, but each timed by itself.
    times[0] = 0;
    Pool::Use use(context->pool);
    if (convc_status bad = time_on_device(context, calls, 1, times + 1)) return bad;
    add_up(calls, 1, times + 1);
    for (size_t i = 0; i < steps.size; ++i) times[i + 1] += times[i];
    if (convc_status bad = context->device->fetch(*context, outputs, most_samples(context))) return bad;
  } else {
    // On a CPU each step is one call.
    Pool::Use use(context->pool);
    times[0] = now();
    for (size_t i = 0; i < calls.size; ++i) {
      if (!run_call(calls.data[i])) return CONVC_ERROR_RUN;
      times[i + 1] = now();
    }
  }
  FILE *file = fopen(path, "we");
  if (!file) return fail(CONVC_ERROR_FILE, "trace must be a file that can be written; got '%s' (%s).", path, strerror(errno));
  fputs("{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n{\"ph\": \"M\", \"pid\": 1, \"name\": \"process_name\", \"args\": {\"name\": ", file);
  write_text(file, context->module->manifest.name);
  fputs("}}", file);
  for (size_t i = 0; i < steps.size; ++i) {
    const double spent = times[i + 1] - times[i];
    fputs(",\n{\"ph\": \"X\", \"pid\": 1, \"tid\": 1, \"name\": ", file);
    write_text(file, steps[i].node);
    fputs(", \"cat\": ", file);
    write_text(file, steps[i].op);
    fprintf(file, ", \"ts\": %.3f, \"dur\": %.3f, \"args\": {\"algorithm\": ", 1e6 * (times[i] - times[0]), 1e6 * spent);
    write_text(file, refused(context, i) ? own_step(steps[i]).algorithm : steps[i].algorithm);
    fprintf(file, ", \"flops\": %lld, \"gflops_per_second\": %.3f}}", static_cast<long long>(steps[i].flops),
            spent > 0 ? 1e-9 * static_cast<double>(steps[i].flops) / spent : 0.0);
  }
  fputs("\n]}\n", file);
  const bool written = !ferror(file);
  if (fclose(file) || !written) return fail(CONVC_ERROR_FILE, "trace must be written in full; got '%s' (%s).", path, strerror(errno));
  return CONVC_OK;
}
