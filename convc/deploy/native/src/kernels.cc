#include "kernels.h"

namespace convc {
namespace {

constexpr const char *kAxes[] = {"blockIdx.x", "blockIdx.y", "blockIdx.z", "threadIdx.x", "threadIdx.y", "threadIdx.z"};
constexpr const char *kDynamicShared = "tirx.use_dyn_shared_memory";
constexpr const char *kEarly = "tirx.use_programtic_dependent_launch";  // as TVM spells it
// More of anything is no module of convc.
constexpr uint64_t kMost = 1 << 20;

// Walks the block; false from the first thing that is not there on.
class Reader {
 public:
  Reader(const unsigned char *data, uint64_t size, Bump &bump) : at_(data), left_(size), bump_(bump) {}

  bool number(uint64_t &value) { return raw(&value, sizeof value); }
  bool count(uint64_t &value) { return number(value) && value <= kMost; }
  bool raw(void *into, size_t nbytes) {
    const unsigned char *from = skip(nbytes);
    return from && memcpy(into, from, nbytes);
  }
  // A text where it stands, without a zero behind it.
  bool text(Text &found) {
    uint64_t size;
    if (!number(size)) return false;
    const unsigned char *from = skip(size);
    if (!from) return false;
    found.data = reinterpret_cast<const char *>(from);
    found.size = size;
    return true;
  }
  bool is(const char *wanted) {
    Text found;
    return text(found) && found.size == strlen(wanted) && memcmp(found.data, wanted, found.size) == 0;
  }
  const unsigned char *skip(uint64_t nbytes) {
    if (nbytes > left_) return nullptr;
    const unsigned char *from = at_;
    at_ += nbytes;
    left_ -= nbytes;
    return from;
  }

  bool kernel(Kernel &k) {
    Text name, again;
    uint64_t items;
    if (!text(name) || !text(again) || !zero_terminated(again, k.name) || !count(items)) return false;
    for (uint64_t i = 0; i < items; ++i) {
      DLDataType *type = k.arguments.add(bump_);
      if (!type || !raw(type, sizeof *type)) return false;
    }
    if (!count(items)) return false;
    for (uint64_t i = 0; i < items; ++i) {
      Text tag;
      if (!text(tag) || !launch_tag(k, tag, i + 1 == items)) return false;
    }
    if (!count(items)) return false;
    for (uint64_t i = 0; i < items; ++i) {
      int32_t extra;
      // A tensor map (TMA) would have to be made of its argument; no schedule of convc has one.
      if (!raw(&extra, sizeof extra) || extra) return false;
    }
    return k.arguments.size <= kMaxKernelArguments;
  }

 private:
  bool launch_tag(Kernel &k, const Text &tag, bool last) {
    if (same(tag, kDynamicShared)) return last && (k.dynamic_shared = true);
    if (same(tag, kEarly)) return k.early = true;
    for (int axis = 0; axis < 6; ++axis) {
      if (!same(tag, kAxes[axis])) continue;
      int *place = k.extents.add(bump_);
      return place && (*place = axis, true);
    }
    return false;  // clusters whose size a launch says (a kernel's own text may), cooperative launches
  }
  static bool same(const Text &tag, const char *name) { return tag.size == strlen(name) && memcmp(tag.data, name, tag.size) == 0; }
  bool zero_terminated(const Text &from, Text &to) {
    auto *copy = static_cast<char *>(bump_.take(from.size + 1));
    if (!copy) return false;
    memcpy(copy, from.data, from.size);
    to.data = copy;
    to.size = from.size;
    return true;
  }

  const unsigned char *at_;
  uint64_t left_;
  Bump &bump_;
};

bool read(Reader &reader, Bump &bump, Kernels &kernels) {
  uint64_t items, size;
  for (int list = 0; list < 2; ++list) {
    if (!reader.count(items) || !reader.skip(8 * items)) return false;
  }
  if (!reader.is("_lib") || !reader.is("cuda") || !reader.number(size) || !reader.is("cubin") || !reader.count(items)) return false;
  for (uint64_t i = 0; i < items; ++i) {
    // Into a local one: the list moves when it grows.
    Kernel kernel;
    if (!reader.kernel(kernel)) return false;
    Kernel *place = kernels.all.add(bump);
    if (!place) return false;
    *place = kernel;
  }
  Text code;
  if (!reader.text(code) || !code.size) return false;
  kernels.code = reinterpret_cast<const unsigned char *>(code.data);
  return true;
}

}  // namespace

convc_status parse_kernels(const unsigned char *data, Bump &bump, Kernels &kernels) {
  if (!data) return CONVC_OK;
  uint64_t size;
  memcpy(&size, data, sizeof size);
  Reader reader(data + sizeof size, size, bump);
  if (!read(reader, bump, kernels)) {
    return fail(CONVC_ERROR_FORMAT, "module's kernels must be machine code in the form of apache-tvm 0.27, without tensor maps and clusters whose size a launch says; got another."
                " Use the libconvc of the convc that made it.");
  }
  return CONVC_OK;
}

}  // namespace convc
