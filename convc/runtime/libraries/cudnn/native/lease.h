// Whose turn it is to use a context, and when contexts go.
#pragma once
#include <list>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "context.h"

namespace convc_cudnn {

// Contexts that no call uses: one for each call at the same time.
constexpr size_t MOST_IDLE = 16;

// Contexts that no call uses. Never destroyed by the process' end: CUDA must not be called there ("CUDA interfaces use global state that is
// initialized during host program initiation and destroyed during host program termination", CUDA C++ Programming Guide, "Initialization"),
// and a handle's destruction is such a call; the driver takes everything back with the process. Whoever unloads the module while the
// process goes on says so before, by `convc_cudnn_users`.
class Idle {
 public:
  using Key = std::pair<int, Stream>;
  using Contexts = std::list<std::pair<Key, std::unique_ptr<Context>>>;

  static Idle& get() {
    static Idle& idle = *new Idle;
    return idle;
  }

  // The one of this stream if there is one, else another stream's of the same device; empty if there is none.
  Contexts take(const Key& key) {
    Contexts taken;
    const std::lock_guard<std::mutex> lock(mutex_);
    auto found = contexts_.end();
    for (auto at = contexts_.begin(); at != contexts_.end(); ++at) {
      if (at->first.first != key.first) continue;
      if (found == contexts_.end() || at->first == key) found = at;
      if (at->first == key) break;
    }
    if (found == contexts_.end()) return taken;
    found->first = key;
    taken.splice(taken.begin(), contexts_, found);
    return taken;
  }

  void give(Contexts& held) {
    Contexts oldest;  // destroyed behind the lock
    const std::lock_guard<std::mutex> lock(mutex_);
    contexts_.splice(contexts_.begin(), held);
    if (contexts_.size() > MOST_IDLE) oldest.splice(oldest.begin(), contexts_, std::prev(contexts_.end()));
  }

  // One more (1) or one less (-1) of those who have loaded this code; behind the last the contexts go.
  void users(int64_t more) {
    Contexts all;
    const std::lock_guard<std::mutex> lock(mutex_);
    users_ += more;
    if (users_ <= 0) all.swap(contexts_);
  }

 private:
  std::mutex mutex_;
  Contexts contexts_;  // the latest first
  int64_t users_ = 0;
};

// A context that nobody else uses meanwhile: whatever a thread's call has made there serves the next one, from whichever thread. Another
// stream's is taken before a new one is made, since plans are of a device and cuDNN is told the stream at each call. So there are as many
// contexts as there were calls at the same time.
class Lease {
 public:
  explicit Lease(int device) : held_(Idle::get().take({device, current_stream(device)})) {
    if (held_.empty()) held_.emplace_front(Idle::Key(device, current_stream(device)), std::make_unique<Context>(device));
  }
  ~Lease() { Idle::get().give(held_); }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  Context* operator->() const { return held_.front().second.get(); }

 private:
  Idle::Contexts held_;  // one
};

// Whether there is cuDNN on a device at all, decided by its first call: a call that falls back asks no second time, and none that has had
// cuDNN runs by another algorithm later.
class Presence {
 public:
  static Presence& get() {
    static Presence& presence = *new Presence;
    return presence;
  }

  // Lease a context, or say why there is none. The first handle is made behind the lock: calls that meet there are told the same.
  void lease(int device, bool falls, std::optional<Lease>& into, std::string& absent) {
    if (falls) {
      const std::lock_guard<std::mutex> lock(mutex_);
      const auto found = said_.find(device);
      if (found == said_.end()) return decide(device, into, absent);
      absent = found->second;
    }
    if (absent.empty()) into.emplace(device);
  }

 private:
  void decide(int device, std::optional<Lease>& into, std::string& absent) {
    try {
      into.emplace(device);
    } catch (const Failure& failure) {
      if (!refuses(failure)) throw;
      absent = failure.text;
    }
    said_.emplace(device, absent);
  }

  std::mutex mutex_;
  std::unordered_map<int, std::string> said_;  // device -> why there is none; "" where there is
};

}  // namespace convc_cudnn
