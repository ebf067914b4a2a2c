"""How each algorithm is scheduled for CPUs, through LLVM."""
