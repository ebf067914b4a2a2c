// The threads of one context, and each thread's workspace.
//
// A context owns its threads: contexts share nothing but the read-only module, so eight of them need no lock between them. Workers
// spin a little for the next kernel of the same run (microseconds away) and sleep between runs.
#ifndef CONVC_POOL_H_
#define CONVC_POOL_H_

#include <pthread.h>

#include <atomic>

#include "abi.h"
#include "error.h"
#include "workspace.h"

namespace convc {

class Pool {
 public:
  Pool() = default;
  Pool(const Pool &) = delete;
  Pool &operator=(const Pool &) = delete;
  ~Pool() { stop(); }

  // Start `threads` - 1 workers in place of those there were, with so much workspace for each thread.
  convc_status start(int threads, size_t workspace_bytes);
  int threads() const { return threads_; }

  // Whether the workers stayed behind in a process that this one was forked from: a launch would wait for them for ever.
  bool orphaned() const { return started_ && forks_ != forks_so_far(); }

  // Run tasks 0 to `tasks` - 1 (0: as many as threads) and return 0, or -1 with the message of one that failed.
  int launch(ParallelLambda lambda, void *data, int tasks);

  size_t workspace_bytes() const;

  // While it exists, kernels that the calling thread runs use this pool and its first workspace.
  class Use {
   public:
    explicit Use(Pool &pool);
    ~Use();
    Use(const Use &) = delete;
    Use &operator=(const Use &) = delete;

   private:
    Pool *before_pool_;
    Workspace *before_workspace_;
  };

 private:
  struct Worker {
    Pool *pool;
    int index;
    pthread_t thread;
  };

  // How many forks lie between the process that first made a pool and this one.
  static uint32_t forks_so_far();
  static void *work(void *worker);
  void run_tasks(int index);
  void stop();

  int threads_ = 0;
  int started_ = 0;
  uint32_t forks_ = 0;
  Worker *workers_ = nullptr;
  Workspace *workspaces_ = nullptr;

  // A cache line each for what different threads wait for: a worker that looks at `round_` again and again would otherwise take
  // the line away from the caller between any two of its writes.
  static constexpr size_t kLine = 64;

  // The job; written before `round_` is raised, read after.
  alignas(kLine) ParallelLambda lambda_ = nullptr;
  void *data_ = nullptr;
  int tasks_ = 0;
  bool stopping_ = false;
  std::atomic<int> failed_{0};

  alignas(kLine) std::atomic<uint32_t> round_{0};    // raised for each job: what workers wait for
  alignas(kLine) std::atomic<uint32_t> pending_{0};  // workers that have not finished it: what the caller waits for
  alignas(kLine) std::atomic<uint32_t> sleepers_{0}; // workers asleep, or about to be
  std::atomic<uint32_t> caller_sleeps_{0};
  char message_[512];
};

}  // namespace convc
#endif  // CONVC_POOL_H_
