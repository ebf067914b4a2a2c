// Barriers, shuffles and votes.
#pragma once

#define __syncthreads() cuda_emulation::block_barrier(__LINE__)
#define __syncthreads_count(p) cuda_emulation::block_barrier_count((p) != 0, __LINE__)
#define __syncthreads_or(p) (cuda_emulation::block_barrier_count((p) != 0, __LINE__) != 0)
#define __syncthreads_and(p) (cuda_emulation::block_barrier_count((p) == 0, __LINE__) == 0)
#define __syncwarp(...) cuda_emulation::sync_warp(__LINE__, ##__VA_ARGS__)
#define cudaGridDependencySynchronize() cuda_emulation::wait_for_grids_before()
#define cudaTriggerProgrammaticLaunchCompletion() static_cast<void>(0)
#define __activemask() cuda_emulation::active_mask(__LINE__)
#define __shfl_sync(mask, ...) cuda_emulation::shuffle<cuda_emulation::FromLane>(__LINE__, mask, __VA_ARGS__)
#define __shfl_up_sync(mask, ...) cuda_emulation::shuffle<cuda_emulation::FromBelow>(__LINE__, mask, __VA_ARGS__)
#define __shfl_down_sync(mask, ...) cuda_emulation::shuffle<cuda_emulation::FromAbove>(__LINE__, mask, __VA_ARGS__)
#define __shfl_xor_sync(mask, ...) cuda_emulation::shuffle<cuda_emulation::FromPartner>(__LINE__, mask, __VA_ARGS__)
#define __ballot_sync(mask, p) cuda_emulation::ballot(__LINE__, mask, (p) != 0).first
#define __any_sync(mask, p) (cuda_emulation::ballot(__LINE__, mask, (p) != 0).first != 0)
#define __all_sync(mask, p) cuda_emulation::all_of(cuda_emulation::ballot(__LINE__, mask, (p) != 0))

namespace cuda_emulation {

inline void sync_warp(int line, uint32_t mask = WHOLE_WARP) { collective(mask, nullptr, nullptr, line); }

// The lane to read from, or -1 for one's own value (CUDA C++ programming guide, warp shuffle functions).
struct FromLane {
  static int source(int lane, int n, int width) { return (lane & ~(width - 1)) + (n & (width - 1)); }
};
struct FromBelow {
  static int source(int lane, int n, int width) { return (lane & (width - 1)) >= n ? lane - n : -1; }
};
struct FromAbove {
  static int source(int lane, int n, int width) { return (lane & (width - 1)) + n < width ? lane + n : -1; }
};
struct FromPartner {
  static int source(int lane, int n, int width) { return ((lane ^ n) & ~(width - 1)) <= (lane & ~(width - 1)) ? lane ^ n : -1; }
};

struct Exchange {
  uint64_t given, taken;
  int source;
};

inline void exchange(void* const* lanes, uint32_t mask) {
  for (unsigned i = 0; i < WARP; ++i) {
    if (!(mask >> i & 1) || !lanes[i]) continue;
    Exchange& mine = *static_cast<Exchange*>(lanes[i]);
    const int from = mine.source < 0 ? static_cast<int>(i) : mine.source;
    // A lane that is not in the operation gives what CUDA calls undefined: here, a NaN.
    mine.taken = mask >> from & 1 && lanes[from] ? static_cast<Exchange*>(lanes[from])->given : ~uint64_t(0);
  }
}

template <class Which, class T>
T shuffle(int line, uint32_t mask, T value, int n, int width = 32) {
  static_assert(sizeof(T) <= 8, "a shuffle moves at most 64 bits");
  Exchange mine = {0, 0, Which::source(static_cast<int>(current->id % WARP), n, width)};
  memcpy(&mine.given, &value, sizeof value);
  collective(mask, exchange, &mine, line);
  memcpy(&value, &mine.taken, sizeof value);
  return value;
}

struct Vote {
  bool given;
  uint32_t ayes, voters;
};

inline void count_votes(void* const* lanes, uint32_t mask) {
  uint32_t ayes = 0, voters = 0;
  for (unsigned i = 0; i < WARP; ++i)
    if (mask >> i & 1 && lanes[i]) {
      voters |= 1u << i;
      ayes |= static_cast<uint32_t>(static_cast<Vote*>(lanes[i])->given) << i;
    }
  for (unsigned i = 0; i < WARP; ++i)
    if (voters >> i & 1) *static_cast<Vote*>(lanes[i]) = {false, ayes, voters};
}

inline std::pair<uint32_t, uint32_t> ballot(int line, uint32_t mask, bool given) {
  Vote mine = {given, 0, 0};
  collective(mask, count_votes, &mine, line);
  return {mine.ayes, mine.voters};
}
inline bool all_of(std::pair<uint32_t, uint32_t> votes) { return votes.first == votes.second; }

}  // namespace cuda_emulation
