// cuDNN in a packaged module: one function, called by the module's own entry through its symbol. It is compiled by g++ when the model is
// exported and linked into the module, needs neither cuDNN nor CUDA then, and several modules with it live in one process.
//
//   convc_cudnn(description, tensors...)       runs a convolution, a pooling or a softmax on the current stream
//   convc_cudnn_plan(description, tensors...)  returns "engine=28;knobs=2:1;workspace=1024" of the plan that it would run, and runs nothing
//   convc_cudnn_plans()                        returns a line for each plan made so far: "engine=...;workspace=...;microseconds=210;spec=..."
#include <chrono>
#include <limits>
#include <list>
#include <mutex>
#include <unordered_map>

#include "../../native/host.h"
#include "choices.h"
#include "operation.h"
#include "plans.h"
#include "timer.h"

namespace convc_cudnn {

namespace {

// Contexts that no call uses: one for each call at the same time.
constexpr size_t MOST_IDLE = 16;

// What policy time runs: so many of cuDNN's choices, each once and then so many times between two events.
constexpr size_t MOST_TIMED = 8;
constexpr int TIMED_RUNS = 5;

bool convolves(const std::string& description) { return description.rfind("kind=pool", 0) != 0 && description.rfind("kind=softmax", 0) != 0; }

struct Entry {
  std::string key;
  std::vector<int64_t> shapes;
  std::unique_ptr<Graph> graph;
  Plan plan;
};

std::vector<int64_t> shapes_of(const std::vector<const DLTensor*>& tensors) {
  std::vector<int64_t> shapes;
  for (const DLTensor* tensor : tensors) {
    shapes.push_back(tensor->dtype.code * 1000 + tensor->dtype.bits);
    shapes.insert(shapes.end(), tensor->shape, tensor->shape + tensor->ndim);
    if (tensor->strides) shapes.insert(shapes.end(), tensor->strides, tensor->strides + tensor->ndim);
  }
  return shapes;
}

// One handle with its plans. cuDNN's handles must not be used by two threads at once: see `Lease`.
class Context {
 public:
  explicit Context(int device) : device_(device) {
    if (const char* json = std::getenv("CONVC_CUDNN_DEVICE_PROPERTIES")) {
      // A device described in JSON stands for one that is not here: plans can be made, nothing can run.
      properties_ = Descriptor(BACKEND_DEVICEPROP_DESCRIPTOR);
      properties_.set(ATTR_DEVICEPROP_JSON_REPRESENTATION, TYPE_CHAR, static_cast<int64_t>(strlen(json)) + 1, json);
      properties_.finalize("finalisation of the device's properties");
      return;
    }
    check(Library::get().cudnnCreate(&handle_), "cudnnCreate");
  }
  ~Context() {
    entries_.clear();
    // At a process' end the driver may be gone before its threads' variables; what cuDNN says to that is nobody's concern.
    if (handle_) Library::get().cudnnDestroy(handle_);
  }

  Entry& entry(const std::string& description, const std::vector<const DLTensor*>& tensors) {
    auto found = by_key_.find(description);
    std::string engine;
    if (found != by_key_.end()) {
      entries_.splice(entries_.begin(), entries_, found->second);
      if (entries_.front().shapes == shapes_of(tensors)) return entries_.front();
      // What one shape was given may do for the next one, too: nothing is searched again where that is wanted.
      const Plan& before = entries_.front().plan;
      if (Description(description).text("when") == "once") engine = ";engine=" + std::to_string(before.engine) + ";knobs=" + before.knobs;
      by_key_.erase(found);
      entries_.pop_front();
    }
    entries_.push_front(made(description, engine, tensors));
    by_key_[description] = entries_.begin();
    if (entries_.size() > MOST_PLANS) {
      by_key_.erase(entries_.back().key);
      entries_.pop_back();
    }
    return entries_.front();
  }

  Handle handle() const { return handle_; }

  void run(const std::string& description, const std::vector<const DLTensor*>& tensors) {
    if (!convolves(description)) return operate(description, tensors);
    Entry& e = entry(description, tensors);
    if (!handle_) CONVC_THROW(RuntimeError) << "a convolution must have a device to run on; got properties of one in CONVC_CUDNN_DEVICE_PROPERTIES.";
    check(Library::get().cudnnSetStream(handle_, stream()), "cudnnSetStream");
    check(execute(e.plan, *e.graph, tensors), "cudnnBackendExecute");
  }

 private:
  Stream stream() const { return current_stream(device_); }

  // `before`: fields that name an engine which is tried first; else what this call was given elsewhere.
  Entry made(const std::string& description, const std::string& before, const std::vector<const DLTensor*>& tensors) {
    const auto start = std::chrono::steady_clock::now();
    const std::string engine = before.empty() ? Choices::get().of(device_, description, shapes_of(tensors)) : before;
    Entry entry = planned(description, engine, tensors);
    const std::chrono::duration<double, std::micro> spent = std::chrono::steady_clock::now() - start;
    Choices::get().add(device_, description, entry.shapes, entry.plan, spent.count());
    return entry;
  }

  Entry planned(const std::string& description, const std::string& engine, const std::vector<const DLTensor*>& tensors) {
    const Description parsed(description);
    Entry entry = {description, shapes_of(tensors), std::make_unique<Graph>(parsed, tensors, handle_), Plan()};
    const Descriptor* properties = handle_ ? nullptr : &properties_;
    if (!engine.empty()) {
      try {
        const Description named(description + engine);
        entry.plan = Planner(*entry.graph, named, handle_, properties).choose();
        return entry;
      } catch (const Failure&) {
        // It does not take this shape: chosen anew, and convc_cudnn_plan says what.
      }
    }
    Planner planner(*entry.graph, parsed, handle_, properties);
    entry.plan = planner.timed() && handle_ ? fastest(planner.all(MOST_TIMED), *entry.graph, tensors) : planner.choose();
    return entry;
  }

  // The plan that takes least on these very tensors, whose result is computed by each of them.
  Plan fastest(std::vector<Plan> plans, const Graph& graph, const std::vector<const DLTensor*>& tensors) {
    if (plans.size() == 1) return std::move(plans[0]);
    Timer timer;
    check(Library::get().cudnnSetStream(handle_, stream()), "cudnnSetStream");
    size_t best = 0;
    float least = std::numeric_limits<float>::infinity();
    Status last = STATUS_SUCCESS;
    for (size_t i = 0; i < plans.size(); ++i) {
      Status status = execute(plans[i], graph, tensors);
      timer.begin(stream());
      for (int run = 0; run < TIMED_RUNS && status == STATUS_SUCCESS; ++run) status = execute(plans[i], graph, tensors);
      const float taken = timer.end(stream());
      if (status != STATUS_SUCCESS) {
        last = status;
      } else if (taken < least) {
        least = taken;
        best = i;
      }
    }
    if (least == std::numeric_limits<float>::infinity()) check(last, "cudnnBackendExecute with every engine that policy time tried");
    return std::move(plans[best]);
  }

  Status execute(const Plan& plan, const Graph& graph, const std::vector<const DLTensor*>& tensors) {
    std::vector<void*> pointers;
    for (const DLTensor* tensor : tensors) pointers.push_back(static_cast<char*>(tensor->data) + tensor->byte_offset);
    const HostMemory workspace(device_, plan.workspace);
    void* memory = workspace.address();
    if (plan.workspace && !memory) {
      CONVC_THROW(RuntimeError) << "cuDNN's workspace for " << current_spec << " must fit the device; got no memory for " << plan.workspace
                                << " bytes. Compile with a smaller --workspace-limit.";
    }
    Descriptor pack(BACKEND_VARIANT_PACK_DESCRIPTOR);
    pack.set(ATTR_VARIANT_PACK_DATA_POINTERS, TYPE_VOID_PTR, static_cast<int64_t>(pointers.size()), pointers.data())
        .set(ATTR_VARIANT_PACK_UNIQUE_IDS, graph.identifiers())
        .set(ATTR_VARIANT_PACK_WORKSPACE, TYPE_VOID_PTR, 1, &memory)
        .finalize("finalisation of the variant pack");
    return Library::get().cudnnBackendExecute(handle_, plan.descriptor.raw(), pack.raw());
  }

  void operate(const std::string& description, const std::vector<const DLTensor*>& tensors) {
    if (!handle_) CONVC_THROW(RuntimeError) << "an operation must have a device to run on; got properties of one in CONVC_CUDNN_DEVICE_PROPERTIES.";
    if (operations_.size() >= MOST_PLANS) operations_.clear();
    auto& [shapes, operation] = operations_[description];
    if (!operation || shapes != shapes_of(tensors)) {
      shapes = shapes_of(tensors);
      operation = std::make_unique<Operation>(Description(description), tensors);
    }
    check(Library::get().cudnnSetStream(handle_, stream()), "cudnnSetStream");
    std::vector<void*> pointers;
    for (const DLTensor* tensor : tensors) pointers.push_back(static_cast<char*>(tensor->data) + tensor->byte_offset);
    operation->run(handle_, pointers);
  }

  int device_;
  Handle handle_ = nullptr;
  Descriptor properties_;
  std::unordered_map<std::string, std::pair<std::vector<int64_t>, std::unique_ptr<Operation>>> operations_;
  std::list<Entry> entries_;  // the latest first
  std::unordered_map<std::string, std::list<Entry>::iterator> by_key_;
};

// A context that nobody else uses meanwhile, the one of this stream if there is one: whatever a thread's call has made there serves the next
// one, from whichever thread. Another stream's is taken before a new one is made, since plans are of a device and cuDNN is told the stream
// at each call. So there are as many contexts as there were calls at the same time.
class Lease {
 public:
  explicit Lease(int device) : idle_(Idle::get()), key_(device, current_stream(device)) {
    {
      const std::lock_guard<std::mutex> lock(idle_.mutex);
      auto found = idle_.contexts.end();
      for (auto at = idle_.contexts.begin(); at != idle_.contexts.end(); ++at) {
        if (at->first.first != key_.first) continue;
        if (found == idle_.contexts.end() || at->first == key_) found = at;
        if (at->first == key_) break;
      }
      if (found != idle_.contexts.end()) {
        found->first = key_;
        held_.splice(held_.begin(), idle_.contexts, found);
        return;
      }
    }
    held_.emplace_front(key_, std::make_unique<Context>(device));
  }
  ~Lease() {
    Contexts oldest;  // destroyed behind the lock
    const std::lock_guard<std::mutex> lock(idle_.mutex);
    idle_.contexts.splice(idle_.contexts.begin(), held_);
    if (idle_.contexts.size() > MOST_IDLE) oldest.splice(oldest.begin(), idle_.contexts, std::prev(idle_.contexts.end()));
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  Context* operator->() const { return held_.front().second.get(); }

 private:
  using Key = std::pair<int, Stream>;
  using Contexts = std::list<std::pair<Key, std::unique_ptr<Context>>>;
  struct Idle {
    std::mutex mutex;
    Contexts contexts;  // the latest first

    static Idle& get() {
      // After cuDNN was opened, so that at the process' end this goes first.
      Library::get();
      static Idle idle;
      return idle;
    }
  };

  Idle& idle_;
  Key key_;
  Contexts held_;  // one
};

struct Call {
  std::string description;
  std::vector<const DLTensor*> tensors;

  Call(const TVMFFIAny* arguments, int32_t count) {
    if (count > 0) description = text_of(arguments[0]);
    const bool convolution = convolves(description);
    if (count < (convolution ? 4 : 3)) {
      CONVC_THROW(ValueError) << "a cuDNN call must have a description and " << (convolution ? "three" : "two") << " tensors at least; got " << count << " arguments.";
    }
    for (int32_t i = 1; i < count; ++i) tensors.push_back(tensor_of(arguments[i]));
    for (const DLTensor* tensor : tensors)
      if (tensor->device.device_type != kDLCUDA && !std::getenv("CONVC_CUDNN_DEVICE_PROPERTIES"))
        CONVC_THROW(ValueError) << "cuDNN must be given memory of a CUDA device; got device type " << tensor->device.device_type << ".";
    const size_t at = description.rfind("spec=");
    current_spec = at == std::string::npos ? description : description.substr(at + 5);
  }

  Lease context() const { return Lease(tensors[0]->device.device_id); }
};

}  // namespace

}  // namespace convc_cudnn

extern "C" {

TVM_FFI_DLL_EXPORT int __tvm_ffi_convc_cudnn(void*, const TVMFFIAny* arguments, int32_t count, TVMFFIAny*) {
  return convc_cudnn::guarded([&] {
    const convc_cudnn::Call call(arguments, count);
    call.context()->run(call.description, call.tensors);
  });
}

TVM_FFI_DLL_EXPORT int __tvm_ffi_convc_cudnn_plan(void*, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  return convc_cudnn::guarded([&] {
    const convc_cudnn::Call call(arguments, count);
    const std::string words = call.context()->entry(call.description, call.tensors).plan.words();
    const TVMFFIByteArray bytes = {words.data(), words.size()};
    TVMFFIStringFromByteArray(&bytes, result);
  });
}

TVM_FFI_DLL_EXPORT int __tvm_ffi_convc_cudnn_plans(void*, const TVMFFIAny*, int32_t, TVMFFIAny* result) {
  return convc_cudnn::guarded([&] {
    const std::string lines = convc_cudnn::Choices::get().lines();
    const TVMFFIByteArray bytes = {lines.data(), lines.size()};
    TVMFFIStringFromByteArray(&bytes, result);
  });
}
}
