// A block's shared memory: static arrays apart from each other, the dynamic part against a wall.
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

char* arena = nullptr;  // [wall][static arrays][wall][dynamic][wall]
std::vector<Array> arrays;           // by declaration; bytes 0: not met in this block
size_t static_used = 0, static_bytes = 0, dynamic_bytes = 0;
char* dynamic = nullptr;

char* statics() { return arena + WALL; }
char* dynamic_end() { return arena + WALL + STATIC_ROOM + WALL + DYNAMIC_ROOM; }

bool poisoned(const char* from, const char* to) {
  for (; from < to; ++from)
    if (static_cast<unsigned char>(*from) != POISON) return false;
  return true;
}

}  // namespace

std::string shared_begin_launch(size_t bytes) {
  if (!arena) {
    const size_t all = STATIC_ROOM + DYNAMIC_ROOM + 3 * WALL;
    arena = static_cast<char*>(mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (arena == MAP_FAILED) abort();
    mprotect(arena, WALL, PROT_NONE);
    mprotect(arena + WALL + STATIC_ROOM, WALL, PROT_NONE);
    mprotect(arena + all - WALL, WALL, PROT_NONE);
  }
  dynamic_bytes = bytes;
  // Swizzled layouts count on 1024-byte alignment; what that leaves before the wall is checked at the block's end.
  dynamic = dynamic_end() - (bytes + 1023) / 1024 * 1024;
  memset(dynamic, POISON, dynamic_end() - dynamic);
  memset(statics(), POISON, STATIC_ROOM);
  arrays.clear();
  static_used = static_bytes = 0;
  return "";
}

void shared_begin_block() {
  memset(dynamic, POISON, dynamic_end() - dynamic);
  memset(statics(), POISON, static_used);
  arrays.assign(arrays.size(), {0, 0});
  static_used = static_bytes = 0;
}

std::string shared_end_block() {
  for (const Array& array : arrays)
    if (array.bytes && !poisoned(statics() + array.offset + array.bytes, statics() + array.offset + array.bytes + GAP))
      return "a write past the end of a __shared__ array of " + std::to_string(array.bytes) + " bytes";
  if (!poisoned(dynamic + dynamic_bytes, dynamic_end()))
    return "a write past the end of " + std::to_string(dynamic_bytes) + " bytes of dynamic shared memory";
  return "";
}

void* shared_array(int declaration, size_t bytes, size_t alignment) {
  if (arrays.size() <= static_cast<size_t>(declaration)) arrays.resize(declaration + 1);
  Array& array = arrays[declaration];
  if (!array.bytes) {
    static_bytes += bytes;
    if (static_bytes > STATIC_SHARED) fail("static __shared__ arrays of more than 48 KiB", 0);
    if (static_bytes + dynamic_bytes > MAX_SHARED) fail("static and dynamic shared memory of more than 227 KiB", 0);
    array.offset = (static_used + alignment - 1) / alignment * alignment;
    array.bytes = bytes;
    static_used = array.offset + bytes + GAP;
    if (static_used > STATIC_ROOM) fail("too many __shared__ arrays for this emulation", 0);
  }
  return statics() + array.offset;
}

char* dynamic_shared() { return dynamic; }

uint32_t shared_address(const void* pointer) { return static_cast<uint32_t>(static_cast<const char*>(pointer) - arena); }

char* shared_pointer(uint32_t address, size_t bytes, int line) {
  char* pointer = arena + address;
  const bool inside = pointer >= dynamic && pointer + bytes <= dynamic + dynamic_bytes;
  for (const Array& array : arrays)
    if (inside || (pointer >= statics() + array.offset && pointer + bytes <= statics() + array.offset + array.bytes)) return pointer;
  if (!inside) fail("an address outside the block's shared memory", line);
  return pointer;
}

std::string describe_shared(const void* address) {
  const char* a = static_cast<const char*>(address);
  if (!arena || a < arena || a >= dynamic_end() + WALL) return "";
  return "an access outside the block's " + std::to_string(dynamic_bytes) + " bytes of dynamic shared memory and its static arrays";
}

}  // namespace cuda_emulation
