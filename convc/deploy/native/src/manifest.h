// The manifest as the runtime needs it. The form is written down in convc/runtime/manifest.py; unknown fields are skipped.
#ifndef CONVC_MANIFEST_H_
#define CONVC_MANIFEST_H_

#include "abi.h"
#include "error.h"
#include "memory.h"

namespace convc {

constexpr int64_t kFormat = 1;

struct Tensor {
  Text name;
  Text dtype;
  List<int64_t> shape;
  DLDataType element;
  size_t nbytes;
  // With a symbolic batch: rows of the leading axis for each sample, 0 where it does not depend on the batch; `shape` and `nbytes` are
  // those of the largest number of samples.
  int64_t rows;
  size_t sample_bytes;
};

enum class Space { kInput, kOutput, kWeights, kArena };

// A typed window into one buffer. `offset` in bytes, `strides` in elements and empty for a compact window.
struct Argument {
  Space space;
  Text space_name;
  int64_t index;
  int64_t offset;
  Text dtype;
  List<int64_t> shape;
  List<int64_t> strides;
  DLDataType element;
};

// `otherwise` are the steps that run in its place where it is a library's call and that refuses it on the device.
struct Step {
  Text symbol;
  Text node;
  Text op;
  Text algorithm;
  int64_t flops;
  int64_t nbytes;
  List<Argument> arguments;
  List<Step> otherwise;
};

// The code for one number of samples; 0 of fixed shapes.
struct Sized {
  int64_t batch;
  Text entry;
  int64_t arena_bytes;
  int64_t workspace_bytes;
  List<Step> steps;
};

// The code for one CPU.
struct Variant {
  Text kind;
  Text triple;
  Text mcpu;
  List<Text> features;
  List<Text> device;  // a device's code, "sm_90" or "ptx_80"; the CPU then only launches it
  Text entry;
  int64_t arena_bytes;
  int64_t workspace_bytes;
  List<Step> steps;
  int64_t batch;          // the largest number of samples that there is code for; 0 of fixed shapes
  List<Sized> smaller;    // in descending order

  bool on_device() const { return kind.is("cuda"); }
  // The steps of a part: 0 is the largest batch, or all there is.
  const List<Step> &steps_of(size_t part) const { return part ? smaller[part - 1].steps : steps; }
  size_t parts() const { return 1 + smaller.size; }
};

struct Manifest {
  Text name;
  Text tvm;
  Text tvm_ffi;
  List<Tensor> inputs;
  List<Tensor> outputs;
  int64_t weights_bytes = 0;
  Text weights_sha256;
  List<Variant> variants;
  bool open_area = false;  // code for several heights and widths, whose masks and tables the Python runtime fills in

  int64_t batch() const { return variants[0].batch; }
};

// What a variant takes for the neediest of its batch sizes.
inline int64_t most_arena_bytes(const Variant &variant) {
  int64_t most = variant.arena_bytes;
  for (const Sized &part : variant.smaller) most = part.arena_bytes > most ? part.arena_bytes : most;
  return most;
}
inline int64_t most_workspace_bytes(const Variant &variant) {
  int64_t most = variant.workspace_bytes;
  for (const Sized &part : variant.smaller) most = part.workspace_bytes > most ? part.workspace_bytes : most;
  return most;
}

// A buffer is never empty, so that it always has an address.
inline size_t buffer_bytes(int64_t nbytes) {
  return nbytes > static_cast<int64_t>(kAlignment) ? static_cast<size_t>(nbytes) : kAlignment;
}

// Parse and check `text`, which is changed and must outlive the manifest; `text[size]` must be writable.
convc_status parse_manifest(char *text, size_t size, Bump &bump, Manifest &manifest);

}  // namespace convc
#endif  // CONVC_MANIFEST_H_
