// What became of each call in this process, for the contexts to come: another thread makes the same plan by its engine's name, without
// heuristics or timing, and a call that was refused once is not tried again.
#pragma once
#include <atomic>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "plans.h"

namespace convc_cudnn {

// A model has some hundred convolutions; a process that runs many models does not keep the plans of all for ever.
inline constexpr size_t MOST_PLANS = 1024;

// The kernel of the module's own that stands beside such a call runs where cuDNN refuses it.
inline const std::string FALLS = "falls=1;";
inline bool falls(const std::string& description) { return description.compare(0, FALLS.size(), FALLS) == 0; }

// cuDNN, or the memory for it, is not there or says no; what makes no sense in a call (ValueError, TypeError) is convc's fault and stays one.
inline bool refuses(const Failure& failure) { return std::string(failure.kind) == "RuntimeError"; }

struct Fate {
  std::string engine;   // fields that name what was chosen; "" where nothing was yet
  std::string refused;  // why the module's own kernel runs in its place; "" where cuDNN does
  bool ran = false;     // cuDNN has computed it: an error from then on is one
};

// Never destroyed, see `Idle`.
class Choices {
 public:
  static Choices& get() {
    static Choices& choices = *new Choices;
    return choices;
  }

  Fate of(int device, const std::string& description, const std::vector<int64_t>& shapes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = fates_.find(key(device, description, shapes));
    return found == fates_.end() ? Fate() : found->second;
  }

  // Why a call was refused; "" where it was not. `shapes` makes them, where anything was refused at all.
  template <class Shapes>
  std::string refused(int device, const std::string& description, Shapes shapes) {
    if (!falls(description) || !refusals_) return "";
    return of(device, description, shapes()).refused;
  }

  // `change` decides: a call is refused or has run, never both, whichever contexts meet it at the same time.
  template <class Change>
  void note(int device, const std::string& description, const std::vector<int64_t>& shapes, Change change) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (fates_.size() >= MOST_PLANS) {
      // What may fall back stays as it was decided; there are as many of these as modules have in their code.
      for (auto at = fates_.begin(); at != fates_.end();) at = at->first.find(FALLS) == std::string::npos ? fates_.erase(at) : std::next(at);
    }
    change(fates_[key(device, description, shapes)]);
  }

  // Within a `note`'s change.
  void refuse(Fate& fate, const std::string& why) {
    fate.refused = why;
    ++refusals_;
  }

 private:
  static std::string key(int device, const std::string& description, const std::vector<int64_t>& shapes) {
    std::string text = std::to_string(device) + ";" + description;
    for (int64_t number : shapes) text += ";" + std::to_string(number);
    return text;
  }

  std::mutex mutex_;
  std::unordered_map<std::string, Fate> fates_;
  std::atomic<int> refusals_{0};
};

// What this thread's calls are given while somebody asks: a line for each, in their order.
class Watch {
 public:
  static void begin() {
    end();
    lines_ = new std::string;
  }
  static std::string end() {
    std::string text = lines_ ? *lines_ : "";
    delete lines_;
    lines_ = nullptr;
    return text;
  }
  template <class Line>
  static void note(Line line) {
    if (!lines_) return;
    std::string text = line();
    for (char& c : text)
      if (c == '\n') c = ' ';
    *lines_ += text + "\n";
  }

 private:
  // A pointer, and no variable that is destroyed when the thread ends: that would keep the module's code in memory until then.
  static inline thread_local std::string* lines_ = nullptr;
};

}  // namespace convc_cudnn
