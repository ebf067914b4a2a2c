// What cuDNN's calls were given in this process, for the contexts to come and for reports.
#pragma once
#include <cmath>
#include <list>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "plans.h"

namespace convc_cudnn {

// A model has some hundred convolutions; a process that runs many models does not keep the plans of all for ever.
inline constexpr size_t MOST_PLANS = 1024;

// What was chosen for a call, by whichever thread: another one makes the same plan by its engine's name, without heuristics or timing.
class Choices {
 public:
  static Choices& get() {
    static Choices choices;
    return choices;
  }

  // Fields that name the engine; "" where nothing was chosen yet.
  std::string of(int device, const std::string& description, const std::vector<int64_t>& shapes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = made_.find(key(device, description, shapes));
    return found == made_.end() ? "" : found->second;
  }

  void add(int device, const std::string& description, const std::vector<int64_t>& shapes, const Plan& plan, double microseconds) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (made_.size() >= MOST_PLANS) made_.clear();
    made_[key(device, description, shapes)] = ";engine=" + std::to_string(plan.engine) + ";knobs=" + plan.knobs;
    if (lines_.size() >= MOST_PLANS) lines_.pop_front();
    lines_.push_back(plan.words() + ";microseconds=" + std::to_string(std::llround(microseconds)) + ";spec=" + current_spec);
  }

  std::string lines() {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::string text;
    for (const std::string& line : lines_) text += (text.empty() ? "" : "\n") + line;
    return text;
  }

 private:
  static std::string key(int device, const std::string& description, const std::vector<int64_t>& shapes) {
    std::string text = std::to_string(device) + ";" + description;
    for (int64_t number : shapes) text += ";" + std::to_string(number);
    return text;
  }

  std::mutex mutex_;
  std::unordered_map<std::string, std::string> made_;
  std::list<std::string> lines_;
};

}  // namespace convc_cudnn
