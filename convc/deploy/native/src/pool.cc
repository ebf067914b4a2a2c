#include "pool.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <new>

#include "device.h"

namespace convc {
namespace {

thread_local Pool *current_pool = nullptr;
thread_local Workspace *current_workspace = nullptr;

// Tens of microseconds (not measured): longer than what lies between two kernels of one run, short against a time slice.
constexpr int kSpins = 2000;

void breathe() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  __asm__ __volatile__("yield");
#endif
}

void sleep_while(std::atomic<uint32_t> &word, uint32_t value) {
  syscall(SYS_futex, reinterpret_cast<uint32_t *>(&word), FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

// Counted by the C library's own hook, since asking for the process's number at each run is a system call.
std::atomic<uint32_t> forks{0};
pthread_once_t watched = PTHREAD_ONCE_INIT;
int unwatched = 0;  // why forks cannot be counted

void count_fork() { forks.fetch_add(1, std::memory_order_relaxed); }
void watch_forks() { unwatched = pthread_atfork(nullptr, nullptr, count_fork); }

void wake(std::atomic<uint32_t> &word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t *>(&word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace

uint32_t Pool::forks_so_far() { return forks.load(std::memory_order_relaxed); }

convc_status Pool::start(int threads, size_t workspace_bytes) {
  stop();
  pthread_once(&watched, watch_forks);
  if (unwatched) return fail(CONVC_ERROR_MEMORY, "memory must be enough to watch for forks; got none (%s).", strerror(unwatched));
  forks_ = forks_so_far();
  workers_ = static_cast<Worker *>(calloc(static_cast<size_t>(threads), sizeof(Worker)));
  workspaces_ = static_cast<Workspace *>(calloc(static_cast<size_t>(threads), sizeof(Workspace)));
  if (!workers_ || !workspaces_) {
    stop();
    return fail(CONVC_ERROR_MEMORY, "memory must be enough for %d threads; got none.", threads);
  }
  for (int i = 0; i < threads; ++i) new (&workspaces_[i]) Workspace;
  threads_ = threads;
  for (int i = 0; i < threads; ++i) {
    if (!workspaces_[i].reserve(workspace_bytes)) {
      stop();
      return fail(CONVC_ERROR_MEMORY, "memory must be enough for a workspace of %zu bytes for each of %d threads; got none.", workspace_bytes, threads);
    }
  }
  for (int i = 1; i < threads; ++i) {
    workers_[i] = {this, i, {}};
    const int reason = pthread_create(&workers_[i].thread, nullptr, work, &workers_[i]);
    if (reason) {
      stop();
      return fail(CONVC_ERROR_MEMORY, "threads must be as many as the system gives; got %d of %d (%s).", i, threads, strerror(reason));
    }
    ++started_;
  }
  return CONVC_OK;
}

void Pool::stop() {
  if (started_ && !orphaned()) {
    stopping_ = true;
    round_.fetch_add(1);
    wake(round_);
    for (int i = 1; i <= started_; ++i) pthread_join(workers_[i].thread, nullptr);
    stopping_ = false;
  }
  for (int i = 0; workspaces_ && i < threads_; ++i) workspaces_[i].~Workspace();
  free(workspaces_);
  free(workers_);
  workspaces_ = nullptr;
  workers_ = nullptr;
  threads_ = started_ = 0;
  round_.store(0);
  // Of workers that a fork left behind.
  sleepers_.store(0);
}

void *Pool::work(void *given) {
  auto *worker = static_cast<Worker *>(given);
  Pool &pool = *worker->pool;
  current_pool = &pool;
  current_workspace = &pool.workspaces_[worker->index];
  // A job may have been announced before this thread ran its first instruction: the pool starts at round 0.
  for (uint32_t seen = 0;; ++seen) {
    for (int spins = 0; pool.round_.load(std::memory_order_acquire) == seen; ++spins) {
      if (spins < kSpins) {
        breathe();
        continue;
      }
      // Counted before the last look, and the caller looks at the count after raising the round: one of the two sees the other.
      pool.sleepers_.fetch_add(1);
      if (pool.round_.load() == seen) sleep_while(pool.round_, seen);
      pool.sleepers_.fetch_sub(1);
    }
    if (pool.stopping_) return nullptr;
    pool.run_tasks(worker->index);
    if (pool.pending_.fetch_sub(1) == 1 && pool.caller_sleeps_.load()) wake(pool.pending_);
  }
}

void Pool::run_tasks(int index) {
  ParallelEnv env = {nullptr, tasks_};
  for (int task = index; task < tasks_; task += threads_) {
    if (lambda_(task, &env, data_) != 0) {
      // One message is enough, and the first to fail writes it.
      if (failed_.exchange(1) == 0) snprintf(message_, sizeof message_, "%s", convc_last_error());
      return;
    }
  }
}

int Pool::launch(ParallelLambda lambda, void *data, int tasks) {
  tasks_ = tasks > 0 ? tasks : threads_;
  lambda_ = lambda;
  data_ = data;
  failed_.store(0, std::memory_order_relaxed);
  if (started_) {
    pending_.store(static_cast<uint32_t>(started_));
    round_.fetch_add(1);
    if (sleepers_.load()) wake(round_);
  }
  run_tasks(0);
  int spins = 0;
  for (uint32_t left; started_ && (left = pending_.load(std::memory_order_acquire)) != 0;) {
    if (++spins < kSpins) {
      breathe();
      continue;
    }
    caller_sleeps_.store(1);
    left = pending_.load();
    if (left) sleep_while(pending_, left);
    caller_sleeps_.store(0);
  }
  if (!failed_.load(std::memory_order_relaxed)) return 0;
  fail(CONVC_ERROR_RUN, "%s", message_);
  return -1;
}

size_t Pool::workspace_bytes() const {
  size_t sum = 0;
  for (int i = 0; i < threads_; ++i) sum += workspaces_[i].bytes();
  return sum;
}

Pool::Use::Use(Pool &pool) : before_pool_(current_pool), before_workspace_(current_workspace) {
  current_pool = &pool;
  current_workspace = &pool.workspaces_[0];
}

Pool::Use::~Use() {
  current_pool = before_pool_;
  current_workspace = before_workspace_;
}

int parallel_launch(ParallelLambda lambda, void *data, int tasks) {
  if (!current_pool) {
    fail(CONVC_ERROR_RUN, "a kernel must run inside convc_run; got a call from elsewhere.");
    return -1;
  }
  return current_pool->launch(lambda, data, tasks);
}

void *alloc_workspace(int device_type, int, uint64_t nbytes, int, int) {
  if (DeviceRun *run = device_type == kDLCUDA ? current_device_run() : nullptr) return run->take_workspace(nbytes);
  void *memory = current_workspace && nbytes < SIZE_MAX / 2 ? current_workspace->take(nbytes) : nullptr;
  if (!memory) fail(CONVC_ERROR_MEMORY, "memory must be enough for a workspace of %llu bytes; got none.", static_cast<unsigned long long>(nbytes));
  return memory;
}

int free_workspace(int device_type, int, void *memory) {
  DeviceRun *run = device_type == kDLCUDA ? current_device_run() : nullptr;
  if (run ? run->give_workspace(memory) : current_workspace && current_workspace->give(memory)) return 0;
  fail(CONVC_ERROR_RUN, "a workspace must be given back by the thread that took it; got another.");
  return -1;
}

}  // namespace convc
