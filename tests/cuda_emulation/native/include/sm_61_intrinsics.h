// Everything of this header that kernels use is in kernel.h.
#pragma once
