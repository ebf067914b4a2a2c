"""Libraries of others that run beside convc's own kernels: for each a shim that modules contain, and how its library is found."""
