// From an operation graph to an execution plan: by engine and knobs where the model's plan names them, else by cuDNN's heuristics
// among the engines that the policy admits.
#pragma once
#include <algorithm>
#include <array>

#include "graph.h"
#include "unnoted.h"

namespace convc_cudnn {

struct Plan {
  // What the plan was made from lives as long as it: cuDNN does not say that it copies.
  std::vector<Descriptor> sources;
  Descriptor descriptor;
  int64_t engine = -1;
  int64_t workspace = 0;
  std::string knobs;  // of the engine, as its configuration has them: 2:1,17:4
  bool compiled = false;  // by cuDNN, in this process

  // What names this plan again, without heuristics.
  std::string words() const {
    return "engine=" + std::to_string(engine) + ";knobs=" + knobs + ";workspace=" + std::to_string(workspace) + (compiled ? ";compiled=1" : "");
  }
};

// The familiar names (Theano's and cuDNN's enumeration), in the graph interface's terms.
struct Policy {
  std::vector<Value> modes = {HEUR_MODE_A, HEUR_MODE_FALLBACK};
  std::vector<int> needed, banned;
  int64_t workspace_limit = 0;
  bool timed = false;  // run the first ones of each mode that can be made, take the fastest
  bool compiles;  // whether an engine may be one that cuDNN compiles in this process

  explicit Policy(const Description& d) : workspace_limit(d.integer("workspace")), compiles(d.integer("compiles")) {
    const std::string& name = d.text("policy");
    if (name == "none" || name == "small" || name == "large") {
      if (name == "none") workspace_limit = 0;
      if (name == "small") workspace_limit = std::min<int64_t>(workspace_limit, int64_t(8) << 20);
    } else if (name == "fft" || name == "fft_tiling") {
      needed = {NUMERICAL_NOTE_FFT};
    } else if (name == "winograd" || name == "winograd_non_fused") {
      needed = {NUMERICAL_NOTE_WINOGRAD};
    } else if (name == "deterministic") {
      banned = {NUMERICAL_NOTE_NONDETERMINISTIC};
    } else if (name == "heuristic_b") {
      modes = {HEUR_MODE_B, HEUR_MODE_FALLBACK};
    } else if (name == "fallback") {
      modes = {HEUR_MODE_FALLBACK};
    } else if (name == "time") {
      modes = {HEUR_MODE_A, HEUR_MODE_B, HEUR_MODE_FALLBACK};
      timed = true;
      if (d.number("beta") != 0) {
        CONVC_THROW(ValueError) << "policy time must have beta = 0, since the result is computed again and again; got beta = " << d.number("beta") << ".";
      }
    } else if (name != "heuristic") {
      CONVC_THROW(ValueError) << "policy must be none, small, large, fft, fft_tiling, winograd, winograd_non_fused, deterministic,"
                                 " heuristic, heuristic_b, fallback or time; got '" << name << "'.";
    }
    // Without being asked for, no sums of transformed values: they round where the direct sum does not.
    if (needed.empty() && (!d.integer("transforms") || name == "none" || name == "small" || name == "large")) {
      banned.insert(banned.end(), {NUMERICAL_NOTE_FFT, NUMERICAL_NOTE_WINOGRAD});
    }
    // Sums are float32's, as far as is known.
    banned.push_back(NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION);
    if (d.integer("deterministic")) banned.push_back(NUMERICAL_NOTE_NONDETERMINISTIC);
    const std::string& math = d.text("math");
    if (math == "strict") {
      banned.push_back(NUMERICAL_NOTE_TENSOR_CORE);
      banned.push_back(NUMERICAL_NOTE_DOWN_CONVERT_INPUTS);
    } else if (math != "any") {
      CONVC_THROW(ValueError) << "math must be strict or any; got '" << math << "'.";
    }
  }

  bool admits(const std::vector<int>& notes) const {
    auto has = [&](int note) { return std::find(notes.begin(), notes.end(), note) != notes.end(); };
    return std::all_of(needed.begin(), needed.end(), has) && std::none_of(banned.begin(), banned.end(), has);
  }
};

class Planner {
 public:
  // `properties` stands for a device that is not here; without it `handle` must be one.
  Planner(const Graph& graph, const Description& d, Handle handle, const Descriptor* properties)
      : graph_(graph), description_(d), policy_(d), handle_(handle), properties_(properties) {}

  bool timed() const { return policy_.timed && description_.text("engine").empty(); }

  // The plan of the description's rank among those that can be made, the last where there are fewer.
  // Throws RuntimeError, with the last reason, if no engine is usable.
  Plan choose() {
    std::vector<Plan> plans = all(static_cast<size_t>(description_.integer("rank")) + 1);
    return std::move(plans.back());
  }

  // As many plans as wanted, `of_each` of the heuristics or in all, or as there are, in cuDNN's order; at least one.
  std::vector<Plan> all(size_t wanted, bool of_each = false) {
    std::vector<Plan> plans;
    if (!description_.text("engine").empty()) {
      plans.push_back(named());
      return plans;
    }
    offered(wanted, of_each, plans);
    if (plans.empty() && held_back_) {
      // Better one that cuDNN compiles here than none.
      policy_.compiles = true;
      offered(wanted, of_each, plans);
    }
    if (!plans.empty()) return plans;
    CONVC_THROW(RuntimeError) << "cuDNN " << Library::get().cudnnGetVersion() << " must have an engine for " << current_spec << " with policy '"
                                << description_.text("policy") << "'; got none: " << last_ << "." << hint();
  }

 private:
  std::string hint() const {
    const std::string& name = description_.text("policy");
    if (name.rfind("fft", 0) == 0) return " convc has an FFT algorithm of its own: --algo fft.";
    if (name.rfind("winograd", 0) == 0) return " convc has a Winograd algorithm of its own: --algo winograd.";
    return "";
  }

  void offered(size_t wanted, bool of_each, std::vector<Plan>& plans) {
    for (Value mode : policy_.modes) {
      const size_t most = of_each ? plans.size() + wanted : wanted;
      if (plans.size() < most) among(mode, most, plans);
    }
  }

  // engine=28;knobs=2:1,17:4: as recorded when the model was tuned.
  Plan named() {
    Descriptor engine(BACKEND_ENGINE_DESCRIPTOR);
    engine.set(ATTR_ENGINE_OPERATION_GRAPH, graph_.descriptor());
    engine.set(ATTR_ENGINE_GLOBAL_INDEX, {description_.integer("engine")});
    if (properties_) engine.set(ATTR_ENGINE_DEVICEPROP, *properties_);
    engine.finalize("finalisation of the engine that the model's plan names");
    std::vector<Descriptor> choices;
    std::vector<RawDescriptor> raw;
    for (const std::string& pair : split(description_.text("knobs"), ',')) {
      const std::vector<std::string> parts = split(pair, ':');
      const int type = std::atoi(parts.at(0).c_str());
      Descriptor choice(BACKEND_KNOB_CHOICE_DESCRIPTOR);
      choice.set(ATTR_KNOB_CHOICE_KNOB_TYPE, TYPE_KNOB_TYPE, 1, &type);
      choice.set(ATTR_KNOB_CHOICE_KNOB_VALUE, {std::strtoll(parts.at(1).c_str(), nullptr, 10)});
      choices.push_back(std::move(choice.finalize("finalisation of a knob")));
      raw.push_back(choices.back().raw());
    }
    Descriptor configuration(BACKEND_ENGINECFG_DESCRIPTOR);
    configuration.set(ATTR_ENGINECFG_ENGINE, engine);
    if (!raw.empty()) configuration.set(ATTR_ENGINECFG_KNOB_CHOICES, TYPE_BACKEND_DESCRIPTOR, static_cast<int64_t>(raw.size()), raw.data());
    configuration.finalize("finalisation of the engine's configuration");
    Plan plan;
    check(finish(configuration.raw(), plan), "finalisation of the plan that the model names");
    if (plan.workspace > policy_.workspace_limit) {
      CONVC_THROW(RuntimeError) << "engine " << description_.text("engine") << ", which the model's plan names for " << current_spec
                                << ", must need at most " << policy_.workspace_limit << " bytes of workspace; got " << plan.workspace
                                << " with cuDNN " << Library::get().cudnnGetVersion() << ".";
    }
    plan.engine = description_.integer("engine");
    plan.knobs = description_.text("knobs");
    plan.compiled = compiled(engine);
    plan.sources.push_back(std::move(engine));
    for (Descriptor& choice : choices) plan.sources.push_back(std::move(choice));
    plan.sources.push_back(std::move(configuration));
    return plan;
  }

  void among(Value mode, size_t wanted, std::vector<Plan>& plans) {
    Descriptor heuristics(BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristics.set(ATTR_ENGINEHEUR_OPERATION_GRAPH, graph_.descriptor()).set(ATTR_ENGINEHEUR_MODE, TYPE_HEUR_MODE, mode);
    if (properties_) heuristics.set(ATTR_ENGINEHEUR_DEVICEPROP, *properties_);
    if (const Status status = heuristics.try_finalize(); status != STATUS_SUCCESS) {
      // A mode may not know a graph that the next one does.
      last_ = words_of(status);
      return;
    }
    const int64_t offered = heuristics.get(ATTR_ENGINEHEUR_RESULTS, TYPE_BACKEND_DESCRIPTOR, 0, nullptr);
    std::vector<Descriptor> configurations;
    std::vector<RawDescriptor> raw;
    for (int64_t i = 0; i < offered; ++i) {
      configurations.emplace_back(BACKEND_ENGINECFG_DESCRIPTOR);
      raw.push_back(configurations.back().raw());
    }
    const int64_t given = heuristics.get(ATTR_ENGINEHEUR_RESULTS, TYPE_BACKEND_DESCRIPTOR, offered, raw.data());
    if (!given) last_ = "no engine is offered";
    for (int64_t i = 0; i < given && plans.size() < wanted; ++i) {
      Plan plan;
      Descriptor engine(BACKEND_ENGINE_DESCRIPTOR);
      RawDescriptor into = engine.raw();
      configurations[i].get(ATTR_ENGINECFG_ENGINE, TYPE_BACKEND_DESCRIPTOR, 1, &into);
      plan.engine = engine.get_integer(ATTR_ENGINE_GLOBAL_INDEX);
      plan.knobs = knobs_of(configurations[i]);
      if (!policy_.admits(notes_of(engine, plan))) {
        last_ = "the policy excludes every engine that is offered";
        continue;
      }
      plan.compiled = compiled(engine);
      if (plan.compiled && !policy_.compiles) {
        held_back_ = true;
        continue;
      }
      if (const Status status = finish(raw[i], plan); status != STATUS_SUCCESS) {
        last_ = words_of(status);
        continue;
      }
      if (plan.workspace > policy_.workspace_limit) {
        last_ = "every admitted engine needs more workspace than " + std::to_string(policy_.workspace_limit) + " bytes";
        continue;
      }
      const bool known = std::any_of(plans.begin(), plans.end(), [&](const Plan& p) { return p.engine == plan.engine && p.knobs == plan.knobs; });
      if (known) continue;  // modes repeat one another
      plan.sources.push_back(std::move(configurations[i]));
      plans.push_back(std::move(plan));
    }
  }

  static std::string knobs_of(const Descriptor& configuration) {
    constexpr int64_t MOST = 64;  // kinds of knobs; cuDNN 9 has 38
    std::vector<Descriptor> choices;
    std::vector<RawDescriptor> raw;
    for (int64_t i = 0; i < MOST; ++i) {
      choices.emplace_back(BACKEND_KNOB_CHOICE_DESCRIPTOR);
      raw.push_back(choices.back().raw());
    }
    const int64_t count = configuration.get(ATTR_ENGINECFG_KNOB_CHOICES, TYPE_BACKEND_DESCRIPTOR, MOST, raw.data());
    std::string text;
    for (int64_t i = 0; i < count; ++i) {
      int type = 0;
      choices[i].get(ATTR_KNOB_CHOICE_KNOB_TYPE, TYPE_KNOB_TYPE, 1, &type);
      text += (i ? "," : "") + std::to_string(type) + ":" + std::to_string(choices[i].get_integer(ATTR_KNOB_CHOICE_KNOB_VALUE));
    }
    return text;
  }

  static bool compiled(const Descriptor& engine) {
    std::vector<int> notes(BEHAVIOR_NOTE_TYPE_COUNT + 16);
    notes.resize(engine.get(ATTR_ENGINE_BEHAVIOR_NOTE, TYPE_BEHAVIOR_NOTE, static_cast<int64_t>(notes.size()), notes.data()));
    return std::find(notes.begin(), notes.end(), BEHAVIOR_NOTE_RUNTIME_COMPILATION) != notes.end();
  }

  std::vector<int> notes_of(const Descriptor& engine, const Plan& plan) const {
    std::vector<int> notes(NUMERICAL_NOTE_TYPE_COUNT + 16);
    notes.resize(engine.get(ATTR_ENGINE_NUMERICAL_NOTE, TYPE_NUMERICAL_NOTE, static_cast<int64_t>(notes.size()), notes.data()));
    complete(notes, description_.text("kind"), plan.engine, plan.knobs, graph_.half());
    return notes;
  }

  Status finish(RawDescriptor configuration, Plan& plan) {
    plan.descriptor = Descriptor(BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    plan.descriptor.set(ATTR_EXECUTION_PLAN_ENGINE_CONFIG, TYPE_BACKEND_DESCRIPTOR, 1, &configuration);
    if (properties_)
      plan.descriptor.set(ATTR_EXECUTION_PLAN_DEVICEPROP, *properties_);
    else
      plan.descriptor.set(ATTR_EXECUTION_PLAN_HANDLE, TYPE_HANDLE, 1, &handle_);
    const Status status = plan.descriptor.try_finalize();
    if (status == STATUS_SUCCESS) plan.workspace = plan.descriptor.get_integer(ATTR_EXECUTION_PLAN_WORKSPACE_SIZE);
    return status;
  }

  const Graph& graph_;
  const Description& description_;
  Policy policy_;
  Handle handle_;
  const Descriptor* properties_;
  std::string last_;
  bool held_back_ = false;  // whether an engine was passed over since cuDNN would have had to compile it
};

}  // namespace convc_cudnn
