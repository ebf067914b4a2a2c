// A library that steps of a module for CUDA are left to (cuDNN): whether it is here, what it refuses on a device, when its handles go.
//
// The module's own shim calls it, and tells: `convc_cudnn_watch`, `convc_cudnn_watched`, `convc_cudnn_users` (convc/runtime/libraries/cudnn/
// native/shim.cc). A module that an older convc made lacks them, and then nothing is told.
#ifndef CONVC_LIBRARY_H_
#define CONVC_LIBRARY_H_

#include "manifest.h"

struct convc_module;

namespace convc {

inline bool calls_cudnn(const Step &step) { return step.algorithm.is("cudnn"); }
// Whether any step of any part is cuDNN's; and whether each of them has steps of convc's own beside it.
bool calls_cudnn(const Variant &variant);
bool may_fall_back(const Variant &variant);

// The step that computes what a refused one would; others in its place move its operands.
const Step &own_step(const Step &step);

// Whether cuDNN 9 is here, in words if not.
convc_status find_cudnn();

// One more (1) or one less (-1) uses the module's shim: cuDNN's handles go with the last.
void share_library(const convc_module &module, int64_t more);

// What cuDNN has refused on a context's device, part by part.
class Refusals {
 public:
  Refusals() = default;
  Refusals(const Refusals &) = delete;
  Refusals &operator=(const Refusals &) = delete;
  ~Refusals();

  convc_status allocate(const Variant &variant);
  // Write down what this thread's calls are given, from here to `end`, which takes what a run of the part has done: 0, or its error, which then
  // names the layer.
  void begin(const convc_module &module) const;
  convc_status end(const convc_module &module, size_t part, convc_status ran);

  bool refused(size_t part, size_t step) const { return parts_ && parts_[part].refused[step]; }
  // Whether cuDNN is called by a part's runs.
  bool calls(size_t part) const { return parts_ && parts_[part].calls; }
  // A line for each layer: "first: tensor_core in place of cudnn: WHY".
  const char *text() const { return text_ ? text_ : ""; }

 private:
  struct Part {
    bool *refused;  // for each step
    bool calls;
  };
  convc_status note(const Step &step, const char *why, size_t length);

  Part *parts_ = nullptr;
  size_t count_ = 0;
  char *text_ = nullptr;
  size_t size_ = 0;
};

}  // namespace convc
#endif  // CONVC_LIBRARY_H_
