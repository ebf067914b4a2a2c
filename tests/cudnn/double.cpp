// A TEST DOUBLE of libcudnn.so.9's graph interface. It refuses every descriptor that breaks a rule (attributes of the wrong type or count,
// missing, set late; descriptors used unfinished or after their end; shapes that do not fit), offers a few engines, and computes
// operation graphs on the CPU as their definition reads. It checks what convc hands over; what cuDNN does with it, it does not know.
//
// cudnn_double_fail(name, nth, status): the nth call from now of a function answers `status`; of a negative nth every call, until
// cudnn_double_forget(). cudnn_double_log(): what happened, and
// forgets it. cudnn_double_offer(mask): which engines heuristics offer.
#include <cmath>
#include <cstring>
#include <dlfcn.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "abi.h"

using namespace convc_cudnn;

namespace {

struct Descriptor {
  int type;
  bool finalized = false;
  struct Attribute {
    int type;
    int64_t count;
    std::vector<char> bytes;
  };
  std::map<int, Attribute> attributes;

  bool has(int name) const { return attributes.count(name) != 0; }
  std::vector<int64_t> integers(int name) const {
    std::vector<int64_t> values;
    if (auto a = attributes.find(name); a != attributes.end()) {
      values.resize(a->second.count);
      memcpy(values.data(), a->second.bytes.data(), 8 * values.size());
    }
    return values;
  }
  int enumerator(int name) const {
    int value = -1;
    if (auto a = attributes.find(name); a != attributes.end()) memcpy(&value, a->second.bytes.data(), sizeof value);
    return value;
  }
  double scalar(int name, double missing) const {
    auto a = attributes.find(name);
    if (a == attributes.end()) return missing;
    if (a->second.type == TYPE_FLOAT) {
      float value;
      return memcpy(&value, a->second.bytes.data(), sizeof value), value;
    }
    double value;
    return memcpy(&value, a->second.bytes.data(), sizeof value), value;
  }
  Descriptor* child(int name, int64_t index = 0) const {
    auto a = attributes.find(name);
    if (a == attributes.end() || index >= a->second.count) return nullptr;
    Descriptor* value;
    return memcpy(&value, a->second.bytes.data() + 8 * index, sizeof value), value;
  }
};

struct Engine {
  int64_t id;
  std::vector<int> notes;
  int64_t workspace;
  bool fallback;
  int knob, value;  // the one that its configurations have
  bool compiles = false;
};
// Bit i of the mask offers the i-th.
const Engine ENGINES[] = {
    {7, {NUMERICAL_NOTE_TENSOR_CORE}, 4096, false, 2, 1},
    {19, {NUMERICAL_NOTE_WINOGRAD}, 1 << 20, false, 2, 0},
    {25, {NUMERICAL_NOTE_NONDETERMINISTIC}, 64, false, 17, 4},
    {28, {NUMERICAL_NOTE_STRICT_NAN_PROP}, int64_t(16) << 20, false, 17, 8},
    {0, {}, 0, true, 2, 3},
    {22, {NUMERICAL_NOTE_TENSOR_CORE, NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION}, 64, false, 2, 8},
    {5, {}, 32, false, 2, 6, true},
    // What these are known for is not noted.
    {17, {}, 48, false, 25, 0},
    {58, {NUMERICAL_NOTE_TENSOR_CORE}, 0, false, 25, 2},
    {63, {NUMERICAL_NOTE_TENSOR_CORE}, 0, false, 25, 1},
    {62, {NUMERICAL_NOTE_TENSOR_CORE}, 0, false, 25, 0},
    {61, {}, 64, false, 17, 48},
};
const unsigned USUAL = 0b11101;

// cuDNN may be called from several threads, but each handle by one at a time: a second call on one that is inside is an error here.
std::recursive_mutex everything;
using Guard = std::unique_lock<std::recursive_mutex>;
std::condition_variable_any came;

std::set<Descriptor*> living;
std::map<Descriptor*, Descriptor*> inner;  // a configuration's engine, that heuristics have made with it
thread_local std::string last;
std::string story;
unsigned offered = USUAL;
struct Open {  // a handle
  void* stream = nullptr;
  bool busy = false;
};
std::set<Open*> handles;
int wanted_together = 0, together = 0;  // see cudnn_double_meet
struct Failure {
  int nth;
  Status status;
};
std::map<std::string, Failure> failures;

Status refuse(const std::string& why, Status status = STATUS_BAD_PARAM) {
  last = "the double: " + why;
  return status;
}
// A handle that is there and inside no other thread's call.
Open* usable(Handle handle) {
  auto found = handles.find(static_cast<Open*>(handle));
  return found == handles.end() || (*found)->busy ? nullptr : *found;
}

// The status that a test has asked for, else success.
Status ordered(const char* name) {
  auto found = failures.find(name);
  if (found == failures.end()) return STATUS_SUCCESS;
  const Status status = found->second.status;
  if (found->second.nth >= 0) {
    if (found->second.nth-- > 0) return STATUS_SUCCESS;
    failures.erase(found);
  }
  return refuse(std::string(name) + " fails on demand", status);
}
#define OBEY(NAME) \
  Guard guard(everything); \
  if (const Status wanted = ordered(NAME); wanted != STATUS_SUCCESS) return wanted

size_t width(int type) {
  switch (type) {
    case TYPE_INT64: case TYPE_DOUBLE: case TYPE_VOID_PTR: case TYPE_HANDLE: case TYPE_BACKEND_DESCRIPTOR: return 8;
    case TYPE_BOOLEAN: case TYPE_CHAR: return 1;
    default: return 4;
  }
}

struct Rule {
  int type;
  int64_t least, most;
};
const std::map<int, Rule> RULES = {
    {ATTR_TENSOR_DATA_TYPE, {TYPE_DATA_TYPE, 1, 1}}, {ATTR_TENSOR_DIMENSIONS, {TYPE_INT64, 4, 5}},
    {ATTR_TENSOR_STRIDES, {TYPE_INT64, 4, 5}}, {ATTR_TENSOR_UNIQUE_ID, {TYPE_INT64, 1, 1}},
    {ATTR_TENSOR_BYTE_ALIGNMENT, {TYPE_INT64, 1, 1}}, {ATTR_TENSOR_IS_VIRTUAL, {TYPE_BOOLEAN, 1, 1}},
    {ATTR_CONVOLUTION_COMP_TYPE, {TYPE_DATA_TYPE, 1, 1}}, {ATTR_CONVOLUTION_CONV_MODE, {TYPE_CONVOLUTION_MODE, 1, 1}},
    {ATTR_CONVOLUTION_SPATIAL_DIMS, {TYPE_INT64, 1, 1}}, {ATTR_CONVOLUTION_PRE_PADDINGS, {TYPE_INT64, 2, 3}},
    {ATTR_CONVOLUTION_POST_PADDINGS, {TYPE_INT64, 2, 3}}, {ATTR_CONVOLUTION_FILTER_STRIDES, {TYPE_INT64, 2, 3}},
    {ATTR_CONVOLUTION_DILATIONS, {TYPE_INT64, 2, 3}}, {ATTR_POINTWISE_MODE, {TYPE_POINTWISE_MODE, 1, 1}},
    {ATTR_POINTWISE_MATH_PREC, {TYPE_DATA_TYPE, 1, 1}}, {ATTR_POINTWISE_RELU_LOWER_CLIP, {TYPE_DOUBLE, 1, 1}},
    {ATTR_POINTWISE_RELU_UPPER_CLIP, {TYPE_DOUBLE, 1, 1}}, {ATTR_OPERATIONGRAPH_OPS, {TYPE_BACKEND_DESCRIPTOR, 1, 16}},
    {ATTR_OPERATIONGRAPH_HANDLE, {TYPE_HANDLE, 1, 1}}, {ATTR_ENGINEHEUR_MODE, {TYPE_HEUR_MODE, 1, 1}},
    {ATTR_ENGINE_GLOBAL_INDEX, {TYPE_INT64, 1, 1}}, {ATTR_EXECUTION_PLAN_HANDLE, {TYPE_HANDLE, 1, 1}},
    {ATTR_KNOB_CHOICE_KNOB_TYPE, {TYPE_KNOB_TYPE, 1, 1}}, {ATTR_KNOB_CHOICE_KNOB_VALUE, {TYPE_INT64, 1, 1}},
    {ATTR_ENGINECFG_KNOB_CHOICES, {TYPE_BACKEND_DESCRIPTOR, 1, 64}}, {ATTR_VARIANT_PACK_WORKSPACE, {TYPE_VOID_PTR, 1, 1}},
    {ATTR_VARIANT_PACK_UNIQUE_IDS, {TYPE_INT64, 1, 16}}, {ATTR_VARIANT_PACK_DATA_POINTERS, {TYPE_VOID_PTR, 1, 16}},
};
// Every other attribute here is one descriptor, or alpha and beta.
Rule rule_of(int name, int type) {
  if (auto found = RULES.find(name); found != RULES.end()) return found->second;
  for (int scale : {ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                    ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA})
    if (name == scale) return {type == TYPE_DOUBLE ? TYPE_DOUBLE : TYPE_FLOAT, 1, 1};
  return {TYPE_BACKEND_DESCRIPTOR, 1, 1};
}

const std::map<int, std::vector<int>> NEEDED = {
    {BACKEND_TENSOR_DESCRIPTOR, {ATTR_TENSOR_DATA_TYPE, ATTR_TENSOR_DIMENSIONS, ATTR_TENSOR_STRIDES, ATTR_TENSOR_UNIQUE_ID, ATTR_TENSOR_BYTE_ALIGNMENT}},
    {BACKEND_CONVOLUTION_DESCRIPTOR, {ATTR_CONVOLUTION_COMP_TYPE, ATTR_CONVOLUTION_CONV_MODE, ATTR_CONVOLUTION_SPATIAL_DIMS, ATTR_CONVOLUTION_PRE_PADDINGS,
                                      ATTR_CONVOLUTION_POST_PADDINGS, ATTR_CONVOLUTION_FILTER_STRIDES, ATTR_CONVOLUTION_DILATIONS}},
    {BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, {ATTR_OPERATION_CONVOLUTION_FORWARD_X, ATTR_OPERATION_CONVOLUTION_FORWARD_W, ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                                                        ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, ATTR_OPERATION_CONVOLUTION_FORWARD_BETA}},
    {BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, {ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                                                              ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA}},
    {BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, {ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                                                                ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA}},
    {BACKEND_OPERATION_POINTWISE_DESCRIPTOR, {ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, ATTR_OPERATION_POINTWISE_XDESC, ATTR_OPERATION_POINTWISE_YDESC}},
    {BACKEND_POINTWISE_DESCRIPTOR, {ATTR_POINTWISE_MODE, ATTR_POINTWISE_MATH_PREC}},
    {BACKEND_OPERATIONGRAPH_DESCRIPTOR, {ATTR_OPERATIONGRAPH_OPS, ATTR_OPERATIONGRAPH_HANDLE}},
    {BACKEND_ENGINEHEUR_DESCRIPTOR, {ATTR_ENGINEHEUR_OPERATION_GRAPH, ATTR_ENGINEHEUR_MODE}},
    {BACKEND_ENGINE_DESCRIPTOR, {ATTR_ENGINE_OPERATION_GRAPH, ATTR_ENGINE_GLOBAL_INDEX}},
    {BACKEND_KNOB_CHOICE_DESCRIPTOR, {ATTR_KNOB_CHOICE_KNOB_TYPE, ATTR_KNOB_CHOICE_KNOB_VALUE}},
    {BACKEND_ENGINECFG_DESCRIPTOR, {ATTR_ENGINECFG_ENGINE}},
    {BACKEND_EXECUTION_PLAN_DESCRIPTOR, {ATTR_EXECUTION_PLAN_ENGINE_CONFIG, ATTR_EXECUTION_PLAN_HANDLE}},
    {BACKEND_VARIANT_PACK_DESCRIPTOR, {ATTR_VARIANT_PACK_UNIQUE_IDS, ATTR_VARIANT_PACK_DATA_POINTERS, ATTR_VARIANT_PACK_WORKSPACE}},
};

// Whether something of the result's extents is added behind a convolution, and no bias: on an H200 9.19 offers no engine for that.
// What is one element a channel is a bias, though an image of one point has no more.
bool residual_alone(const Descriptor* graph) {
  int residuals = 0, biases = 0;
  const auto alike = [](std::vector<int64_t> b, const std::vector<int64_t>& y) {
    return b == y && std::any_of(b.begin(), b.end(), [&](int64_t& n) { return &n != &b[1] && n > 1; });
  };
  for (int64_t i = 0; i < graph->attributes.at(ATTR_OPERATIONGRAPH_OPS).count; ++i) {
    const Descriptor* op = graph->child(ATTR_OPERATIONGRAPH_OPS, i);
    if (const Descriptor* b = op->child(ATTR_OPERATION_POINTWISE_BDESC))
      ++(alike(b->integers(ATTR_TENSOR_DIMENSIONS), op->child(ATTR_OPERATION_POINTWISE_YDESC)->integers(ATTR_TENSOR_DIMENSIONS)) ? residuals : biases);
  }
  return residuals && !biases;
}

const Engine* engine_by(int64_t id) {
  for (const Engine& engine : ENGINES)
    if (engine.id == id) return &engine;
  return nullptr;
}

// ---- meaning

struct Tensor {
  std::vector<int64_t> extents, strides;
  int type;
  int64_t id;
  bool is_virtual;

  explicit Tensor(const Descriptor* d)
      : extents(d->integers(ATTR_TENSOR_DIMENSIONS)), strides(d->integers(ATTR_TENSOR_STRIDES)), type(d->enumerator(ATTR_TENSOR_DATA_TYPE)),
        id(d->integers(ATTR_TENSOR_UNIQUE_ID)[0]), is_virtual(d->has(ATTR_TENSOR_IS_VIRTUAL)) {}
  size_t size() const {
    size_t n = 1;
    for (int64_t e : extents) n *= e;
    return n;
  }
  size_t flat(const std::vector<int64_t>& index) const {
    size_t at = 0;
    for (size_t i = 0; i < index.size(); ++i) at = at * extents[i] + index[i];
    return at;
  }
  int64_t offset(const std::vector<int64_t>& index) const {
    int64_t at = 0;
    for (size_t i = 0; i < index.size(); ++i) at += index[i] * strides[i];
    return at;
  }
};

template <class Visit>
void each(const std::vector<int64_t>& extents, const Visit& visit) {
  std::vector<int64_t> index(extents.size(), 0);
  for (int64_t e : extents)
    if (e == 0) return;
  for (;;) {
    visit(index);
    int axis = static_cast<int>(index.size()) - 1;
    while (axis >= 0 && ++index[axis] == extents[axis]) index[axis--] = 0;
    if (axis < 0) return;
  }
}

float wide(uint16_t half) {  // of a bfloat16
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float f;
  return memcpy(&f, &bits, 4), f;
}
uint16_t narrow(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
double load(int type, const void* p, int64_t at) {
  if (type == DATA_FLOAT) return static_cast<const float*>(p)[at];
  if (type == DATA_DOUBLE) return static_cast<const double*>(p)[at];
  if (type == DATA_HALF) return static_cast<float>(static_cast<const _Float16*>(p)[at]);
  return wide(static_cast<const uint16_t*>(p)[at]);
}
void store(int type, void* p, int64_t at, double v) {
  if (type == DATA_FLOAT) static_cast<float*>(p)[at] = static_cast<float>(v);
  else if (type == DATA_DOUBLE) static_cast<double*>(p)[at] = v;
  else if (type == DATA_HALF) static_cast<_Float16*>(p)[at] = static_cast<_Float16>(static_cast<float>(v));
  else static_cast<uint16_t*>(p)[at] = narrow(static_cast<float>(v));
}

struct Memory {
  std::map<int64_t, void*> pointers;
  std::map<int64_t, std::vector<double>> values;  // of virtual tensors

  std::vector<double> load(const Tensor& t) const {
    if (t.is_virtual) return values.at(t.id);
    std::vector<double> out(t.size());
    const void* p = pointers.at(t.id);
    each(t.extents, [&](const std::vector<int64_t>& i) { out[t.flat(i)] = ::load(t.type, p, t.offset(i)); });
    return out;
  }
  void store(const Tensor& t, const std::vector<double>& from) {
    if (t.is_virtual) {
      values[t.id] = from;
      return;
    }
    void* p = pointers.at(t.id);
    each(t.extents, [&](const std::vector<int64_t>& i) { ::store(t.type, p, t.offset(i), from[t.flat(i)]); });
  }
};

struct Convolution {
  Tensor x, w, y;
  std::vector<int64_t> pads, strides, dilations;
  Convolution(const Descriptor* op, int xn, int wn, int yn, int cn)
      : x(op->child(xn)), w(op->child(wn)), y(op->child(yn)), pads(op->child(cn)->integers(ATTR_CONVOLUTION_PRE_PADDINGS)),
        strides(op->child(cn)->integers(ATTR_CONVOLUTION_FILTER_STRIDES)), dilations(op->child(cn)->integers(ATTR_CONVOLUTION_DILATIONS)) {}

  std::string wrong() const {
    const size_t n = pads.size();
    if (x.extents.size() != n + 2 || w.extents.size() != n + 2 || y.extents.size() != n + 2) return "ranks differ";
    if (x.extents[0] != y.extents[0] || w.extents[0] != y.extents[1]) return "batch or result channels differ";
    if (!w.extents[1] || x.extents[1] % w.extents[1] || w.extents[0] % (x.extents[1] / w.extents[1])) return "channels are no groups of the filter's";
    for (size_t i = 0; i < n; ++i) {
      const int64_t reach = x.extents[2 + i] + 2 * pads[i] - (w.extents[2 + i] - 1) * dilations[i] - 1;
      if (reach < 0 || reach / strides[i] + 1 != y.extents[2 + i]) return "the result's extent is not the convolution's";
    }
    return "";
  }

  template <class Visit>
  void terms(const Visit& visit) const {
    const size_t n = pads.size();
    const int64_t per_group = w.extents[0] / (x.extents[1] / w.extents[1]);
    std::vector<int64_t> loops = y.extents;
    loops.insert(loops.end(), w.extents.begin() + 1, w.extents.end());
    // Made once: with a few vectors for each product the double was most of the time of its tests.
    std::vector<int64_t> at_x(n + 2), at_w(n + 2), at_y(n + 2);
    each(loops, [&](const std::vector<int64_t>& i) {
      at_x[0] = at_y[0] = i[0];
      at_w[0] = at_y[1] = i[1];
      at_w[1] = i[2 + n];
      at_x[1] = i[1] / per_group * w.extents[1] + i[2 + n];
      for (size_t k = 0; k < n; ++k) {
        at_y[2 + k] = i[2 + k];
        at_w[2 + k] = i[3 + n + k];
        at_x[2 + k] = i[2 + k] * strides[k] - pads[k] + i[3 + n + k] * dilations[k];
        if (at_x[2 + k] < 0 || at_x[2 + k] >= x.extents[2 + k]) return;
      }
      visit(x.flat(at_x), w.flat(at_w), y.flat(at_y));
    });
  }
};

// One kind of convolution: which of x, w, y is the result, and the attributes' names.
struct Kind {
  int type, x, w, y, convolution, alpha, beta;
  char result;
};
const Kind KINDS[] = {
    {BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, ATTR_OPERATION_CONVOLUTION_FORWARD_X, ATTR_OPERATION_CONVOLUTION_FORWARD_W, ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
     ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, 'y'},
    {BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
     ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, 'x'},
    {BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
     ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA, 'w'},
};
const Kind* kind_of(const Descriptor* op) {
  for (const Kind& kind : KINDS)
    if (kind.type == op->type) return &kind;
  return nullptr;
}

void convolve(Memory& memory, const Descriptor* op, const Kind& kind) {
  const Convolution c(op, kind.x, kind.w, kind.y, kind.convolution);
  const Tensor& target = kind.result == 'y' ? c.y : kind.result == 'x' ? c.x : c.w;
  const double alpha = op->scalar(kind.alpha, 1), beta = op->scalar(kind.beta, 0);
  std::vector<double> x, w, y, sum(target.size(), 0);
  if (kind.result != 'x') x = memory.load(c.x);
  if (kind.result != 'w') w = memory.load(c.w);
  if (kind.result != 'y') y = memory.load(c.y);
  c.terms([&](size_t i, size_t j, size_t k) {
    if (kind.result == 'y') sum[k] += x[i] * w[j];
    else if (kind.result == 'x') sum[i] += y[k] * w[j];
    else sum[j] += x[i] * y[k];
  });
  const std::vector<double> before = beta ? memory.load(target) : std::vector<double>(target.size(), 0);
  for (size_t i = 0; i < sum.size(); ++i) sum[i] = alpha * sum[i] + (beta ? beta * before[i] : 0);
  memory.store(target, sum);
}

void pointwise(Memory& memory, const Descriptor* op) {
  const Descriptor* mode = op->child(ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
  const Tensor x(op->child(ATTR_OPERATION_POINTWISE_XDESC)), y(op->child(ATTR_OPERATION_POINTWISE_YDESC));
  const std::vector<double> values = memory.load(x);
  std::vector<double> out(y.size());
  if (const Descriptor* b = op->child(ATTR_OPERATION_POINTWISE_BDESC)) {
    const Tensor operand(b);
    const std::vector<double> added = memory.load(operand);
    each(y.extents, [&](const std::vector<int64_t>& i) {
      std::vector<int64_t> at = i;
      for (size_t k = 0; k < at.size(); ++k)
        if (operand.extents[k] == 1) at[k] = 0;
      out[y.flat(i)] = values[x.flat(i)] + added[operand.flat(at)];
    });
  } else {
    const double low = mode->scalar(ATTR_POINTWISE_RELU_LOWER_CLIP, 0), high = mode->scalar(ATTR_POINTWISE_RELU_UPPER_CLIP, INFINITY);
    for (size_t i = 0; i < out.size(); ++i) out[i] = values[i] < low ? low : values[i] > high ? high : values[i];
  }
  memory.store(y, out);
}

Descriptor* as(RawDescriptor raw) {
  Descriptor* d = static_cast<Descriptor*>(raw);
  return living.count(d) ? d : nullptr;
}

// Whether a descriptor and all that it refers to is alive and finalized.
bool sound(Descriptor* d) {
  if (!living.count(d) || !d->finalized) return false;
  for (auto& [name, attribute] : d->attributes)
    for (int64_t i = 0; attribute.type == TYPE_BACKEND_DESCRIPTOR && i < attribute.count; ++i)
      if (!sound(d->child(name, i))) return false;
  return true;
}

template <class T>
void give(int64_t room, int64_t* count, void* out, const std::vector<T>& values) {
  *count = static_cast<int64_t>(values.size());
  if (out) memcpy(out, values.data(), sizeof(T) * std::min<size_t>(values.size(), room));
}

}  // namespace

extern "C" {

void cudnn_double_fail(const char* name, int nth, int status) {
  const Guard guard(everything);
  failures[name] = {nth, status};
}
void cudnn_double_forget() {
  const Guard guard(everything);
  failures.clear();
}
void cudnn_double_offer(unsigned mask) { offered = mask ? mask : USUAL; }
// From now on an execution waits until so many are inside at once; one that waits for 20 s fails.
void cudnn_double_meet(int calls) {
  const Guard guard(everything);
  wanted_together = calls;
  together = 0;
}
const char* cudnn_double_log() {
  const Guard guard(everything);
  static thread_local std::string told;
  told.swap(story);
  story.clear();
  return told.c_str();
}
int cudnn_double_living() { return static_cast<int>(living.size()); }

#ifndef CUDNN_DOUBLE_VERSION
#define CUDNN_DOUBLE_VERSION 92800
#endif
size_t cudnnGetVersion() { return CUDNN_DOUBLE_VERSION; }
const char* cudnnGetErrorString(Status status) {
  switch (status) {
    case STATUS_SUCCESS: return "CUDNN_STATUS_SUCCESS";
    case STATUS_NOT_SUPPORTED: return "CUDNN_STATUS_NOT_SUPPORTED";
    case STATUS_ALLOC_FAILED: return "CUDNN_STATUS_ALLOC_FAILED";
    case STATUS_NOT_INITIALIZED: return "CUDNN_STATUS_NOT_INITIALIZED";
    case STATUS_EXECUTION_FAILED: return "CUDNN_STATUS_EXECUTION_FAILED";
    case STATUS_VERSION_MISMATCH: return "CUDNN_STATUS_SUBLIBRARY_VERSION_MISMATCH";
    default: return "CUDNN_STATUS_BAD_PARAM";
  }
}
void cudnnGetLastErrorString(char* text, size_t room) { snprintf(text, room, "%s", last.c_str()); }
Status cudnnCreate(Handle* handle) {
  OBEY("cudnnCreate");
  story += "create;";
  auto* made = new Open;
  handles.insert(made);
  return *handle = made, STATUS_SUCCESS;
}
Status cudnnDestroy(Handle handle) {
  const Guard guard(everything);
  Open* open = usable(handle);
  if (!open) return refuse("a handle that is there and that nobody uses");
  handles.erase(open);
  delete open;
  return story += "destroy;", STATUS_SUCCESS;
}
Status cudnnSetStream(Handle handle, Stream wanted) {
  OBEY("cudnnSetStream");
  Open* open = usable(handle);
  if (!open) return refuse("a handle that is there and that nobody uses");
  return open->stream = wanted, STATUS_SUCCESS;
}

Status cudnnBackendCreateDescriptor(int type, RawDescriptor* out) {
  OBEY("cudnnBackendCreateDescriptor");
  auto* made = new Descriptor{type, false, {}};
  living.insert(made);
  return *out = made, STATUS_SUCCESS;
}
Status cudnnBackendDestroyDescriptor(RawDescriptor raw) {
  const Guard guard(everything);
  Descriptor* d = as(raw);
  if (!d) return refuse("destroyed twice");
  living.erase(d);
  if (auto own = inner.find(d); own != inner.end()) living.erase(own->second), inner.erase(own);
  // Its memory stays: an address that comes again would hide a use after the end.
  return STATUS_SUCCESS;
}
Status cudnnBackendSetAttribute(RawDescriptor raw, int name, int type, int64_t count, const void* values) {
  OBEY("cudnnBackendSetAttribute");
  Descriptor* d = as(raw);
  if (!d) return refuse("attribute of no descriptor");
  if (d->finalized) return refuse("attribute set after finalisation");
  const Rule rule = rule_of(name, type);
  if (!values || type != rule.type || count < rule.least || count > rule.most)
    return refuse("attribute " + std::to_string(name) + " of type " + std::to_string(type) + ", count " + std::to_string(count));
  for (int64_t i = 0; type == TYPE_BACKEND_DESCRIPTOR && i < count; ++i) {
    Descriptor* child = static_cast<Descriptor* const*>(values)[i];
    if (!sound(child)) return refuse("a descriptor that is not finalised or no longer there");
  }
  const char* bytes = static_cast<const char*>(values);
  d->attributes[name] = {type, count, std::vector<char>(bytes, bytes + count * width(type))};
  return STATUS_SUCCESS;
}
Status cudnnBackendFinalize(RawDescriptor raw) {
  OBEY("cudnnBackendFinalize");
  Descriptor* d = as(raw);
  if (!d || d->finalized) return refuse("finalisation of no descriptor, or of a finalised one");
  auto needed = NEEDED.find(d->type);
  if (needed == NEEDED.end()) return refuse("descriptor type " + std::to_string(d->type));
  for (int name : needed->second)
    if (!d->has(name)) return refuse("attribute " + std::to_string(name) + " is missing");
  if (d->type == BACKEND_TENSOR_DESCRIPTOR && d->integers(ATTR_TENSOR_DIMENSIONS).size() != d->integers(ATTR_TENSOR_STRIDES).size())
    return refuse("dimensions and strides differ in number");
  if (d->type == BACKEND_CONVOLUTION_DESCRIPTOR && d->integers(ATTR_CONVOLUTION_PRE_PADDINGS) != d->integers(ATTR_CONVOLUTION_POST_PADDINGS))
    return refuse("asymmetric padding", STATUS_NOT_SUPPORTED);
  if (const Kind* kind = kind_of(d)) {
    const std::string wrong = Convolution(d, kind->x, kind->w, kind->y, kind->convolution).wrong();
    if (!wrong.empty()) return refuse(wrong);
  }
  if (d->type == BACKEND_ENGINE_DESCRIPTOR && !engine_by(d->integers(ATTR_ENGINE_GLOBAL_INDEX)[0]))
    return refuse("there is no engine " + std::to_string(d->integers(ATTR_ENGINE_GLOBAL_INDEX)[0]), STATUS_NOT_SUPPORTED);
  if (d->type == BACKEND_EXECUTION_PLAN_DESCRIPTOR) {
    OBEY("plan");
  }
  if (d->type == BACKEND_ENGINEHEUR_DESCRIPTOR) story += "heuristics " + std::to_string(d->enumerator(ATTR_ENGINEHEUR_MODE)) + ";";
  d->finalized = true;
  return STATUS_SUCCESS;
}
Status cudnnBackendGetAttribute(RawDescriptor raw, int name, int, int64_t room, int64_t* count, void* out) {
  OBEY("cudnnBackendGetAttribute");
  Descriptor* d = as(raw);
  if (!d || !d->finalized) return refuse("question to a descriptor that is not finalised");
  if (name == ATTR_ENGINEHEUR_RESULTS) {
    const bool fallback = d->enumerator(ATTR_ENGINEHEUR_MODE) == HEUR_MODE_FALLBACK;
    std::vector<const Engine*> engines;
    const bool known = !residual_alone(d->child(ATTR_ENGINEHEUR_OPERATION_GRAPH));
    for (size_t i = 0; known && i < std::size(ENGINES); ++i)
      if (offered >> i & 1 && ENGINES[i].fallback == fallback) engines.push_back(&ENGINES[i]);
    *count = static_cast<int64_t>(engines.size());
    for (size_t i = 0; out && i < engines.size() && static_cast<int64_t>(i) < room; ++i) {
      Descriptor* configuration = as(static_cast<RawDescriptor*>(out)[i]);
      if (!configuration || configuration->type != BACKEND_ENGINECFG_DESCRIPTOR) return refuse("results must be engine configurations");
      auto* engine = new Descriptor{BACKEND_ENGINE_DESCRIPTOR, false, {}};
      living.insert(engine);
      inner[configuration] = engine;
      engine->attributes[ATTR_ENGINE_OPERATION_GRAPH] = d->attributes[ATTR_ENGINEHEUR_OPERATION_GRAPH];
      const char* id = reinterpret_cast<const char*>(&engines[i]->id);
      engine->attributes[ATTR_ENGINE_GLOBAL_INDEX] = {TYPE_INT64, 1, std::vector<char>(id, id + 8)};
      engine->finalized = configuration->finalized = true;
      const char* address = reinterpret_cast<const char*>(&engine);
      configuration->attributes[ATTR_ENGINECFG_ENGINE] = {TYPE_BACKEND_DESCRIPTOR, 1, std::vector<char>(address, address + 8)};
    }
    return STATUS_SUCCESS;
  }
  if (name == ATTR_ENGINECFG_KNOB_CHOICES) {
    const Engine* of = engine_by(d->child(ATTR_ENGINECFG_ENGINE)->integers(ATTR_ENGINE_GLOBAL_INDEX)[0]);
    Descriptor* into = room > 0 ? as(*static_cast<RawDescriptor*>(out)) : nullptr;
    if (!into || into->type != BACKEND_KNOB_CHOICE_DESCRIPTOR) return refuse("a knob goes into a knob choice's descriptor");
    const auto bytes = [](auto value) { return std::vector<char>(reinterpret_cast<char*>(&value), reinterpret_cast<char*>(&value) + sizeof value); };
    into->attributes[ATTR_KNOB_CHOICE_KNOB_TYPE] = {TYPE_KNOB_TYPE, 1, bytes(of->knob)};
    into->attributes[ATTR_KNOB_CHOICE_KNOB_VALUE] = {TYPE_INT64, 1, bytes(int64_t(of->value))};
    into->finalized = true;
    return *count = 1, STATUS_SUCCESS;
  }
  if (d->type == BACKEND_KNOB_CHOICE_DESCRIPTOR && d->has(name)) {
    if (name == ATTR_KNOB_CHOICE_KNOB_TYPE) return give(room, count, out, std::vector<int>{d->enumerator(name)}), STATUS_SUCCESS;
    return give(room, count, out, d->integers(name)), STATUS_SUCCESS;
  }
  if (name == ATTR_ENGINECFG_ENGINE) {
    Descriptor* into = as(*static_cast<RawDescriptor*>(out));
    if (!into || into->type != BACKEND_ENGINE_DESCRIPTOR) return refuse("an engine goes into an engine's descriptor");
    into->attributes = d->child(ATTR_ENGINECFG_ENGINE)->attributes;
    into->finalized = true;
    return *count = 1, STATUS_SUCCESS;
  }
  const Engine* engine = nullptr;
  if (d->type == BACKEND_ENGINE_DESCRIPTOR) engine = engine_by(d->integers(ATTR_ENGINE_GLOBAL_INDEX)[0]);
  if (engine && name == ATTR_ENGINE_NUMERICAL_NOTE) return give(room, count, out, engine->notes), STATUS_SUCCESS;
  if (engine && name == ATTR_ENGINE_BEHAVIOR_NOTE)
    return give(room, count, out, engine->compiles ? std::vector<int>{BEHAVIOR_NOTE_RUNTIME_COMPILATION} : std::vector<int>{}), STATUS_SUCCESS;
  if (engine && name == ATTR_ENGINE_GLOBAL_INDEX) return give(room, count, out, std::vector<int64_t>{engine->id}), STATUS_SUCCESS;
  if (name == ATTR_EXECUTION_PLAN_WORKSPACE_SIZE) {
    const Descriptor* used = d->child(ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->child(ATTR_ENGINECFG_ENGINE);
    engine = engine_by(used->integers(ATTR_ENGINE_GLOBAL_INDEX)[0]);
    return give(room, count, out, std::vector<int64_t>{engine->workspace}), STATUS_SUCCESS;
  }
  return refuse("a question that the double does not know: " + std::to_string(name));
}
Status cudnnBackendExecute(Handle handle, RawDescriptor raw_plan, RawDescriptor raw_pack) {
  OBEY("cudnnBackendExecute");
  Descriptor *plan = as(raw_plan), *pack = as(raw_pack);
  Open* opened = usable(handle);
  if (!opened || !plan || !pack || !sound(plan) || !sound(pack)) return refuse("handle, plan or variant pack is not sound");
  const Descriptor* engine = plan->child(ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->child(ATTR_ENGINECFG_ENGINE);
  const Engine* used = engine_by(engine->integers(ATTR_ENGINE_GLOBAL_INDEX)[0]);
  const auto ids = pack->integers(ATTR_VARIANT_PACK_UNIQUE_IDS), addresses = pack->integers(ATTR_VARIANT_PACK_DATA_POINTERS);
  const int64_t workspace = pack->integers(ATTR_VARIANT_PACK_WORKSPACE)[0];
  if (ids.size() != addresses.size()) return refuse("identifiers and pointers differ in number");
  if (used->workspace && !workspace) return refuse("no workspace");
  // The double computes on the host in what stands for device memory.
  auto* open = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "cuda_emulation_open_memory"));
  if (!open) return refuse("the double runs on the emulated device only");
  if (wanted_together) {
    opened->busy = true;
    const int met = together++ / wanted_together;
    came.notify_all();
    const bool all = came.wait_for(guard, std::chrono::seconds(20), [&] { return together >= (met + 1) * wanted_together; });
    opened->busy = false;
    if (!all) return refuse("no other call came while this one waited");
  }
  open(1);
  Memory memory;
  for (size_t i = 0; i < ids.size(); ++i) memory.pointers[ids[i]] = reinterpret_cast<void*>(addresses[i]);
  if (used->workspace) memset(reinterpret_cast<void*>(workspace), 0xff, used->workspace);
  const Descriptor* graph = engine->child(ATTR_ENGINE_OPERATION_GRAPH);
  for (int64_t i = 0; i < graph->attributes.at(ATTR_OPERATIONGRAPH_OPS).count; ++i) {
    const Descriptor* op = graph->child(ATTR_OPERATIONGRAPH_OPS, i);
    if (const Kind* kind = kind_of(op)) convolve(memory, op, *kind);
    else pointwise(memory, op);
  }
  open(0);
  story += "run " + std::to_string(used->id) + " on stream " + std::to_string(reinterpret_cast<intptr_t>(opened->stream)) + ";";
  return STATUS_SUCCESS;
}

// ---- pooling and softmax, as their definitions read

struct Plain {
  char kind;  // 't'ensor or 'p'ooling
  bool set = false;
  int type = 0, mode = 0;
  std::vector<int64_t> extents, strides, window, pads, steps;
};
static std::set<Plain*> plain;
static Plain* as_plain(void* raw, char kind) {
  Plain* p = static_cast<Plain*>(raw);
  return plain.count(p) && p->kind == kind ? p : nullptr;
}
int cudnn_double_plain() { return static_cast<int>(plain.size()); }
static Status create(void** out, char kind) {
  const Guard guard(everything);
  auto* made = new Plain;
  made->kind = kind;
  plain.insert(made);
  return *out = made, STATUS_SUCCESS;
}
static Status destroy(void* raw, char kind) {
  const Guard guard(everything);
  Plain* p = as_plain(raw, kind);
  if (!p) return refuse("destroyed twice");
  plain.erase(p);
  return STATUS_SUCCESS;
}
Status cudnnCreateTensorDescriptor(void** out) {
  OBEY("cudnnCreateTensorDescriptor");
  return create(out, 't');
}
Status cudnnDestroyTensorDescriptor(void* raw) { return destroy(raw, 't'); }
Status cudnnCreatePoolingDescriptor(void** out) { return create(out, 'p'); }
Status cudnnDestroyPoolingDescriptor(void* raw) { return destroy(raw, 'p'); }
Status cudnnSetTensorNdDescriptor(void* raw, int type, int rank, const int* extents, const int* strides) {
  const Guard guard(everything);
  Plain* p = as_plain(raw, 't');
  if (!p || p->set || rank < 4 || rank > 5) return refuse("a tensor of 4 or 5 dimensions, set once");
  *p = {'t', true, type, 0, {extents, extents + rank}, {strides, strides + rank}, {}, {}, {}};
  return STATUS_SUCCESS;
}
Status cudnnSetPoolingNdDescriptor(void* raw, int mode, int nan, int rank, const int* window, const int* pads, const int* strides) {
  OBEY("cudnnSetPoolingNdDescriptor");
  Plain* p = as_plain(raw, 'p');
  if (!p || p->set || rank < 2 || rank > 3 || nan != PROPAGATE_NAN || mode < 0 || mode > 3) return refuse("a pooling of 2 or 3 dimensions, set once");
  for (int i = 0; i < rank; ++i)
    if (window[i] < 1 || strides[i] < 1 || pads[i] < 0 || pads[i] >= window[i]) return refuse("a window that fits its pads");
  *p = {'p', true, 0, mode, {}, {}, {window, window + rank}, {pads, pads + rank}, {strides, strides + rank}};
  return STATUS_SUCCESS;
}

static std::vector<double> read(const Plain& t, const void* memory) {
  std::vector<double> out;
  each(t.extents, [&](const std::vector<int64_t>& i) {
    int64_t at = 0;
    for (size_t k = 0; k < i.size(); ++k) at += i[k] * t.strides[k];
    out.push_back(load(t.type, memory, at));
  });
  return out;
}
static double scale(const Plain& t, const void* value) { return t.type == DATA_DOUBLE ? *static_cast<const double*>(value) : *static_cast<const float*>(value); }
// memory = alpha * values + beta * memory
static void write(const Plain& t, const std::vector<double>& values, const void* alpha, const void* beta, void* memory) {
  size_t n = 0;
  const double a = scale(t, alpha), b = scale(t, beta);
  each(t.extents, [&](const std::vector<int64_t>& i) {
    int64_t at = 0;
    for (size_t k = 0; k < i.size(); ++k) at += i[k] * t.strides[k];
    store(t.type, memory, at, a * values[n++] + (b ? b * load(t.type, memory, at) : 0));
  });
}
static size_t place(const Plain& t, const std::vector<int64_t>& index) {
  size_t at = 0;
  for (size_t k = 0; k < index.size(); ++k) at = at * t.extents[k] + index[k];
  return at;
}
// For each result: the places of the data under its window, and how many the average divides by.
static void windows(const Plain& p, const Plain& x, const Plain& y, const std::function<void(size_t result, const std::vector<size_t>& data, double count)>& visit) {
  each(y.extents, [&](const std::vector<int64_t>& i) {
    std::vector<size_t> under;
    each(p.window, [&](const std::vector<int64_t>& w) {
      std::vector<int64_t> at = {i[0], i[1]};
      for (size_t k = 0; k < w.size(); ++k) {
        at.push_back(i[2 + k] * p.steps[k] - p.pads[k] + w[k]);
        if (at.back() < 0 || at.back() >= x.extents[2 + k]) return;
      }
      under.push_back(place(x, at));
    });
    double all = 1;
    for (int64_t w : p.window) all *= static_cast<double>(w);
    visit(place(y, i), under, p.mode == POOLING_AVERAGE_COUNT_INCLUDE_PADDING ? all : static_cast<double>(under.size()));
  });
}
static std::string unfit(const Plain* p, const Plain* x, const Plain* y) {
  if (!p || !x || !y || !p->set || !x->set || !y->set) return "descriptors that are there and set";
  if (x->extents.size() != p->window.size() + 2 || y->extents.size() != x->extents.size()) return "ranks that agree";
  for (size_t k = 0; k < p->window.size(); ++k)
    if ((x->extents[2 + k] + 2 * p->pads[k] - p->window[k]) / p->steps[k] + 1 != y->extents[2 + k]) return "the pooling's extents";
  return "";
}
struct Opened {
  void (*open)(int) = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "cuda_emulation_open_memory"));
  Opened() { open(1); }
  ~Opened() { open(0); }
};
Status cudnnPoolingForward(Handle handle, void* pooling, const void* alpha, void* x_of, const void* x, const void* beta, void* y_of, void* y) {
  OBEY("cudnnPoolingForward");
  const Plain *p = as_plain(pooling, 'p'), *xt = as_plain(x_of, 't'), *yt = as_plain(y_of, 't');
  if (const std::string wrong = unfit(p, xt, yt); !usable(handle) || !wrong.empty()) return refuse("pooling wants " + wrong);
  const Opened opened;
  const std::vector<double> data = read(*xt, x);
  size_t size = 1;
  for (int64_t e : yt->extents) size *= e;
  std::vector<double> out(size, 0);
  const bool max = p->mode == POOLING_MAX || p->mode == POOLING_MAX_DETERMINISTIC;
  windows(*p, *xt, *yt, [&](size_t result, const std::vector<size_t>& under, double count) {
    double value = max ? -INFINITY : 0;
    for (size_t i : under) value = max ? std::max(value, data[i]) : value + data[i];
    out[result] = max ? value : value / count;
  });
  write(*yt, out, alpha, beta, y);
  story += "pool " + std::to_string(p->mode) + ";";
  return STATUS_SUCCESS;
}
Status cudnnPoolingBackward(Handle handle, void* pooling, const void* alpha, void* y_of, const void* y, void* dy_of, const void* dy, void* x_of,
                            const void* x, const void* beta, void* dx_of, void* dx) {
  OBEY("cudnnPoolingBackward");
  const Plain *p = as_plain(pooling, 'p'), *xt = as_plain(x_of, 't'), *yt = as_plain(y_of, 't'), *dyt = as_plain(dy_of, 't'), *dxt = as_plain(dx_of, 't');
  if (const std::string wrong = unfit(p, xt, yt); !usable(handle) || !dyt || !dxt || !wrong.empty()) return refuse("pooling wants " + wrong);
  if (dyt->extents != yt->extents || dxt->extents != xt->extents) return refuse("gradients of the values' shapes");
  const Opened opened;
  const std::vector<double> data = read(*xt, x), result = read(*yt, y), gradient = read(*dyt, dy);
  std::vector<double> out(data.size(), 0);
  const bool max = p->mode == POOLING_MAX || p->mode == POOLING_MAX_DETERMINISTIC;
  windows(*p, *xt, *yt, [&](size_t r, const std::vector<size_t>& under, double count) {
    for (size_t i : under) {
      if (!max) out[i] += gradient[r] / count;
      else if (data[i] == result[r]) {
        out[i] += gradient[r];  // to the first of equals
        break;
      }
    }
  });
  write(*dxt, out, alpha, beta, dx);
  story += "pool_backward " + std::to_string(p->mode) + ";";
  return STATUS_SUCCESS;
}
// Visits each set of places that one softmax runs over.
static void sets(const Plain& t, int mode, const std::function<void(const std::vector<size_t>&)>& visit) {
  std::vector<int64_t> outer = t.extents, inner = t.extents;
  outer[1] = 1, inner[0] = 1;
  for (size_t k = 2; k < outer.size(); ++k) (mode == SOFTMAX_MODE_INSTANCE ? outer : inner)[k] = 1;
  each(outer, [&](const std::vector<int64_t>& o) {
    std::vector<size_t> places;
    each(inner, [&](const std::vector<int64_t>& i) {
      std::vector<int64_t> at = o;
      for (size_t k = 0; k < at.size(); ++k) at[k] += i[k];
      places.push_back(place(t, at));
    });
    visit(places);
  });
}
Status cudnnSoftmaxForward(Handle handle, int algorithm, int mode, const void* alpha, void* x_of, const void* x, const void* beta, void* y_of, void* y) {
  OBEY("cudnnSoftmaxForward");
  const Plain *xt = as_plain(x_of, 't'), *yt = as_plain(y_of, 't');
  if (!usable(handle) || !xt || !yt || xt->extents != yt->extents || algorithm < 0 || algorithm > 2 || mode < 0 || mode > 1) return refuse("softmax of equal shapes");
  const Opened opened;
  const std::vector<double> data = read(*xt, x);
  std::vector<double> out(data.size());
  sets(*xt, mode, [&](const std::vector<size_t>& places) {
    double most = -INFINITY, sum = 0;
    for (size_t i : places) most = std::max(most, data[i]);
    for (size_t i : places) sum += std::exp(data[i] - most);
    for (size_t i : places) out[i] = algorithm == SOFTMAX_LOG ? data[i] - most - std::log(sum) : std::exp(data[i] - most) / sum;
  });
  write(*yt, out, alpha, beta, y);
  story += "softmax " + std::to_string(algorithm) + " " + std::to_string(mode) + ";";
  return STATUS_SUCCESS;
}
Status cudnnSoftmaxBackward(Handle handle, int algorithm, int mode, const void* alpha, void* y_of, const void* y, void* dy_of, const void* dy,
                            const void* beta, void* dx_of, void* dx) {
  OBEY("cudnnSoftmaxBackward");
  const Plain *yt = as_plain(y_of, 't'), *dyt = as_plain(dy_of, 't'), *dxt = as_plain(dx_of, 't');
  if (!usable(handle) || !yt || !dyt || !dxt || yt->extents != dyt->extents || dxt->extents != dyt->extents) return refuse("softmax of equal shapes");
  const Opened opened;
  const std::vector<double> result = read(*yt, y), gradient = read(*dyt, dy);
  std::vector<double> out(result.size());
  sets(*yt, mode, [&](const std::vector<size_t>& places) {
    double sum = 0;
    for (size_t i : places) sum += algorithm == SOFTMAX_LOG ? gradient[i] : gradient[i] * result[i];
    for (size_t i : places) out[i] = algorithm == SOFTMAX_LOG ? gradient[i] - std::exp(result[i]) * sum : result[i] * (gradient[i] - sum);
  });
  write(*dxt, out, alpha, beta, dx);
  story += "softmax_backward " + std::to_string(algorithm) + ";";
  return STATUS_SUCCESS;
}
}
