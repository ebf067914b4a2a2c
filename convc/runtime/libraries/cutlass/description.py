"""What a call of CUTLASS's shim says, as text; the other side is `native/shim.cc`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["CALL", "Description"]

# The shim's symbol, as `call_cpacked` wants it: by its full name.
CALL: Final = "__tvm_ffi_convc_cutlass"


@dataclass(frozen=True, slots=True)
class Description:
    """One convolution, forward, channels last; operands are data, weight, those of steps, result.

    Attributes:
        kernel: the name of a `Kernel` without its bias.
        lower, upper, strides, dilations: a number for each of 2 or 3 spatial axes; zeros before and behind the data.
        steps: what follows each sum: "bias", "add", then "relu" or "clip:LOW:HIGH".
        slices: parts of the sum; above 1 the result has all of them, in float32, and there are no steps.
        spec: the convolution's name in messages.

    Example:
        >>> print(Description("hopper_2d_float16_64x64x64_c1", (1, 1), (1, 1), (1, 1), (1, 1), ("bias", "relu"), spec="conv2d-f16"))
        kernel=hopper_2d_float16_64x64x64_c1;lower=1,1;upper=1,1;strides=1,1;dilations=1,1;steps=bias,relu;slices=1;spec=conv2d-f16
    """

    kernel: str
    lower: tuple[int, ...]
    upper: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    steps: tuple[str, ...] = ()
    slices: int = 1
    spec: str = ""

    def __str__(self) -> str:
        numbers = {
            name: ",".join(map(str, getattr(self, name)))
            for name in ("lower", "upper", "strides", "dilations")
        }
        fields = {"kernel": self.kernel, **numbers, "steps": ",".join(self.steps), "slices": self.slices, "spec": self.spec}  # fmt: skip
        return ";".join(f"{name}={value}" for name, value in fields.items())
