"""What a product ships: the C runtime `libconvc`, bundles and static archives. The runtime's sources are in `native/`."""
