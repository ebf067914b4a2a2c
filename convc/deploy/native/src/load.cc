// Loading: file, format, checksum, ABI, CPU and device are checked in this order, and only then is any code of the module loaded.
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <new>

#include "cpu.h"
#include "module.h"
#include "sha256.h"

namespace convc {
namespace {

// The backend interface in abi.h has stayed the same within these.
constexpr const char *kTvm = "0.27.";
constexpr const char *kTvmFfi = "0.1.";

bool starts_with(const Text &text, const char *start) { return strncmp(text.data, start, strlen(start)) == 0; }

const char *first_missing(const Variant &variant) {
  for (const Text &feature : variant.features) {
    if (!cpu_has(feature)) return feature.data;
  }
  return nullptr;
}

bool right_machine(const Variant &variant) {
  const size_t length = strlen(kMachine);
  return variant.triple.size >= length && memcmp(variant.triple.data, kMachine, length) == 0 &&
         (variant.triple.size == length || variant.triple.data[length] == '-');
}

bool runs_here(const Variant &variant) { return variant.kind.is("llvm") || variant.on_device(); }

// The variant that this CPU can run and that asks most of it, the first of equals; only `asked` counts unless it is NULL.
const Variant *choose(const Manifest &manifest, const Variant *asked) {
  const Variant *best = nullptr;
  for (const Variant &variant : manifest.variants) {
    if (asked && &variant != asked) continue;
    if (!runs_here(variant) || !right_machine(variant) || first_missing(variant)) continue;
    if (!best || variant.features.size > best->features.size) best = &variant;
  }
  return best;
}

// The variant that a caller wants; NULL if it does not name any.
convc_status find_asked(const Manifest &manifest, const char *cpu, const Variant *&asked) {
  if (!cpu) return CONVC_OK;
  char names[512];
  size_t used = 0;
  names[0] = 0;
  for (const Variant &variant : manifest.variants) {
    if (variant.mcpu.is(cpu)) return asked = &variant, CONVC_OK;
    const int added = snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", variant.mcpu.data);
    if (added < 0 || (used += static_cast<size_t>(added)) >= sizeof names) break;
  }
  return fail(CONVC_ERROR_ARGUMENT, "cpu must be one that the module has code for: %s; got '%s'.", names, cpu);
}

convc_status no_variant(const Manifest &manifest, const Variant *asked) {
  const Variant &first = asked ? *asked : manifest.variants[0];
  if (!runs_here(first)) {
    return fail(CONVC_ERROR_TARGET, "module must be for target llvm or cuda; got '%s', which this libconvc does not run.", first.kind.data);
  }
  if (!right_machine(first)) {
    return fail(CONVC_ERROR_TARGET, "module must run on its target %s; got a machine of kind %s.", first.triple.data, kMachine);
  }
  char wanted[512];
  size_t used = 0;
  wanted[0] = 0;
  for (const Variant &variant : manifest.variants) {
    if (asked && &variant != asked) continue;
    const char *lack = first_missing(variant);
    const int added = snprintf(wanted + used, sizeof wanted - used, "%s%s (needs %s)", used ? ", " : "", variant.mcpu.data, lack ? lack : "another machine");
    if (added < 0 || (used += static_cast<size_t>(added)) >= sizeof wanted) break;
  }
  return fail(CONVC_ERROR_TARGET, "module must run on a CPU that one of its variants is made for: %s; got one without. Compile it with --mcpu for this machine.", wanted);
}

convc_status check_abi(const Manifest &m) {
  if (!starts_with(m.tvm, kTvm) || !starts_with(m.tvm_ffi, kTvmFfi)) {
    return fail(CONVC_ERROR_FORMAT, "module must be made with apache-tvm %sx and apache-tvm-ffi %sx; got %s and %s. Use the libconvc of the convc that made it.",
                kTvm, kTvmFfi, m.tvm.data, m.tvm_ffi.data);
  }
  return CONVC_OK;
}

convc_status check_weights(const convc_module &module) {
  Sha256 sum;
  sum.add(module.weights, buffer_bytes(module.manifest.weights_bytes));
  unsigned char digest[Sha256::kBytes];
  sum.finish(digest);
  char got[65];
  if (!same_digest(digest, module.manifest.weights_sha256.data, got)) {
    return fail(CONVC_ERROR_CHECKSUM, "weights of '%s' must have SHA-256 %s; got %s. The file is damaged.", module.manifest.name.data,
                module.manifest.weights_sha256.data, got);
  }
  return CONVC_OK;
}

// Read the manifest and look at the weights' size; from a file or from the program's own memory.
convc_status describe(convc_module &module, const void *manifest, size_t manifest_size, const unsigned char *weights,
                      size_t weights_size, const convc_load_options &options) {
  module.manifest_json = static_cast<const char *>(manifest);
  module.manifest_size = manifest_size;
  module.manifest_text = static_cast<char *>(malloc(manifest_size + 1));
  if (!module.manifest_text) return fail(CONVC_ERROR_MEMORY, "memory must be enough for a manifest of %zu bytes; got none.", manifest_size);
  memcpy(module.manifest_text, manifest, manifest_size);
  module.manifest_text[manifest_size] = 0;
  if (convc_status bad = parse_manifest(module.manifest_text, manifest_size, module.bump, module.manifest)) return bad;
  const size_t expected = buffer_bytes(module.manifest.weights_bytes);
  if (weights_size != expected) return fail(CONVC_ERROR_FORMAT, "module's weights must have %zu bytes; got %zu.", expected, weights_size);
  module.weights = weights;
  if (convc_status bad = find_asked(module.manifest, options.cpu, module.asked)) return bad;
  module.variant = choose(module.manifest, module.asked);
  return options.verify_weights ? check_weights(module) : CONVC_OK;
}

convc_status open_file(convc_module &module, const char *path, const convc_load_options &options) {
  if (convc_status bad = module.file.open(path, options.expect_sha256)) return bad;
  const ModuleFile &file = module.file;
  return describe(module, file.data() + file.manifest.offset, file.manifest.size, file.data() + file.weights.offset,
                  file.weights.size, options);
}

template <typename Function>
void fill(const convc_module &module, const char *name, Function function) {
  // TVM's code calls through variables of its own; a module without such calls has none.
  if (void *variable = module.find(name)) *static_cast<Function *>(variable) = function;
}

convc_status add_entry(convc_module &module, const Text &name) {
  SafeCall *place = module.entries.add(module.bump);
  if (!place) return fail(CONVC_ERROR_MEMORY, "memory must be enough for a module; got none.");
  *place = module.function(name.data);
  return *place ? CONVC_OK : fail(CONVC_ERROR_FORMAT, "module must export its entry '%s'; got no such symbol.", name.data);
}

// The code is there: connect it with this library.
convc_status connect(convc_module &module) {
  if (module.find("__TVMBackendParallelBarrier")) {
    return fail(CONVC_ERROR_FORMAT, "module must not call TVMBackendParallelBarrier; got one that does, which this libconvc does not have.");
  }
  fill(module, "__TVMBackendParallelLaunch", &parallel_launch);
  fill(module, "__TVMBackendAllocWorkspace", &alloc_workspace);
  fill(module, "__TVMBackendFreeWorkspace", &free_workspace);
  fill(module, "__TVMFFIHandleInitOnce", &handle_init_once);
  fill(module, "__TVMFFIEnvModLookupFromImports", &lookup_from_imports);
  fill(module, "__TVMFFIFunctionCall", &function_call);
  fill(module, "convc_stream", &current_stream);
  fill(module, "convc_take_workspace", &alloc_workspace);
  fill(module, "convc_give_workspace", &free_workspace);
  fill(module, "convc_raise", &raise_from_parts);
  if (convc_status bad = add_entry(module, module.variant->entry)) return bad;
  for (const Sized &part : module.variant->smaller) {
    if (convc_status bad = add_entry(module, part.entry)) return bad;
  }
  if (!module.device) return CONVC_OK;
  const auto *kernels = static_cast<const unsigned char *>(module.find("__tvm_ffi__library_bin"));
  if (convc_status bad = module.device->load(kernels, module.weights, buffer_bytes(module.manifest.weights_bytes))) return bad;
  share_library(module, 1);
  module.shares_library = true;
  return CONVC_OK;
}

// The device and the driver that the module needs are there.
convc_status find_device(convc_module &module, int index) {
  void *memory = malloc(sizeof(Device));
  if (!memory) return fail(CONVC_ERROR_MEMORY, "memory must be enough for a device; got none.");
  module.device = new (memory) Device;
  if (convc_status bad = module.device->find(*module.variant, index)) return bad;
  // Without it the module's own kernels run where each call has one: making a context says so.
  return calls_cudnn(*module.variant) && !may_fall_back(*module.variant) ? find_cudnn() : CONVC_OK;
}

convc_status load_code(convc_module &module, int device) {
  if (convc_status bad = check_abi(module.manifest)) return bad;
  if (!module.variant) return no_variant(module.manifest, module.asked);
  if (module.variant->on_device()) {
    if (convc_status bad = find_device(module, device)) return bad;
  }
  if (!module.linked) {
    module.library = module.file.load_code();
    if (!module.library) return fail(CONVC_ERROR_FILE, "module file '%s' must load; got %s.", module.file.path(), dlerror());
    if (convc_status bad = module.file.check_unchanged()) return bad;
  }
  return connect(module);
}

// Options as this library knows them; those of an older caller are shorter.
convc_status read_options(const convc_load_options *given, convc_load_options &options) {
  options = {};
  if (!given) return CONVC_OK;
  if (given->size < offsetof(convc_load_options, verify_weights) || given->size > 4096) {
    return fail(CONVC_ERROR_ARGUMENT, "options.size must be sizeof(convc_load_options); got %zu.", given->size);
  }
  memcpy(&options, given, given->size < sizeof options ? given->size : sizeof options);
  return CONVC_OK;
}

// Make a module with `open`, load its code if asked for, hand it out.
template <typename Open>
convc_status make(convc_module **out, bool with_code, int device, Open open) {
  if (!out) return fail(CONVC_ERROR_ARGUMENT, "module must be a pointer to a handle; got NULL.");
  *out = nullptr;
  void *memory = malloc(sizeof(convc_module));
  if (!memory) return fail(CONVC_ERROR_MEMORY, "memory must be enough for a module; got none.");
  auto *module = new (memory) convc_module;
  convc_status status = open(*module);
  if (!status && with_code) status = load_code(*module, device);
  if (status) {
    release(module);
    return status;
  }
  *out = module;
  return CONVC_OK;
}

convc_status from_file(const char *path, const convc_load_options *given, convc_module **out, bool with_code) {
  convc_load_options options;
  if (!path) return fail(CONVC_ERROR_ARGUMENT, "path must be a file's name; got NULL.");
  if (convc_status bad = read_options(given, options)) return bad;
  return make(out, with_code, options.device, [&](convc_module &module) { return open_file(module, path, options); });
}

}  // namespace

convc_module *hold(convc_module *module) {
  module->owners.fetch_add(1, std::memory_order_relaxed);
  return module;
}

void release(convc_module *module) {
  if (module->owners.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    module->~convc_module();
    free(module);
  }
}

}  // namespace convc

convc_module::~convc_module() {
  if (shares_library) {
    // cuDNN's handles are of the device's context: they go first, while that is there. Not by the code's own static variables, which the
    // dynamic loader destroys in its own order, at a process' end behind CUDA.
    const convc::Device::Current current(*device);
    convc::share_library(*this, -1);
  }
  if (device) {
    device->~Device();
    free(device);
  }
  if (library) dlclose(library);
  free(manifest_text);
}

void *convc_module::find(const char *name) const {
  if (!linked) return dlsym(library, name);
  for (uint64_t i = 0; i < linked->symbol_count; ++i) {
    if (strcmp(linked->symbols[i].name, name) == 0) return linked->symbols[i].address;
  }
  return nullptr;
}

convc::SafeCall convc_module::function(const char *name) const {
  char symbol[1024];
  const int length = snprintf(symbol, sizeof symbol, "__tvm_ffi_%s", name);
  if (length < 0 || static_cast<size_t>(length) >= sizeof symbol) return nullptr;
  return reinterpret_cast<convc::SafeCall>(find(symbol));
}

extern "C" {

uint32_t convc_api_version(void) { return CONVC_API_VERSION; }

convc_status convc_load(const char *path, const convc_load_options *options, convc_module **module) {
  return convc::from_file(path, options, module, true);
}

convc_status convc_inspect(const char *path, const convc_load_options *options, convc_module **module) {
  return convc::from_file(path, options, module, false);
}

convc_status convc_load_static(const convc_static_module *linked, const convc_load_options *given, convc_module **module) {
  convc_load_options options;
  if (!linked || linked->form != 1) return convc::fail(CONVC_ERROR_ARGUMENT, "linked must be a static module of form 1; got another. Link it with the libconvc it came with.");
  if (convc_status bad = convc::read_options(given, options)) return bad;
  if (options.expect_sha256) return convc::fail(CONVC_ERROR_ARGUMENT, "expect_sha256 must be NULL for a module that is linked in; got '%s'.", options.expect_sha256);
  return convc::make(module, true, options.device, [&](convc_module &made) {
    made.linked = linked;
    return convc::describe(made, linked->manifest, linked->manifest_bytes, linked->weights, linked->weights_bytes, options);
  });
}

void convc_unload(convc_module *module) {
  if (module) convc::release(module);
}

}  // extern "C"
