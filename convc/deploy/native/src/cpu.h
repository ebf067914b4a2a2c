// What this machine's CPU can do, in LLVM's names, and how many threads this process may use.
#ifndef CONVC_CPU_H_
#define CONVC_CPU_H_

#include "memory.h"

namespace convc {

// LLVM's name of this machine's architecture: the triple's first part.
extern const char *const kMachine;

// Whether the CPU and the operating system provide an instruction set; false for a name that is not known.
bool cpu_has(const Text &feature);

int usable_threads();

}  // namespace convc
#endif  // CONVC_CPU_H_
