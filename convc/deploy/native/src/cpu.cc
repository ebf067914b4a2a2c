#include "cpu.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "../include/convc.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace convc {

#if defined(__x86_64__)

const char *const kMachine = "x86_64";

namespace {

enum Register { kEax, kEbx, kEcx, kEdx };

// SOURCE  Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E. `state` are the XCR0 bits that the operating system must save:
// 6 is XMM and YMM, 0xe6 with the opmask and ZMM registers.
struct Feature {
  const char *name;
  unsigned leaf;
  unsigned subleaf;
  Register where;
  int bit;
  unsigned state;
};
constexpr Feature kFeatures[] = {
    {"sse3", 1, 0, kEcx, 0, 0},          {"ssse3", 1, 0, kEcx, 9, 0},
    {"fma", 1, 0, kEcx, 12, 6},          {"cx16", 1, 0, kEcx, 13, 0},
    {"sse4.1", 1, 0, kEcx, 19, 0},       {"sse4.2", 1, 0, kEcx, 20, 0},
    {"movbe", 1, 0, kEcx, 22, 0},        {"popcnt", 1, 0, kEcx, 23, 0},
    {"avx", 1, 0, kEcx, 28, 6},          {"f16c", 1, 0, kEcx, 29, 6},
    {"bmi", 7, 0, kEbx, 3, 0},           {"avx2", 7, 0, kEbx, 5, 6},
    {"bmi2", 7, 0, kEbx, 8, 0},          {"avx512f", 7, 0, kEbx, 16, 0xe6},
    {"avx512dq", 7, 0, kEbx, 17, 0xe6},  {"avx512ifma", 7, 0, kEbx, 21, 0xe6},
    {"avx512cd", 7, 0, kEbx, 28, 0xe6},  {"avx512bw", 7, 0, kEbx, 30, 0xe6},
    {"avx512vl", 7, 0, kEbx, 31, 0xe6},  {"avx512vbmi", 7, 0, kEcx, 1, 0xe6},
    {"avx512vbmi2", 7, 0, kEcx, 6, 0xe6}, {"avx512vnni", 7, 0, kEcx, 11, 0xe6},
    {"avx512bitalg", 7, 0, kEcx, 12, 0xe6}, {"avx512vpopcntdq", 7, 0, kEcx, 14, 0xe6},
    {"avx512fp16", 7, 0, kEdx, 23, 0xe6}, {"avxvnni", 7, 1, kEax, 4, 6},
    {"avx512bf16", 7, 1, kEax, 5, 0xe6}, {"lzcnt", 0x80000001, 0, kEcx, 5, 0},
};

unsigned enabled_state() {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0;  // OSXSAVE
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

}  // namespace

bool cpu_has(const Text &feature) {
  for (const Feature &known : kFeatures) {
    if (!feature.is(known.name)) continue;
    unsigned found[4] = {};
    return __get_cpuid_count(known.leaf, known.subleaf, &found[kEax], &found[kEbx], &found[kEcx], &found[kEdx]) &&
           (found[known.where] >> known.bit & 1) && (enabled_state() & known.state) == known.state;
  }
  return false;
}

#elif defined(__aarch64__)

const char *const kMachine = "aarch64";

namespace {

// SOURCE  Linux arch/arm64/include/uapi/asm/hwcap.h; numbers written out, since older headers lack the newer ones.
struct Feature {
  const char *name;
  bool second;
  int bit;
};
constexpr Feature kFeatures[] = {
    {"neon", false, 1},    {"aes", false, 3},   {"sha2", false, 6}, {"crc", false, 7},   {"lse", false, 8},
    {"fullfp16", false, 10}, {"dotprod", false, 20}, {"sve", false, 22}, {"sve2", true, 1}, {"i8mm", true, 13},
    {"bf16", true, 14},
};

}  // namespace

bool cpu_has(const Text &feature) {
  for (const Feature &known : kFeatures) {
    if (feature.is(known.name)) return getauxval(known.second ? AT_HWCAP2 : AT_HWCAP) >> known.bit & 1;
  }
  return false;
}

#else
#error "libconvc must be built for x86_64 or aarch64; this is another machine."
#endif

namespace {

// The first numbers of a small file; how many were read.
int read_numbers(const char *path, long long (&numbers)[2]) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  char text[64];
  const ssize_t size = read(file, text, sizeof text - 1);
  close(file);
  if (size <= 0) return 0;
  text[size] = 0;
  const int found = sscanf(text, "%lld %lld", &numbers[0], &numbers[1]);
  return found < 0 ? 0 : found;
}

// Cores' worth of time that the control group of this container may use, rounded up; 0 if there is no limit.
long long quota() {
  long long n[2], period[2];
  if (read_numbers("/sys/fs/cgroup/cpu.max", n) == 2 && n[0] > 0 && n[1] > 0) return (n[0] + n[1] - 1) / n[1];
  if (read_numbers("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", n) >= 1 && n[0] > 0 &&
      read_numbers("/sys/fs/cgroup/cpu/cpu.cfs_period_us", period) >= 1 && period[0] > 0) {
    return (n[0] + period[0] - 1) / period[0];
  }
  return 0;
}

}  // namespace

int usable_threads() {
  cpu_set_t set;
  const int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  const long long limit = quota();
  return limit > 0 && limit < cores ? static_cast<int>(limit) : cores;
}

}  // namespace convc

extern "C" int convc_usable_threads(void) { return convc::usable_threads(); }
