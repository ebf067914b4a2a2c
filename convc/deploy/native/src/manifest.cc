#include "manifest.h"

#include "json.h"

namespace convc {
namespace {

struct DType {
  const char *name;
  DLDataType element;
};
constexpr DType kDTypes[] = {
    {"float32", {2, 32, 1}}, {"float64", {2, 64, 1}}, {"float16", {2, 16, 1}}, {"bfloat16", {4, 16, 1}},
    {"int8", {0, 8, 1}},     {"int16", {0, 16, 1}},   {"int32", {0, 32, 1}},   {"int64", {0, 64, 1}},
    {"uint8", {1, 8, 1}},    {"uint16", {1, 16, 1}},  {"uint32", {1, 32, 1}},  {"uint64", {1, 64, 1}},
    {"bool", {6, 8, 1}},
};
constexpr const char *kSpaces[] = {"input", "output", "weights", "arena"};

// Read the manifest's fields; what they mean together is checked afterwards.
class Reader {
 public:
  Reader(char *text, size_t size, Bump &bump) : json_(text, size), bump_(bump) {}

  bool manifest(Manifest &m, int64_t &format) {
    Variant *first = m.variants.add(bump_);
    if (!first) return false;
    // `first` moves when further variants are added, so it is filled here and stored at the end.
    Variant top = *first;
    const bool read = json_.object([&](const Text &key) {
      if (key.is("format")) return json_.integer(format);
      if (key.is("name")) return json_.string(m.name);
      if (key.is("tvm")) return json_.string(m.tvm);
      if (key.is("tvm_ffi")) return json_.string(m.tvm_ffi);
      if (key.is("inputs")) return list(m.inputs, [this](Tensor &t) { return tensor(t); });
      if (key.is("outputs")) return list(m.outputs, [this](Tensor &t) { return tensor(t); });
      if (key.is("weights_bytes")) return json_.integer(m.weights_bytes);
      if (key.is("weights_sha256")) return json_.string(m.weights_sha256);
      if (key.is("areas")) return json_.array([&] { return m.open_area = true, json_.skip(); });
      if (key.is("variants")) return list(m.variants, [this](Variant &v) { return variant(v); });
      return variant_field(key, top);
    });
    m.variants[0] = top;
    return read && json_.finished();
  }

  size_t position() const { return json_.position(); }

 private:
  template <typename T, typename Item>
  bool list(List<T> &into, Item item) {
    return json_.array([&] {
      // Read into a local one: reading may add to other lists, and this one moves when it grows.
      T value{};
      if (!item(value)) return false;
      T *place = into.add(bump_);
      return place && (*place = value, true);
    });
  }

  bool variant(Variant &v) {
    return json_.object([&](const Text &key) { return variant_field(key, v); });
  }

  bool variant_field(const Text &key, Variant &v) {
    if (key.is("entry")) return json_.string(v.entry);
    if (key.is("arena_bytes")) return json_.integer(v.arena_bytes);
    if (key.is("workspace_bytes")) return json_.integer(v.workspace_bytes);
    if (key.is("steps")) return list(v.steps, [this](Step &s) { return step(s); });
    if (key.is("batch")) return json_.integer(v.batch);
    if (key.is("smaller")) return list(v.smaller, [this](Sized &s) { return sized(s); });
    if (key.is("target")) {
      return json_.object([&](const Text &field) {
        if (field.is("kind")) return json_.string(v.kind);
        if (field.is("triple")) return json_.string(v.triple);
        if (field.is("mcpu")) return json_.string(v.mcpu);
        if (field.is("features")) return list(v.features, [this](Text &t) { return json_.string(t); });
        if (field.is("device")) return list(v.device, [this](Text &t) { return json_.string(t); });
        return json_.skip();
      });
    }
    return json_.skip();
  }

  bool sized(Sized &s) {
    return json_.object([&](const Text &key) {
      if (key.is("batch")) return json_.integer(s.batch);
      if (key.is("entry")) return json_.string(s.entry);
      if (key.is("arena_bytes")) return json_.integer(s.arena_bytes);
      if (key.is("workspace_bytes")) return json_.integer(s.workspace_bytes);
      if (key.is("steps")) return list(s.steps, [this](Step &t) { return step(t); });
      return json_.skip();
    });
  }

  bool tensor(Tensor &t) {
    return json_.object([&](const Text &key) {
      if (key.is("name")) return json_.string(t.name);
      if (key.is("dtype")) return json_.string(t.dtype);
      if (key.is("rows")) return json_.integer(t.rows);
      if (key.is("shape")) return list(t.shape, [this](int64_t &n) { return json_.integer(n); });
      return json_.skip();
    });
  }

  bool step(Step &s) {
    return json_.object([&](const Text &key) {
      if (key.is("symbol")) return json_.string(s.symbol);
      if (key.is("node")) return json_.string(s.node);
      if (key.is("op")) return json_.string(s.op);
      if (key.is("algorithm")) return json_.string(s.algorithm);
      if (key.is("flops")) return json_.integer(s.flops);
      if (key.is("nbytes")) return json_.integer(s.nbytes);
      if (key.is("arguments")) return list(s.arguments, [this](Argument &a) { return argument(a); });
      if (key.is("otherwise")) return list(s.otherwise, [this](Step &o) { return step(o); });
      return json_.skip();
    });
  }

  bool argument(Argument &a) {
    return json_.object([&](const Text &key) {
      if (key.is("space")) return json_.string(a.space_name);
      if (key.is("dtype")) return json_.string(a.dtype);
      if (key.is("index")) return json_.integer(a.index);
      if (key.is("offset")) return json_.integer(a.offset);
      if (key.is("shape")) return list(a.shape, [this](int64_t &n) { return json_.integer(n); });
      if (key.is("strides")) return list(a.strides, [this](int64_t &n) { return json_.integer(n); });
      return json_.skip();
    });
  }

  Json json_;
  Bump &bump_;
};

convc_status broken(const char *what, const char *name, const char *rule) {
  return fail(CONVC_ERROR_FORMAT, "module's %s '%s' must have %s; got another. The file is damaged.", what, name, rule);
}

bool find_dtype(const Text &name, DLDataType &element) {
  for (const DType &known : kDTypes) {
    if (name.is(known.name)) return element = known.element, true;
  }
  return false;
}

// Bytes from a window's first element to behind its last; false if that is no size.
bool extent(const List<int64_t> &shape, const List<int64_t> &strides, DLDataType element, int64_t &nbytes) {
  const int64_t itemsize = (element.bits + 7) / 8;
  int64_t elements = 1, last = 0;
  for (size_t i = 0; i < shape.size; ++i) {
    if (shape[i] < 0 || __builtin_mul_overflow(elements, shape[i], &elements)) return false;
    int64_t reach;
    if (strides.size && (strides[i] < 0 || __builtin_mul_overflow(shape[i] - 1, strides[i], &reach) ||
                         __builtin_add_overflow(last, reach, &last))) {
      return false;
    }
  }
  if (elements && strides.size && __builtin_add_overflow(last, int64_t{1}, &elements)) return false;
  return !__builtin_mul_overflow(elements, itemsize, &nbytes);
}

convc_status check_tensors(const char *kind, const List<Tensor> &tensors, int64_t batch) {
  for (Tensor &t : tensors) {
    if (!find_dtype(t.dtype, t.element)) return broken(kind, t.name.data, "an element type that is known");
    int64_t nbytes;
    if (t.shape.size > CONVC_MAX_RANK || !extent(t.shape, {}, t.element, nbytes)) {
      return broken(kind, t.name.data, "a shape of sizes >= 0");
    }
    t.nbytes = static_cast<size_t>(nbytes);
    int64_t rows;
    if (t.rows < 0 || (t.rows && (!batch || !t.shape.size || __builtin_mul_overflow(t.rows, batch, &rows) || rows != t.shape[0]))) {
      return broken(kind, t.name.data, "its rows for each sample");
    }
    if (t.rows) t.sample_bytes = t.nbytes / static_cast<size_t>(batch);
  }
  return CONVC_OK;
}

// Each number of samples is below the one before it.
convc_status check_sizes(const Manifest &m, const Variant &v) {
  int64_t before = v.batch;
  bool right = v.batch == m.batch() && v.batch >= 0;
  for (const Sized &part : v.smaller) {
    right = right && part.batch > 0 && part.batch < before && part.entry.size && part.arena_bytes >= 0 && part.workspace_bytes >= 0;
    before = part.batch;
  }
  return right ? CONVC_OK : broken("variant", v.mcpu.data, "batch sizes in descending order, each with an entry function");
}

convc_status check_step(const Manifest &m, int64_t arena_bytes, const Step &step) {
  for (const Step &instead : step.otherwise) {
    if (instead.otherwise.size) return broken("step", instead.symbol.data, "nothing in place of what is in place of another");
    if (convc_status bad = check_step(m, arena_bytes, instead)) return bad;
  }
  for (Argument &a : step.arguments) {
    size_t size = 0;
    bool found = false;
    for (size_t i = 0; i < 4; ++i) {
      if (!a.space_name.is(kSpaces[i])) continue;
      a.space = static_cast<Space>(i);
      const List<Tensor> &tensors = a.space == Space::kInput ? m.inputs : m.outputs;
      const size_t buffers = a.space == Space::kInput || a.space == Space::kOutput ? tensors.size : 1;
      found = a.index >= 0 && static_cast<size_t>(a.index) < buffers;
      if (!found) break;
      if (a.space == Space::kWeights) size = buffer_bytes(m.weights_bytes);
      else if (a.space == Space::kArena) size = buffer_bytes(arena_bytes);
      else size = tensors[static_cast<size_t>(a.index)].nbytes;
    }
    if (!found) return broken("step", step.symbol.data, "arguments in its inputs, outputs, weights and arena");
    int64_t nbytes, end;
    if (!find_dtype(a.dtype, a.element) || a.shape.size > CONVC_MAX_RANK ||
        (a.strides.size && a.strides.size != a.shape.size) || !extent(a.shape, a.strides, a.element, nbytes)) {
      return broken("step", step.symbol.data, "arguments of known type, shape and strides");
    }
    if (a.offset < 0 || a.offset % ((a.element.bits + 7) / 8) || __builtin_add_overflow(a.offset, nbytes, &end) ||
        static_cast<uint64_t>(end) > size) {
      return broken("step", step.symbol.data, "arguments that end within their buffers");
    }
  }
  return CONVC_OK;
}

}  // namespace

convc_status parse_manifest(char *text, size_t size, Bump &bump, Manifest &m) {
  int64_t format = 0;
  Reader reader(text, size, bump);
  const bool read = reader.manifest(m, format);
  // The format first: another one may have another form.
  if (format > kFormat) {
    return fail(CONVC_ERROR_FORMAT, "module must have a format from 1 to %lld; got %lld. Use a newer libconvc to load it.",
                static_cast<long long>(kFormat), static_cast<long long>(format));
  }
  if (!read) {
    return fail(CONVC_ERROR_FORMAT, "module's manifest must be JSON of format %lld; got something else at byte %zu.",
                static_cast<long long>(kFormat), reader.position());
  }
  if (format < 1) return fail(CONVC_ERROR_FORMAT, "module must have a format from 1 on; got %lld.", static_cast<long long>(format));
  if (m.open_area) {
    return fail(CONVC_ERROR_FORMAT, "module must have one height and width for libconvc; got open ones, which Python runs. "
                "Compile it for each size: --shape NAME:1x3x224x224.");
  }
  if (m.weights_bytes < 0) return fail(CONVC_ERROR_FORMAT, "module's weights_bytes must be at least 0; got %lld.", static_cast<long long>(m.weights_bytes));
  if (convc_status bad = check_tensors("input", m.inputs, m.batch())) return bad;
  if (convc_status bad = check_tensors("output", m.outputs, m.batch())) return bad;
  for (const Variant &v : m.variants) {
    if (v.arena_bytes < 0 || v.workspace_bytes < 0 || !v.entry.size) {
      return broken("variant", v.mcpu.data, "an entry function, arena_bytes >= 0 and workspace_bytes >= 0");
    }
    if (convc_status bad = check_sizes(m, v)) return bad;
    for (size_t part = 0; part < v.parts(); ++part) {
      for (const Step &step : v.steps_of(part)) {
        if (convc_status bad = check_step(m, part ? v.smaller[part - 1].arena_bytes : v.arena_bytes, step)) return bad;
      }
    }
  }
  return CONVC_OK;
}

}  // namespace convc
