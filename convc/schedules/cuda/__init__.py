"""How convolutions and every other op are computed on CUDA devices."""
