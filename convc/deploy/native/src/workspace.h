// The scratch memory of kernels.
#ifndef CONVC_WORKSPACE_H_
#define CONVC_WORKSPACE_H_

#include <stddef.h>

namespace convc {

// Pieces of one block of memory, here or on a device: it is not touched. A kernel may give its pieces back in any order.
class Stack {
 public:
  void set(void *memory, size_t size);
  // nullptr for what does not fit.
  void *take(size_t nbytes);
  bool give(void *memory);
  size_t size() const { return size_; }

 private:
  static constexpr int kPieces = 32;
  struct Piece {
    size_t begin;
    bool free;
  };
  unsigned char *memory_ = nullptr;
  size_t size_ = 0;
  size_t used_ = 0;
  int depth_ = 0;
  Piece pieces_[kPieces] = {};
};

// That of one thread: a stack of the size that the manifest plans, made with the context. What does not fit, which no module of convc
// asks for, comes from the heap and is kept for the next run.
class Workspace {
 public:
  Workspace() = default;
  Workspace(const Workspace &) = delete;
  Workspace &operator=(const Workspace &) = delete;
  ~Workspace();

  bool reserve(size_t nbytes);
  void *take(size_t nbytes);
  bool give(void *memory);
  size_t bytes() const;

 private:
  void *take_more(size_t nbytes);

  static constexpr int kBlocks = 32;
  struct Block {
    void *memory;
    size_t size;
    bool used;
  };
  void *memory_ = nullptr;
  Stack stack_;
  Block blocks_[kBlocks] = {};
};

}  // namespace convc
#endif  // CONVC_WORKSPACE_H_
