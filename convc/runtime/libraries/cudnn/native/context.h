// A handle of cuDNN's with its plans, and the calls that run by it.
#pragma once
#include <chrono>
#include <cmath>
#include <limits>
#include <list>
#include <unordered_map>

#include "../../native/host.h"
#include "choices.h"
#include "operation.h"
#include "plans.h"
#include "timer.h"

namespace convc_cudnn {

// What policy time runs: so many of the choices of each of cuDNN's heuristics (as many as PyTorch's benchmark, by default), each once and then
// so many times between two events; those near the fastest again, in turns, so that a change of the clock is shared by them.
constexpr size_t MOST_TIMED = 10;
constexpr int TIMED_RUNS = 5, TIMED_TURNS = 3;
constexpr float NEAR = 1.1f;

inline bool convolves(const std::string& description) {
  const size_t begin = falls(description) ? FALLS.size() : 0;
  return description.compare(begin, 9, "kind=pool") != 0 && description.compare(begin, 12, "kind=softmax") != 0;
}

inline std::vector<int64_t> shapes_of(const std::vector<const DLTensor*>& tensors) {
  std::vector<int64_t> shapes;
  for (const DLTensor* tensor : tensors) {
    shapes.push_back(tensor->dtype.code * 1000 + tensor->dtype.bits);
    shapes.insert(shapes.end(), tensor->shape, tensor->shape + tensor->ndim);
    if (tensor->strides) shapes.insert(shapes.end(), tensor->strides, tensor->strides + tensor->ndim);
  }
  return shapes;
}

// What a context knows of a call: what it was made into, or why it was refused.
struct Known {
  std::vector<int64_t> shapes;
  std::string refused;
  bool ran = false;
};

struct Entry : Known {
  std::string key;
  std::unique_ptr<Graph> graph;
  Plan plan;
  double microseconds = 0;  // that making the plan took; 0 once somebody was told
};

struct Made : Known {
  std::unique_ptr<Operation> operation;
};

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
    operations_.clear();
    if (handle_) Library::get().cudnnDestroy(handle_);
  }

  Handle handle() const { return handle_; }

  // The plan of a convolution, made if it is new; or why there is none, of a call that falls back.
  Entry& entry(const std::string& description, const std::vector<const DLTensor*>& tensors) {
    auto found = by_key_.find(description);
    std::string engine;
    if (found != by_key_.end()) {
      entries_.splice(entries_.begin(), entries_, found->second);
      if (entries_.front().shapes == shapes_of(tensors)) return entries_.front();
      // What one shape was given may do for the next one, too: nothing is searched again where that is wanted.
      const Entry& last = entries_.front();
      const Plan& before = last.plan;
      if (last.refused.empty() && Description(description).text("when") == "once") engine = ";engine=" + std::to_string(before.engine) + ";knobs=" + before.knobs;
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

  // Whether cuDNN has computed it; if not, the module's own kernel is to.
  bool run(const std::string& description, const std::vector<const DLTensor*>& tensors) {
    if (!handle_) CONVC_THROW(RuntimeError) << "a call must have a device to run on; got properties of one in CONVC_CUDNN_DEVICE_PROPERTIES.";
    if (!convolves(description)) return operate(description, tensors);
    Entry& e = entry(description, tensors);
    attempt(e, description, [&] {
      check(Library::get().cudnnSetStream(handle_, stream()), "cudnnSetStream");
      check(execute(e.plan, *e.graph, tensors), "cudnnBackendExecute");
    });
    Watch::note([&] {
      if (!e.refused.empty()) return "refused=" + e.refused;
      const std::string spent = std::to_string(std::llround(std::exchange(e.microseconds, 0)));
      return e.plan.words() + ";microseconds=" + spent + ";spec=" + current_spec;
    });
    return e.refused.empty();
  }

 private:
  Stream stream() const { return current_stream(device_); }

  // Do it, unless it was refused before. What is refused before it has run once is the module's own kernel's from then on, if it has one; what
  // has run does not change its algorithm any more.
  template <class Doing>
  void attempt(Known& known, const std::string& description, Doing doing) {
    if (!known.refused.empty()) return;
    if (known.ran) return doing();
    try {
      doing();
    } catch (const Failure& failure) {
      refuse(known, description, failure);
      return;
    }
    // Refused meanwhile in another context: the module's own kernel here, too, which writes the same result once more.
    Choices::get().note(device_, description, known.shapes, [&](Fate& fate) {
      known.refused = fate.refused;
      fate.ran = known.ran = fate.refused.empty();
    });
  }

  void refuse(Known& known, const std::string& description, const Failure& failure) {
    if (!falls(description) || !refuses(failure)) throw failure;
    Choices::get().note(device_, description, known.shapes, [&](Fate& fate) {
      if (fate.ran) throw failure;  // in another context
      if (fate.refused.empty()) Choices::get().refuse(fate, failure.text);
      known.refused = fate.refused;
    });
  }

  // `before`: fields that name an engine which is tried first; else what this call was given elsewhere.
  Entry made(const std::string& description, const std::string& before, const std::vector<const DLTensor*>& tensors) {
    const auto start = std::chrono::steady_clock::now();
    Entry entry;
    entry.key = description;
    entry.shapes = shapes_of(tensors);
    const Fate fate = Choices::get().of(device_, description, entry.shapes);
    entry.refused = fate.refused;
    entry.ran = fate.ran;
    if (!entry.refused.empty()) return entry;
    try {
      plan(entry, before.empty() ? fate.engine : before, tensors);
    } catch (const Failure& failure) {
      refuse(entry, description, failure);
      return entry;
    }
    entry.microseconds = std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
    Choices::get().note(device_, description, entry.shapes, [&](Fate& made) {
      made.engine = ";engine=" + std::to_string(entry.plan.engine) + ";knobs=" + entry.plan.knobs;
    });
    return entry;
  }

  void plan(Entry& entry, const std::string& engine, const std::vector<const DLTensor*>& tensors) {
    const Description parsed(entry.key);
    entry.graph = std::make_unique<Graph>(parsed, tensors, handle_);
    const Descriptor* properties = handle_ ? nullptr : &properties_;
    if (!engine.empty()) {
      try {
        const Description named(entry.key + engine);
        entry.plan = Planner(*entry.graph, named, handle_, properties).choose();
        return;
      } catch (const Failure&) {
        // It does not take this shape: chosen anew, and convc_cudnn_plan says what.
      }
    }
    Planner planner(*entry.graph, parsed, handle_, properties);
    entry.plan = planner.timed() && handle_ ? fastest(planner.all(MOST_TIMED, true), *entry.graph, tensors) : planner.choose();
  }

  // The plan that takes least on these very tensors, whose result is computed by each of them.
  Plan fastest(std::vector<Plan> plans, const Graph& graph, const std::vector<const DLTensor*>& tensors) {
    if (plans.size() == 1) return std::move(plans[0]);
    Timer timer;
    check(Library::get().cudnnSetStream(handle_, stream()), "cudnnSetStream");
    constexpr float never = std::numeric_limits<float>::infinity();
    Status last = STATUS_SUCCESS;
    const auto measured = [&](const Plan& plan) {
      Status status = STATUS_SUCCESS;
      timer.begin(stream());
      for (int run = 0; run < TIMED_RUNS && status == STATUS_SUCCESS; ++run) status = execute(plan, graph, tensors);
      const float taken = timer.end(stream());
      return status == STATUS_SUCCESS ? taken : (last = status, never);
    };
    std::vector<float> taken;
    for (const Plan& plan : plans) {
      const Status status = execute(plan, graph, tensors);
      taken.push_back(status == STATUS_SUCCESS ? measured(plan) : (last = status, never));
    }
    const float least = *std::min_element(taken.begin(), taken.end());
    if (least == never) check(last, "cudnnBackendExecute with every engine that policy time tried");
    std::vector<size_t> near;
    for (size_t i = 0; i < plans.size(); ++i)
      if (taken[i] <= NEAR * least) near.push_back(i);
    for (int turn = 0; turn < TIMED_TURNS && near.size() > 1; ++turn)
      for (size_t i : near) taken[i] = std::min(taken[i], measured(plans[i]));
    const size_t best = *std::min_element(near.begin(), near.end(), [&](size_t a, size_t b) { return taken[a] < taken[b]; });
    return std::move(plans[best]);
  }

  Status execute(const Plan& plan, const Graph& graph, const std::vector<const DLTensor*>& tensors) {
    std::vector<void*> pointers = addresses_of(tensors);
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

  bool operate(const std::string& description, const std::vector<const DLTensor*>& tensors) {
    if (operations_.size() >= MOST_PLANS) operations_.clear();
    Made& made = operations_[description];
    if (std::vector<int64_t> shapes = shapes_of(tensors); made.shapes != shapes) {
      const Fate fate = Choices::get().of(device_, description, shapes);
      made = Made();
      made.shapes = std::move(shapes);
      made.refused = fate.refused;
      made.ran = fate.ran;
    }
    attempt(made, description, [&] {
      if (!made.operation) made.operation = std::make_unique<Operation>(Description(description), tensors);
      check(Library::get().cudnnSetStream(handle_, stream()), "cudnnSetStream");
      made.operation->run(handle_, addresses_of(tensors));
    });
    Watch::note([&] { return made.refused.empty() ? std::string("spec=") + current_spec : "refused=" + made.refused; });
    return made.refused.empty();
  }

  static std::vector<void*> addresses_of(const std::vector<const DLTensor*>& tensors) {
    std::vector<void*> pointers;
    for (const DLTensor* tensor : tensors) pointers.push_back(static_cast<char*>(tensor->data) + tensor->byte_offset);
    return pointers;
  }

  int device_;
  Handle handle_ = nullptr;
  Descriptor properties_;
  std::unordered_map<std::string, Made> operations_;
  std::list<Entry> entries_;  // the latest first
  std::unordered_map<std::string, std::list<Entry>::iterator> by_key_;
};

}  // namespace convc_cudnn
