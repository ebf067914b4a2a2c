// The few owners that the runtime needs. Written here and not taken from the C++ library, whose containers bring exceptions and
// libstdc++.so: a bundle depends on the C library alone.
#ifndef CONVC_MEMORY_H_
#define CONVC_MEMORY_H_

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../include/convc.h"

namespace convc {

constexpr size_t kAlignment = CONVC_ALIGNMENT;

inline size_t round_up(size_t nbytes) { return (nbytes + kAlignment - 1) / kAlignment * kAlignment; }

// Text in memory that something else owns; zero-terminated behind its end.
struct Text {
  const char *data = "";
  size_t size = 0;

  bool is(const char *other) const { return strlen(other) == size && memcmp(data, other, size) == 0; }
};

// Memory that is given back all at once. Only trivial types are put into it.
class Bump {
 public:
  Bump() = default;
  Bump(const Bump &) = delete;
  Bump &operator=(const Bump &) = delete;
  ~Bump() {
    while (block_) {
      Block *before = block_->before;
      free(block_);
      block_ = before;
    }
  }

  // Zeroed memory, or nullptr if there is none.
  void *take(size_t nbytes) {
    nbytes = (nbytes + 15) & ~size_t{15};
    if (!block_ || block_->size - block_->used < nbytes) {
      const size_t size = nbytes > kBlock ? nbytes : kBlock;
      auto *made = static_cast<Block *>(calloc(1, sizeof(Block) + size));
      if (!made) return nullptr;
      made->before = block_;
      made->size = size;
      block_ = made;
    }
    void *memory = reinterpret_cast<char *>(block_ + 1) + block_->used;
    block_->used += nbytes;
    return memory;
  }

 private:
  struct alignas(16) Block {
    Block *before;
    size_t size;
    size_t used;
  };
  static constexpr size_t kBlock = 32 << 10;
  Block *block_ = nullptr;
};

// A growing array inside a Bump.
template <typename T>
struct List {
  T *data = nullptr;
  size_t size = 0;
  size_t capacity = 0;

  T *begin() const { return data; }
  T *end() const { return data + size; }
  T &operator[](size_t i) const { return data[i]; }

  // Room for one more, zeroed; nullptr if there is no memory.
  T *add(Bump &bump) {
    if (size == capacity) {
      const size_t grown = capacity ? 2 * capacity : 4;
      auto *moved = static_cast<T *>(bump.take(grown * sizeof(T)));
      if (!moved) return nullptr;
      if (size) memcpy(static_cast<void *>(moved), data, size * sizeof(T));
      data = moved;
      capacity = grown;
    }
    return &data[size++];
  }
};

}  // namespace convc
#endif  // CONVC_MEMORY_H_
