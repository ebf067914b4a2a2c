#include "workspace.h"

#include <stdlib.h>

#include "memory.h"

namespace convc {

void Stack::set(void *memory, size_t size) {
  memory_ = static_cast<unsigned char *>(memory);
  size_ = size;
}

void *Stack::take(size_t nbytes) {
  nbytes = round_up(nbytes ? nbytes : 1);
  if (nbytes > size_ - used_ || depth_ == kPieces) return nullptr;
  pieces_[depth_++] = {used_, false};
  void *memory = memory_ + used_;
  used_ += nbytes;
  return memory;
}

bool Stack::give(void *memory) {
  auto *piece = static_cast<unsigned char *>(memory);
  if (piece < memory_ || piece >= memory_ + used_) return false;
  // In whatever order a kernel gives back: the stack shrinks when its last piece is free, over all free ones below.
  for (int i = depth_ - 1; i >= 0; --i) {
    if (memory_ + pieces_[i].begin == piece) pieces_[i].free = true;
  }
  while (depth_ && pieces_[depth_ - 1].free) used_ = pieces_[--depth_].begin;
  return true;
}

Workspace::~Workspace() {
  free(memory_);
  for (Block &block : blocks_) free(block.memory);
}

bool Workspace::reserve(size_t nbytes) {
  if (!nbytes) return true;
  memory_ = aligned_alloc(kAlignment, round_up(nbytes));
  if (memory_) stack_.set(memory_, round_up(nbytes));
  return memory_ != nullptr;
}

void *Workspace::take(size_t nbytes) {
  void *memory = stack_.take(nbytes);
  return memory ? memory : take_more(round_up(nbytes ? nbytes : 1));
}

void *Workspace::take_more(size_t nbytes) {
  Block *found = nullptr;
  for (Block &block : blocks_) {
    if (block.used) continue;
    if (block.size >= nbytes) {
      block.used = true;
      return block.memory;
    }
    if (!found) found = &block;
  }
  if (!found) return nullptr;
  free(found->memory);
  found->memory = aligned_alloc(kAlignment, nbytes);
  found->size = found->memory ? nbytes : 0;
  found->used = found->memory != nullptr;
  return found->memory;
}

bool Workspace::give(void *memory) {
  if (stack_.give(memory)) return true;
  for (Block &block : blocks_) {
    if (block.used && block.memory == memory) return block.used = false, true;
  }
  return false;
}

size_t Workspace::bytes() const {
  size_t sum = stack_.size();
  for (const Block &block : blocks_) sum += block.size;
  return sum;
}

}  // namespace convc
