"""gpu_check's process on the emulated device, with the double of cuDNN: what the real parent starts in the rehearsal."""

from __future__ import annotations

import sys

from tests.cuda_emulation import device

if __name__ == "__main__":
    device.install()
    from benchmarks.gpu_check import main
    from tests.cudnn.in_child import use_double

    use_double()
    sys.exit(main(sys.argv[1:]))
