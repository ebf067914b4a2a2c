// Each block's shared memory, of those of a cluster: static arrays apart from each other, the dynamic part against a wall.
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <vector>

#include "engine_private.h"

namespace cuda_emulation {

namespace {

constexpr unsigned char POISON = 0xff;  // a NaN in every float type, -1 in the integers
constexpr size_t WALL = 1 << 20, GAP = 128;
// Room for the gaps between static arrays; their sum is limited by what they hold.
constexpr size_t STATIC_ROOM = 256 << 10, DYNAMIC_ROOM = 256 << 10;

struct Array {
  size_t offset, bytes;
};

constexpr size_t ALL = STATIC_ROOM + DYNAMIC_ROOM + 3 * WALL;
// An address in a window of the cluster: rank + 1 and what it is within a block.
constexpr int WINDOW_BITS = 24;
static_assert(ALL < size_t(1) << WINDOW_BITS, "a block's memory fits a window");

struct Window {
  char* arena = nullptr;      // [wall][static arrays][wall][dynamic][wall]
  std::vector<Array> arrays;  // by declaration; bytes 0: not met in this block
  size_t static_used = 0, static_bytes = 0;
  char* statics() const { return arena + WALL; }
  char* dynamic_end() const { return arena + WALL + STATIC_ROOM + WALL + DYNAMIC_ROOM; }
  char* dynamic() const;
};
Window windows[MAX_CLUSTER];
Window* own = windows;
size_t dynamic_bytes = 0;

// Swizzled layouts count on 1024-byte alignment; what that leaves before the wall is checked at the block's end.
char* Window::dynamic() const { return dynamic_end() - (dynamic_bytes + 1023) / 1024 * 1024; }

bool poisoned(const char* from, const char* to) {
  for (; from < to; ++from)
    if (static_cast<unsigned char>(*from) != POISON) return false;
  return true;
}

}  // namespace

std::string shared_begin_launch(size_t bytes, unsigned blocks) {
  dynamic_bytes = bytes;
  for (Window* w = windows; w < windows + blocks; ++w) {
    if (!w->arena) {
      w->arena = static_cast<char*>(mmap(nullptr, ALL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
      if (w->arena == MAP_FAILED) abort();
      mprotect(w->arena, WALL, PROT_NONE);
      mprotect(w->arena + WALL + STATIC_ROOM, WALL, PROT_NONE);
      mprotect(w->arena + ALL - WALL, WALL, PROT_NONE);
    }
    memset(w->statics(), POISON, STATIC_ROOM);
    w->arrays.clear();
    w->static_used = w->static_bytes = 0;
  }
  return "";
}

void shared_select(unsigned rank) { own = windows + rank; }

void shared_begin_block() {
  memset(own->dynamic(), POISON, own->dynamic_end() - own->dynamic());
  memset(own->statics(), POISON, own->static_used);
  own->arrays.assign(own->arrays.size(), {0, 0});
  own->static_used = own->static_bytes = 0;
}

std::string shared_end_block() {
  for (const Array& array : own->arrays) {
    const char* end = own->statics() + array.offset + array.bytes;
    if (array.bytes && !poisoned(end, end + GAP)) return "a write past the end of a __shared__ array of " + std::to_string(array.bytes) + " bytes";
  }
  if (!poisoned(own->dynamic() + dynamic_bytes, own->dynamic_end()))
    return "a write past the end of " + std::to_string(dynamic_bytes) + " bytes of dynamic shared memory";
  return "";
}

void* shared_array(int declaration, size_t bytes, size_t alignment) {
  if (own->arrays.size() <= static_cast<size_t>(declaration)) own->arrays.resize(declaration + 1);
  Array& array = own->arrays[declaration];
  if (!array.bytes) {
    own->static_bytes += bytes;
    if (own->static_bytes > STATIC_SHARED) fail("static __shared__ arrays of more than 48 KiB", 0);
    if (own->static_bytes + dynamic_bytes > MAX_SHARED) fail("static and dynamic shared memory of more than 227 KiB", 0);
    array.offset = (own->static_used + alignment - 1) / alignment * alignment;
    array.bytes = bytes;
    own->static_used = array.offset + bytes + GAP;
    if (own->static_used > STATIC_ROOM) fail("too many __shared__ arrays for this emulation", 0);
  }
  return own->statics() + array.offset;
}

char* dynamic_shared() { return own->dynamic(); }

uint32_t shared_address(const void* pointer) { return static_cast<uint32_t>(static_cast<const char*>(pointer) - own->arena); }

uint32_t in_window(uint32_t address, unsigned rank) { return (address & ((1u << WINDOW_BITS) - 1)) | (rank + 1) << WINDOW_BITS; }

int window_of(uint32_t address) { return static_cast<int>(address >> WINDOW_BITS) - 1; }

char* shared_pointer(uint32_t address, size_t bytes, int line) {
  const int whose = window_of(address);
  const Window& w = whose < 0 ? *own : windows[whose];
  char* pointer = w.arena + (address & ((1u << WINDOW_BITS) - 1));
  const bool inside = pointer >= w.dynamic() && pointer + bytes <= w.dynamic() + dynamic_bytes;
  for (const Array& array : w.arrays)
    if (inside || (pointer >= w.statics() + array.offset && pointer + bytes <= w.statics() + array.offset + array.bytes)) return pointer;
  if (!inside) fail("an address outside the block's shared memory", line);
  return pointer;
}

std::string describe_shared(const void* address) {
  const char* a = static_cast<const char*>(address);
  for (const Window& w : windows)
    if (w.arena && a >= w.arena && a < w.arena + ALL)
      return "an access outside the block's " + std::to_string(dynamic_bytes) + " bytes of dynamic shared memory and its static arrays";
  return "";
}

}  // namespace cuda_emulation
