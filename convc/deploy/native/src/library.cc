#include "library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "module.h"

namespace convc {
namespace {

constexpr const char *kCudnn = "libcudnn.so.9", *kCudnnVariable = "CONVC_CUDNN_PATH";

constexpr const char *kRefused = "refused=", *kFailed = "failed";

SafeCall of_shim(const convc_module &module, const char *name) { return calls_cudnn(*module.variant) ? module.function(name) : nullptr; }

}  // namespace

const Step &own_step(const Step &step) {
  size_t best = 0;
  for (size_t i = 1; i < step.otherwise.size; ++i) {
    if (step.otherwise[i].flops > step.otherwise[best].flops) best = i;
  }
  return step.otherwise[best];
}

bool calls_cudnn(const Variant &variant) {
  for (size_t part = 0; part < variant.parts(); ++part) {
    for (const Step &step : variant.steps_of(part)) {
      if (calls_cudnn(step)) return true;
    }
  }
  return false;
}

bool may_fall_back(const Variant &variant) {
  for (size_t part = 0; part < variant.parts(); ++part) {
    for (const Step &step : variant.steps_of(part)) {
      if (calls_cudnn(step) && !step.otherwise.size) return false;
    }
  }
  return true;
}

convc_status find_cudnn() {
  // The module's shim looks in the same places, and finds it open already.
  const char *named = getenv(kCudnnVariable);
  const char *path = named && *named ? named : kCudnn;
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    return fail(CONVC_ERROR_TARGET, "a module with cuDNN in it must find cuDNN 9, '%s'; got none (%s). Install it, name its file in %s, or compile the model with --cudnn off.",
                path, dlerror(), kCudnnVariable);
  }
  size_t (*get_version)(void);
  *reinterpret_cast<void **>(&get_version) = dlsym(library, "cudnnGetVersion");
  const size_t version = get_version ? get_version() : 0;
  if (version / 10000 == 9) return CONVC_OK;
  // Up to cuDNN 8 a version was major * 1000 + minor * 100 + patch.
  return fail(CONVC_ERROR_TARGET, "cuDNN must be version 9; got version %zu (%zu) in '%s'.", version >= 10000 ? version / 10000 : version / 1000, version, path);
}

void share_library(const convc_module &module, int64_t more) {
  const SafeCall users = of_shim(module, "convc_cudnn_users");
  if (!users) return;
  Any argument = {}, result = {};
  argument.type_index = kInt;
  argument.v_int64 = more;
  users(nullptr, &argument, 1, &result);
}

Refusals::~Refusals() {
  for (size_t part = 0; part < count_; ++part) free(parts_[part].refused);
  free(parts_);
  free(text_);
}

convc_status Refusals::allocate(const Variant &variant) {
  parts_ = static_cast<Part *>(calloc(variant.parts(), sizeof *parts_));
  for (; parts_ && count_ < variant.parts(); ++count_) {
    const List<Step> &steps = variant.steps_of(count_);
    Part &part = parts_[count_];
    part.refused = static_cast<bool *>(calloc(steps.size + 1, sizeof *part.refused));
    if (!part.refused) break;
    for (const Step &step : steps) part.calls = part.calls || calls_cudnn(step);
  }
  return count_ == variant.parts() ? CONVC_OK : fail(CONVC_ERROR_MEMORY, "memory must be enough for a context; got none.");
}

void Refusals::begin(const convc_module &module) const {
  Any result = {};
  if (const SafeCall watch = of_shim(module, "convc_cudnn_watch")) watch(nullptr, nullptr, 0, &result);
}

convc_status Refusals::end(const convc_module &module, size_t part, convc_status ran) {
  const SafeCall watched = of_shim(module, "convc_cudnn_watched");
  Any result = {};
  if (!watched || watched(nullptr, nullptr, 0, &result) || result.type_index != kRawStr) return ran;
  // A line for each of cuDNN's steps that was called, in their order.
  const char *line = result.v_c_str;
  const List<Step> &steps = module.variant->steps_of(part);
  bool calls = false;
  for (size_t i = 0; i < steps.size; ++i) {
    if (!calls_cudnn(steps[i])) continue;
    if (!*line) break;
    if (ran && strncmp(line, kFailed, strlen(kFailed)) == 0) {
      return fail(ran, "layer '%s' must run on %s; got: %s Compile it with --algo-for '%s=%s', one of convc's own that `convc explain` lists for it, or with --cudnn off.",
                  steps[i].node.data, module.device->description(), convc_last_error(), steps[i].node.data, steps[i].flops ? "ALGORITHM" : "plain");
    }
    const char *end = strchr(line, '\n');
    const size_t length = end ? static_cast<size_t>(end - line) : strlen(line);
    const bool refused = strncmp(line, kRefused, strlen(kRefused)) == 0 && steps[i].otherwise.size;
    calls = calls || !refused;
    if (refused && !parts_[part].refused[i]) {
      parts_[part].refused[i] = true;
      if (convc_status bad = note(steps[i], line + strlen(kRefused), length - strlen(kRefused))) return bad;
    }
    line += length + (end ? 1 : 0);
  }
  if (!ran) parts_[part].calls = calls;
  return ran;
}

convc_status Refusals::note(const Step &step, const char *why, size_t length) {
  const Step &instead = own_step(step);
  const size_t more = step.node.size + instead.algorithm.size + length + 64;
  auto *grown = static_cast<char *>(realloc(text_, size_ + more));
  if (!grown) return fail(CONVC_ERROR_MEMORY, "memory must be enough for a context; got none.");
  text_ = grown;
  const int written = snprintf(text_ + size_, more, "%s: %s in place of cudnn: %.*s\n", step.node.data, instead.algorithm.data, static_cast<int>(length), why);
  // Another part may have said the same of the layer.
  const char *known = text_;
  do known = strstr(known, text_ + size_);
  while (known != text_ && known[-1] != '\n' && known++);
  if (written > 0 && known == text_ + size_) size_ += static_cast<size_t>(written);
  text_[size_] = 0;
  return CONVC_OK;
}

}  // namespace convc
