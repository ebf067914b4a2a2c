// Runs a kernel block by block, those of a cluster each as far as it comes alone. Every CUDA thread is a fiber with a stack of its own; it runs until it must wait for others, so
// that all that is undefined on a GPU (who comes first between two barriers) is decided by one order, which a test can turn round.
#include "engine.h"

#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

#include <algorithm>
#include <deque>
#include <string>
#include <vector>

#include "engine_private.h"

#if !defined(__x86_64__)
#error "the fibers' switch is written for x86-64"
#endif

// Saves the callee-saved registers on the running stack, stores its pointer, and goes on with another stack (System V ABI).
extern "C" void cuda_emulation_switch(void** save, void* load) __attribute__((visibility("hidden")));
asm(R"(
.text
.hidden cuda_emulation_switch
.globl cuda_emulation_switch
.type cuda_emulation_switch,@function
cuda_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

namespace cuda_emulation {

Thread* current = nullptr;
Dim3 block_index, block_dim, grid_dim;

namespace {

enum class State { ready, at_barrier, in_collective, asks_mask, done, at_cluster };

struct Copy {
  char* to;
  const char* from;
  unsigned bytes, valid;
  void land() const {
    memcpy(to, from, valid);
    memset(to + valid, 0, bytes - valid);
  }
};

struct Fiber : Thread {
  State state;
  int line;
  void* stack_pointer;
  uint32_t mask;
  Collective run;
  void* mine;
  int predicate, predicates;
  std::deque<std::vector<Copy>> groups;  // committed groups of copies in flight
  std::vector<Copy> open;                // copies not yet committed
  using Products = std::vector<std::function<void()>>;
  std::deque<Products> product_groups;  // of wgmma
  Products open_products;
  bool registers_fenced, proxy_fenced, waited;  // for copies
  bool grids_ended;                             // those before, which it has waited for
  unsigned arrived, passed;                     // barriers of the cluster
};

struct Block {
  Dim3 index;
  std::vector<unsigned> order;  // of its threads
  bool ended;
  // Another block's access to its shared memory, by how many barriers that one had arrived at: it must pass the next one before it leaves.
  bool touched;
  unsigned touched_at;
};

constexpr size_t STACK = 256 << 10, STACK_WALL = 4096;

std::vector<Fiber> all_fibers;
unsigned walls = 0;  // of stacks that have one
std::vector<Block> cluster;
unsigned rank = 0;        // in it, of the block that runs
Fiber* fibers = nullptr;  // of that block
unsigned threads = 0;     // of a block
bool placed_early = false;
char* stacks = nullptr;
void* scheduler_stack = nullptr;
const Kernel* kernel = nullptr;
void** arguments = nullptr;
std::string failure;
Mode mode;
sigjmp_buf escape;

Fiber* self() { return static_cast<Fiber*>(current); }

char* stack_of(size_t place) { return stacks + place * (STACK + STACK_WALL) + STACK_WALL; }

void to_scheduler() { cuda_emulation_switch(&self()->stack_pointer, scheduler_stack); }

void enter() {
  kernel->call(arguments);
  self()->state = State::done;
  to_scheduler();
  abort();
}

void prepare(Fiber& fiber) {
  void** top = reinterpret_cast<void**>(stack_of(&fiber - all_fibers.data()) + STACK);
  *--top = nullptr;  // keeps the stack pointer at 8 modulo 16 in `enter`, as after a call
  *--top = reinterpret_cast<void*>(enter);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber.stack_pointer = top;
  fiber.state = State::ready;
  fiber.line = 0;
  fiber.groups.clear();
  fiber.open.clear();
  fiber.product_groups.clear();
  fiber.open_products.clear();
  fiber.registers_fenced = fiber.proxy_fenced = fiber.waited = fiber.grids_ended = false;
  fiber.arrived = fiber.passed = 0;
}

std::string where() {
  char text[160];
  snprintf(text, sizeof text, " in block (%u, %u, %u), thread (%u, %u, %u)", block_index.x, block_index.y, block_index.z,
           current->index.x, current->index.y, current->index.z);
  return text;
}

void complain(const char* what) {
  int counts[6] = {};
  std::vector<int> lines;
  for (unsigned i = 0; i < threads; ++i) {
    counts[static_cast<int>(fibers[i].state)]++;
    if (fibers[i].state != State::done) lines.push_back(fibers[i].line);
  }
  std::sort(lines.begin(), lines.end());
  lines.erase(std::unique(lines.begin(), lines.end()), lines.end());
  char text[320];
  snprintf(text, sizeof text,
           "%s in block (%u, %u, %u): %d threads at __syncthreads, %d at a warp operation, %d at a cluster's barrier, %d have left; lines", what,
           block_index.x, block_index.y, block_index.z, counts[1], counts[2] + counts[3], counts[5], counts[4]);
  failure = text;
  for (int line : lines) failure += " " + std::to_string(line);
}

// Completes the warp's operations that everyone named has come to. Returns whether any was.
bool resolve(unsigned first) {
  const unsigned end = std::min(first + WARP, threads);
  bool moved = false, stuck = true;
  for (unsigned i = first; i < end; ++i) {
    Fiber& lane = fibers[i];
    if (lane.state != State::in_collective) continue;
    bool complete = true;
    void* lanes[WARP] = {};
    for (unsigned k = first; k < end; ++k) {
      if (!(lane.mask >> (k - first) & 1) || fibers[k].state == State::done) continue;
      const Fiber& other = fibers[k];
      complete &= other.state == State::in_collective && other.mask == lane.mask && other.run == lane.run && other.line == lane.line;
      lanes[k - first] = other.mine;
    }
    if (!complete) continue;
    if (lane.run) lane.run(lanes, lane.mask);
    for (unsigned k = first; k < end; ++k)
      if (lane.mask >> (k - first) & 1 && fibers[k].state == State::in_collective) fibers[k].state = State::ready;
    moved = true;
  }
  for (unsigned i = first; i < end; ++i) stuck &= fibers[i].state != State::ready;
  for (unsigned i = first; stuck && i < end; ++i) {
    if (fibers[i].state != State::asks_mask) continue;
    uint32_t mask = 0;
    for (unsigned k = i; k < end; ++k)
      if (fibers[k].state == State::asks_mask && fibers[k].line == fibers[i].line) mask |= 1u << (k - first);
    for (unsigned k = i; k < end; ++k)
      if (mask >> (k - first) & 1) fibers[k].mask = mask, fibers[k].state = State::ready;
    moved = true;
  }
  return moved;
}

bool release_barrier() {
  int predicates = 0;
  for (unsigned i = 0; i < threads; ++i) {
    if (fibers[i].state == State::done) return complain("some threads left the kernel before a __syncthreads that others wait at"), false;
    if (fibers[i].line != fibers[0].line) return complain("threads meet at different __syncthreads"), false;
    predicates += fibers[i].predicate != 0;
  }
  for (unsigned i = 0; i < threads; ++i) fibers[i].predicates = predicates, fibers[i].state = State::ready;
  return true;
}

void select(unsigned wanted) {
  rank = wanted;
  fibers = &all_fibers[wanted * threads];
  block_index = cluster[wanted].index;
  shared_select(wanted);
}

// Runs the selected block until all its threads have left or wait for the cluster. Returns whether nothing went wrong.
bool run_block(unsigned& random) {
  Block& block = cluster[rank];
  for (;;) {
    for (unsigned i = threads - 1; mode.order > 1 && i > 0; --i) {
      random = random * 1664525u + 1013904223u;
      std::swap(block.order[i], block.order[(random >> 8) % (i + 1)]);
    }
    for (unsigned i : block.order)
      if (fibers[i].state == State::ready) {
        current = &fibers[i];
        cuda_emulation_switch(&scheduler_stack, fibers[i].stack_pointer);
        if (!failure.empty()) return false;
      }
    unsigned done = 0, waiting = 0, at_cluster = 0;
    for (unsigned i = 0; i < threads; ++i) {
      done += fibers[i].state == State::done;
      waiting += fibers[i].state == State::at_barrier;
      at_cluster += fibers[i].state == State::at_cluster;
    }
    block.ended = done == threads;
    if (done + at_cluster == threads) return true;
    if (done + waiting == threads) {
      if (!release_barrier()) return false;
      continue;
    }
    bool moved = false;
    for (unsigned first = 0; first < threads; first += WARP) moved |= resolve(first);
    if (!moved) return complain("deadlock"), false;
  }
}

// What the selected block has left wrong, or nothing.
std::string end_block() {
  const Block& block = cluster[rank];
  for (unsigned i = 0; i < threads; ++i) {
    if (placed_early && !fibers[i].grids_ended) return complain("a thread of an early launch left without cudaGridDependencySynchronize"), failure;
    if (block.touched && fibers[i].passed <= block.touched_at)
      return complain("a thread left without a cluster's barrier behind another block's access to its shared memory"), failure;
  }
  return shared_end_block();
}

// The blocks of a cluster by turns, each as far as it comes.
bool run_cluster(unsigned seed) {
  const unsigned blocks = cluster.size();
  std::vector<unsigned> turns(blocks);
  for (unsigned b = 0; b < blocks; ++b) {
    turns[b] = mode.order == 1 ? blocks - 1 - b : b;
    cluster[b].ended = cluster[b].touched = false;
    cluster[b].order.resize(threads);
    select(b);
    for (unsigned i = 0; i < threads; ++i) {
      cluster[b].order[i] = mode.order == 1 ? threads - 1 - i : i;
      prepare(fibers[i]);
    }
    shared_begin_block();
  }
  unsigned random = 12345u + mode.order + seed;
  for (bool ended = false; !ended;) {
    for (unsigned i = blocks - 1; mode.order > 1 && i > 0; --i) {
      random = random * 1664525u + 1013904223u;
      std::swap(turns[i], turns[(random >> 8) % (i + 1)]);
    }
    ended = true;
    for (unsigned b : turns) {
      if (cluster[b].ended) continue;
      select(b);
      if (!run_block(random)) return false;
      ended &= cluster[b].ended;
    }
    // Every thread that has not left waits: all have arrived.
    for (unsigned i = 0; i < blocks * threads; ++i)
      if (all_fibers[i].state == State::at_cluster) all_fibers[i].passed++, all_fibers[i].state = State::ready;
  }
  for (unsigned b = 0; b < blocks; ++b) {
    select(b);
    failure = end_block();
    if (!failure.empty()) return false;
  }
  return true;
}

const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};

void on_signal(int number, siginfo_t* info, void*) {
  if (number == SIGFPE)
    failure = "division of an integer by zero";
  else if (number == SIGILL || number == SIGTRAP)
    failure = "an index outside a local or shared array, or a misaligned vector";
  else if (stacks && info->si_addr >= stacks && info->si_addr < stacks + MAX_CLUSTER * MAX_THREADS * (STACK + STACK_WALL))
    failure = "a thread's local memory is more than 256 KiB";
  else
    failure = describe_address(info->si_addr);
  failure += where();
  siglongjmp(escape, 1);
}

// Faults of the kernel become failures of the launch; outside a launch the process keeps its own handlers.
class CatchSignals {
 public:
  CatchSignals() {
    static char alternate[64 << 10];
    stack_t stack = {};
    stack.ss_sp = alternate;
    stack.ss_size = sizeof alternate;
    sigaltstack(&stack, &old_stack_);
    struct sigaction action = {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int i = 0; i < 5; ++i) sigaction(SIGNALS[i], &action, &old_[i]);
  }
  ~CatchSignals() {
    for (int i = 0; i < 5; ++i) sigaction(SIGNALS[i], &old_[i], nullptr);
    sigaltstack(&old_stack_, nullptr);
  }

 private:
  struct sigaction old_[5];
  stack_t old_stack_;
};

void wait_in(State state, int line) {
  self()->state = state;
  self()->line = line;
  to_scheduler();
}

}  // namespace

void set_mode(Mode wanted) { mode = wanted; }

std::string launch(const Kernel& wanted, void** its_arguments, Dim3 grid, Dim3 block, size_t dynamic_bytes, bool early) {
  const Dim3 of = wanted.cluster;
  const unsigned blocks = of.x * of.y * of.z;
  threads = block.x * block.y * block.z;
  if (!stacks) {
    stacks = static_cast<char*>(mmap(nullptr, MAX_CLUSTER * MAX_THREADS * (STACK + STACK_WALL), PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (stacks == MAP_FAILED) abort();
  }
  for (; walls < std::max(blocks * threads, MAX_THREADS); ++walls) mprotect(stack_of(walls) - STACK_WALL, STACK_WALL, PROT_NONE);
  all_fibers.resize(walls);
  kernel = &wanted;
  placed_early = early;
  arguments = its_arguments;
  grid_dim = grid;
  block_dim = block;
  failure.clear();
  cluster.resize(blocks);
  for (unsigned i = 0; i < blocks * threads; ++i) {
    const unsigned id = i % threads;
    all_fibers[i].id = id;
    all_fibers[i].index = {id % block.x, id / block.x % block.y, id / (block.x * block.y)};
  }
  failure = shared_begin_launch(dynamic_bytes, blocks);
  if (!failure.empty()) return failure;
  const Dim3 clusters = {grid.x / of.x, grid.y / of.y, grid.z / of.z};
  const unsigned count = clusters.x * clusters.y * clusters.z;
  CatchSignals catching;
  if (sigsetjmp(escape, 1) == 0)
    for (volatile unsigned i = 0; i < count; i = i + 1) {
      const unsigned c = mode.order == 1 ? count - 1 - i : i;
      const Dim3 at = {c % clusters.x * of.x, c / clusters.x % clusters.y * of.y, c / (clusters.x * clusters.y) * of.z};
      for (unsigned b = 0; b < blocks; ++b) cluster[b].index = {at.x + b % of.x, at.y + b / of.x % of.y, at.z + b / (of.x * of.y)};
      if (!run_cluster(c)) break;
    }
  return failure;
}

void wait_for_grids_before() {
  self()->grids_ended = true;
  device_open(true);
}

void block_barrier(int line) { block_barrier_count(0, line); }

int block_barrier_count(int predicate, int line) {
  self()->predicate = predicate;
  self()->proxy_fenced = self()->waited;
  self()->waited = false;
  wait_in(State::at_barrier, line);
  return self()->predicates;
}

void cluster_arrive(int line) {
  if (self()->arrived > self()->passed) fail("a second arrival at a cluster's barrier that was not waited for", line);
  self()->arrived++;
}

void cluster_wait(int line) {
  if (self()->arrived == self()->passed) fail("a wait at a cluster's barrier without arrival", line);
  self()->proxy_fenced = self()->waited;
  self()->waited = false;
  wait_in(State::at_cluster, line);
}

uint32_t cluster_address(uint32_t address, uint32_t wanted, int line) {
  if (wanted >= cluster.size()) fail("a rank that the cluster does not have", line);
  return in_window(address, wanted);
}

char* cluster_pointer(uint32_t address, size_t bytes, int line) {
  const int whose = window_of(address);
  if (whose < 0 || static_cast<unsigned>(whose) == rank) return shared_pointer(address, bytes, line);
  Block& other = cluster[whose];
  if (!self()->passed) fail("another block's shared memory before a barrier of the cluster: that block may not have begun", line);
  if (self()->arrived > self()->passed) fail("another block's shared memory between arrival at a cluster's barrier and the wait", line);
  if (other.ended) fail("shared memory of a block that has left", line);
  other.touched_at = other.touched ? std::max(other.touched_at, self()->arrived) : self()->arrived;
  other.touched = true;
  return shared_pointer(address, bytes, line);
}

void collective(uint32_t mask, Collective run, void* mine, int line) {
  if (!(mask >> (current->id % WARP) & 1)) fail("a lane is in a warp operation whose mask does not name it", line);
  self()->mask = mask;
  self()->run = run;
  self()->mine = mine;
  wait_in(State::in_collective, line);
}

void whole_warp(Collective run, void* mine, int line) {
  const unsigned first = current->id / WARP * WARP;
  if (first + WARP > threads) fail("a matrix operation of a warp that has less than 32 threads", line);
  for (unsigned i = first; i < first + WARP; ++i)
    if (fibers[i].state == State::done) fail("a matrix operation of a warp of which some threads have left", line);
  collective(WHOLE_WARP, run, mine, line);
}

uint32_t active_mask(int line) {
  wait_in(State::asks_mask, line);
  return self()->mask;
}

void copy_async(uint32_t to, const void* from, unsigned bytes, unsigned valid, int line) {
  if (bytes != 4 && bytes != 8 && bytes != 16) fail("cp.async of a size other than 4, 8 or 16 bytes", line);
  if (valid > bytes) fail("cp.async reads more bytes than it writes", line);
  if (to % bytes || reinterpret_cast<uintptr_t>(from) % bytes) fail("cp.async from or to an address that is no multiple of its size", line);
  const Copy copy = {shared_pointer(to, bytes, line), static_cast<const char*>(from), bytes, valid};
  if (mode.copies_land_early)
    copy.land();
  else
    self()->open.push_back(copy);
}

void commit_copies() {
  self()->groups.push_back(std::move(self()->open));
  self()->open.clear();
}

void wait_copies(unsigned groups_in_flight) {
  self()->waited = true;
  auto& groups = self()->groups;
  for (; groups.size() > groups_in_flight; groups.pop_front())
    for (const Copy& copy : groups.front()) copy.land();
}

void fence_registers() { self()->registers_fenced = true; }

void fence_proxy() { self()->proxy_fenced = true; }

void product_async(std::function<void()> product, int line) {
  if (!self()->registers_fenced) fail("wgmma without a wgmma.fence before it", line);
  if (!self()->proxy_fenced) fail("wgmma without cp.async.wait_group before the last __syncthreads, or fence.proxy.async behind it", line);
  if (mode.copies_land_early)
    product();
  else
    self()->open_products.push_back(std::move(product));
}

void commit_products() {
  self()->product_groups.push_back(std::move(self()->open_products));
  self()->open_products.clear();
}

void wait_products(unsigned groups_in_flight) {
  auto& groups = self()->product_groups;
  self()->registers_fenced = false;
  for (; groups.size() > groups_in_flight; groups.pop_front())
    for (const auto& product : groups.front()) product();
}

void fail(const char* what, int line) {
  failure = what + where() + ", line " + std::to_string(line);
  to_scheduler();
  abort();
}

}  // namespace cuda_emulation
