// How far two cores are from each other: the time in which a line of the cache goes from one to the other and back.

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>

namespace {

std::atomic<int> line;

bool Pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  return pthread_setaffinity_np(pthread_self(), sizeof set, &set) == 0;
}

struct Other {
  int core, rounds;
  bool pinned;
};

void *Answer(void *argument) {
  auto *other = static_cast<Other *>(argument);
  other->pinned = Pin(other->core);
  line.store(0, std::memory_order_release);
  for (int i = 0; i < other->rounds; ++i) {
    while (line.load(std::memory_order_acquire) != 2 * i + 1) {
    }
    line.store(2 * i + 2, std::memory_order_release);
  }
  return nullptr;
}

}  // namespace

// Returns seconds of one round, or a negative number if a thread could not be made or put on its core; leaves the caller where it may run.
extern "C" double core_distance(int first, int second, int rounds) {
  cpu_set_t before;
  pthread_t thread;
  if (pthread_getaffinity_np(pthread_self(), sizeof before, &before) != 0) return -1;
  bool pinned = Pin(first);
  line.store(-1, std::memory_order_release);
  Other other{second, rounds, false};
  if (pthread_create(&thread, nullptr, Answer, &other) != 0) {
    pthread_setaffinity_np(pthread_self(), sizeof before, &before);
    return -1;
  }
  while (line.load(std::memory_order_acquire) != 0) {
  }
  auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < rounds; ++i) {
    line.store(2 * i + 1, std::memory_order_release);
    while (line.load(std::memory_order_acquire) != 2 * i + 2) {
    }
  }
  std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
  pthread_join(thread, nullptr);
  pthread_setaffinity_np(pthread_self(), sizeof before, &before);
  return pinned && other.pinned ? taken.count() / rounds : -1;
}
