// Device memory: every allocation ends against a page that nobody may touch, starts full of NaNs, and knows its own size. Outside of
// launches and copies nobody may touch the allocation either: host code that reads device memory dies here as it does on a GPU.
#include <sys/mman.h>

#include <cstring>
#include <map>
#include <mutex>

#include "engine_private.h"

namespace cuda_emulation {

namespace {

constexpr size_t PAGE = 4096, ALIGNMENT = 256;  // cudaMalloc's
constexpr size_t WALL = 16 << 20;               // nobody's memory: it costs no more than its entry in the page tables
constexpr unsigned char POISON = 0xff;

struct Allocation {
  char* base;     // of the mapping: [wall][slack][memory][slack][wall]
  size_t mapped;  // bytes, walls included
  size_t bytes;
};

std::mutex lock;
std::map<const char*, Allocation> allocations;
size_t used = 0;

bool poisoned(const char* from, const char* to) {
  for (; from < to; ++from)
    if (static_cast<unsigned char>(*from) != POISON) return false;
  return true;
}

}  // namespace

void* device_allocate(size_t bytes) {
  const size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT, body = (rounded + PAGE - 1) / PAGE * PAGE;
  char* base = static_cast<char*>(mmap(nullptr, body + 2 * WALL, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (base == MAP_FAILED) return nullptr;
  mprotect(base + WALL, body, PROT_READ | PROT_WRITE);
  memset(base + WALL, POISON, body);
  mprotect(base + WALL, body, PROT_NONE);
  char* memory = base + WALL + body - rounded;
  std::lock_guard<std::mutex> guard(lock);
  allocations[memory] = {base, body + 2 * WALL, bytes};
  used += bytes;
  return memory;
}

bool device_free(void* pointer) {
  std::lock_guard<std::mutex> guard(lock);
  auto found = allocations.find(static_cast<char*>(pointer));
  if (found == allocations.end()) return false;
  munmap(found->second.base, found->second.mapped);
  used -= found->second.bytes;
  allocations.erase(found);
  return true;
}

bool is_device_memory(const void* pointer, size_t bytes) {
  const char* p = static_cast<const char*>(pointer);
  std::lock_guard<std::mutex> guard(lock);
  auto next = allocations.upper_bound(p);
  if (next == allocations.begin()) return false;
  --next;
  return p + bytes <= next->first + next->second.bytes;
}

void device_open(bool open) {
  std::lock_guard<std::mutex> guard(lock);
  for (auto& [memory, a] : allocations)
    if (a.mapped > 2 * WALL) mprotect(a.base + WALL, a.mapped - 2 * WALL, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

size_t device_bytes_used() {
  std::lock_guard<std::mutex> guard(lock);
  return used;
}

std::string device_damage() {
  std::lock_guard<std::mutex> guard(lock);
  for (auto& [memory, a] : allocations) {
    const char *start = a.base + WALL, *end = a.base + a.mapped - WALL;
    const bool before = !poisoned(start, memory), behind = !poisoned(memory + a.bytes, end);
    if (!before && !behind) continue;
    memset(const_cast<char*>(start), POISON, memory - start);
    memset(const_cast<char*>(memory) + a.bytes, POISON, end - memory - a.bytes);
    return std::string("a write ") + (before ? "before the start" : "past the end") + " of an allocation of " +
           std::to_string(a.bytes) + " bytes";
  }
  return "";
}

std::string describe_address(const void* address) {
  const std::string shared = describe_shared(address);
  if (!shared.empty()) return shared;
  const char* p = static_cast<const char*>(address);
  for (auto& [memory, a] : allocations) {  // without the lock: this is called by a signal handler, in the thread that may hold it
    if (p < a.base || p >= a.base + a.mapped) continue;
    if (p >= memory && p < memory + a.bytes) return "device memory, an allocation of " + std::to_string(a.bytes) + " bytes";
    const long past = p - (memory + a.bytes), before = memory - p;
    return "an access " + (before > 0 ? std::to_string(before) + " bytes before the start" : std::to_string(past) + " bytes past the end") +
           " of an allocation of " + std::to_string(a.bytes) + " bytes";
  }
  return "an access to an address that is not the device's (null, freed, the host's or far out of bounds)";
}

}  // namespace cuda_emulation
