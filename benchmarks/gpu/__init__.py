"""The check of a CUDA device: jobs built anywhere, run where a device is, reported as one table."""
