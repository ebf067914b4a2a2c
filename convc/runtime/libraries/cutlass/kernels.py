"""The kernels of CUTLASS that modules can contain: instances of the templates in `native`, each by its name and its source.

Nothing here is compiled: `convc.schedules.cuda.cutlass_objects` does that, once for each instance on a machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

__all__ = ["FORMS", "Kernel", "table"]

# What the templates are; records count the names: a new one goes to the end.
FORMS: Final = ("hopper", "hopper_cooperative", "hopper_pingpong", "ampere")
_HEADERS: Final = {
    "hopper": "hopper_convolution.h",
    "hopper_cooperative": "hopper_product.h",
    "hopper_pingpong": "hopper_product.h",
    "ampere": "ampere.h",
}
# Those of sums in parts: Hopper's convolution of several taps has none.
_SUMS: Final = {
    "hopper_cooperative": "hopper_sums.h",
    "hopper_pingpong": "hopper_sums.h",
    "ampere": "ampere_sums.h",
}
_TYPES: Final = {
    "float16": "cutlass::half_t",
    "bfloat16": "cutlass::bfloat16_t",
    "float32": "float",
}
_NAME: Final = re.compile(
    r"(\w+)_(\d)d_(b?float16)_(\d+)x(\d+)x(\d+)_([cs])(\d+)(_wide_bias|_sums)?"
)


@dataclass(frozen=True, slots=True)
class Kernel:
    """One instance.

    Attributes:
        form: of `FORMS`: Hopper's convolution, its matrix products of two kinds, Ampere's convolution.
        rank: spatial axes, 2 or 3; a matrix product has 2 and does not care.
        dtype: of data, weights, residual and result.
        pixels, channels, step: a block's tile: points of the result, filters, channels of one tap that are added up at once.
        cluster: blocks that share what they load of the filters.
        stages: steps in shared memory; 0: as many as fit.
        bias: its element type; `dtype` or float32.
        sums: whether it writes parts of sums in float32, of which a call says the number, and nothing behind them.
    """

    form: str
    rank: int
    dtype: str
    pixels: int
    channels: int
    step: int
    cluster: int = 1
    stages: int = 0
    bias: str = ""
    sums: bool = False

    def with_bias(self, dtype: str) -> Kernel:
        """Return the same kernel for a bias of another type."""
        return replace(self, bias=dtype)

    @property
    def name(self) -> str:
        """As calls and the table of a module have it; the shim adds what the bias at hand needs.

        Example:
            >>> Kernel("hopper", 2, "float16", 128, 128, 64, bias="float32").name
            'hopper_2d_float16_128x128x64_c1_wide_bias'
        """
        tail = f"s{self.stages}" if self.stages else f"c{self.cluster}"
        kind = "_sums" if self.sums else "_wide_bias" if self.bias == "float32" else ""
        return f"{self.form}_{self.rank}d_{self.dtype}_{self.pixels}x{self.channels}x{self.step}_{tail}{kind}"

    @staticmethod
    def parse(name: str) -> Kernel:
        """Return the kernel of a name.

        Example:
            >>> Kernel.parse("ampere_3d_bfloat16_128x64x32_s4").stages
            4
        """
        found = _NAME.fullmatch(name)
        assert found, f"not a kernel's name: {name}"
        form, rank, dtype, *tile, kind, number, tail = found.groups()
        pixels, channels, step = map(int, tile)
        cluster, stages = (1, int(number)) if kind == "s" else (int(number), 0)
        bias = "float32" if tail == "_wide_bias" else ""
        return Kernel(
            form, int(rank), dtype, pixels, channels, step, cluster, stages, bias, tail == "_sums"
        )

    @property
    def symbol(self) -> str:
        """The C function's."""
        return f"convc_cutlass_{self.name}"

    @property
    def source(self) -> str:
        """CUDA C++ of the one function.

        Example:
            >>> print(Kernel("ampere", 3, "bfloat16", 128, 64, 32, stages=4).source, end="")
            #include "ampere.h"
            extern "C" const char* convc_cutlass_ampere_3d_bfloat16_128x64x32_s4(const ConvcCutlassCall* call) {
              return convc_cutlass::AmpereConvolution<3, cutlass::bfloat16_t, cutlass::bfloat16_t, 128, 64, 32, 4>::run(*call);
            }
        """
        types = _TYPES[self.dtype]
        if not self.sums:
            types += f", {_TYPES[self.bias or self.dtype]}"
        what, table = ("Sums", _SUMS) if self.sums else ("", _HEADERS)
        tile = f"{self.pixels}, {self.channels}, {self.step}"
        if self.form == "ampere":
            instance = f"Ampere{what or 'Convolution'}<{self.rank}, {types}, {tile}, {self.stages}>"
        elif self.form == "hopper":
            instance = f"HopperConvolution<{self.rank}, {types}, {tile}, {self.cluster}>"
        else:
            order = self.form.removeprefix("hopper_").capitalize()
            instance = f"Hopper{what or 'Product'}<{types}, {tile}, {self.cluster}, convc_cutlass::{order}>"
        return (
            f'#include "{table[self.form]}"\n'
            f'extern "C" const char* {self.symbol}(const ConvcCutlassCall* call) {{\n'
            f"  return convc_cutlass::{instance}::run(*call);\n"
            "}\n"
        )


def table(kernels: list[Kernel]) -> str:
    """Return C++ of the table by which a module's shim finds its kernels.

    Example:
        >>> print(table([Kernel("hopper", 2, "float16", 64, 64, 64)]), end="")
        #include "call.h"
        extern "C" {
        ConvcCutlassKernel convc_cutlass_hopper_2d_float16_64x64x64_c1;
        const ConvcCutlassEntry convc_cutlass_kernels[] = {
            {"hopper_2d_float16_64x64x64_c1", convc_cutlass_hopper_2d_float16_64x64x64_c1},
            {nullptr, nullptr},
        };
        }
    """
    declared = "".join(f"ConvcCutlassKernel {k.symbol};\n" for k in kernels)
    rows = "".join(f'    {{"{k.name}", {k.symbol}}},\n' for k in kernels)
    return (
        f'#include "call.h"\nextern "C" {{\n{declared}const ConvcCutlassEntry convc_cutlass_kernels[] = {{\n'
        f"{rows}    {{nullptr, nullptr}},\n}};\n}}\n"
    )
