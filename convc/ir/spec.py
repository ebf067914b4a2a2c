"""The geometry of one convolution, resolved once: nothing in here is optional and no default is left to guess.

Letters, everywhere in convc: data `N C H W`, filter `K C/group R S`, result `N K P Q`; a third (depth) or a missing second
dimension is written in front or left out. "Convolution" means cross-correlation, as in ONNX. Attribute names are ONNX's:

    convc, ONNX     PyTorch            JAX                      Theano
    strides         stride             window_strides           subsample
    pads            padding            padding                  border_mode
    dilations       dilation           rhs_dilation             filter_dilation
    group           groups             feature_group_count      num_groups

`pads` holds all beginnings, then all ends. One multiply-add counts as two FLOPs.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace

from convc.errors import DTypeError, ShapeError
from convc.ir.types import FLOATS, SHORT_NAMES, Shape, numpy_dtype

__all__ = ["ConvSpec", "pooled_extent"]


@dataclass(frozen=True, slots=True)
class ConvSpec:
    """One convolution over 1, 2 or 3 spatial dimensions, or its transpose.

    Shapes:
        data (N, C, *spatial), weight (K, C/group, *kernel) -> output (N, K, *spatial'); transposed: weight (C, K/group, *kernel)

    Attributes:
        output: the result's shape, worked out from the others.

    Raises:
        ShapeError: if ranks, groups, or attribute lengths disagree, or the dilated filter is larger than the padded image.
        DTypeError: if the element type is neither a float nor int32 nor uint8.

    Source:
        ONNX Conv-11 and ConvTranspose-11, "strides", "pads", "dilations", "output_padding".

    Example:
        >>> spec = ConvSpec.of((1, 64, 56, 56), (64, 64, 3, 3), pads=(1, 1, 1, 1))
        >>> spec.output, spec.flops
        ((1, 64, 56, 56), 231211008)
        >>> print(spec.key)
        conv2d-f32-n1c64h56w56-k64r3s3-st1x1-pd1.1.1.1-dl1x1-g1
    """

    data: Shape
    weight: Shape
    strides: Shape
    pads: Shape
    dilations: Shape
    group: int = 1
    transposed: bool = False
    output_padding: Shape = ()
    dtype: str = "float32"
    # Worked out once: cost models ask for it a hundred thousand times while the settings of a network are ranked.
    output: Shape = field(init=False, repr=False, compare=False)

    @staticmethod
    def of(
        data: Shape,
        weight: Shape,
        *,
        strides: Shape = (),
        pads: Shape = (),
        dilations: Shape = (),
        group: int = 1,
        transposed: bool = False,
        output_padding: Shape = (),
        dtype: str = "float32",
    ) -> ConvSpec:
        """Return the spec with every attribute left out set to ONNX's default: unit strides and dilations, no padding."""
        n = len(data) - 2
        return ConvSpec(
            tuple(data),
            tuple(weight),
            tuple(strides) or (1,) * n,
            tuple(pads) or (0,) * (2 * n),
            tuple(dilations) or (1,) * n,
            group,
            transposed,
            (tuple(output_padding) or (0,) * n) if transposed else (),
            dtype,
        )

    def __post_init__(self) -> None:
        """Check legality: the one place where a convolution is accepted or refused."""
        name = "ConvTranspose" if self.transposed else "Conv"
        n = len(self.data) - 2
        if n not in (1, 2, 3):
            raise ShapeError(
                f"{name} data must have rank 3, 4 or 5, (N, C, *spatial); got {self.data}."
            )
        if len(self.weight) != len(self.data):
            raise ShapeError(
                f"{name} weight must have the data's rank {len(self.data)}; got {self.weight} for data {self.data}."
            )
        # int32 is what quantised convolutions add up in, `generic` computes it; uint8 what their data have in memory.
        if self.dtype not in (*FLOATS, "int32", "uint8"):
            raise DTypeError(
                f"{name} element type must be one of {', '.join(FLOATS)}, int32, uint8; got '{self.dtype}'."
            )
        wanted = {"strides": n, "pads": 2 * n, "dilations": n}
        if self.transposed:
            wanted["output_padding"] = n
        for attribute, length in wanted.items():
            value = getattr(self, attribute)
            if len(value) != length:
                raise ShapeError(
                    f"{name} {attribute} must have {length} values for {n} spatial dimensions; got {value}."
                )
        if min(self.strides) < 1 or min(self.dilations) < 1:
            raise ShapeError(
                f"{name} strides and dilations must be positive; got {self.strides} and {self.dilations}."
            )
        if min(self.pads) < 0:
            raise ShapeError(f"{name} pads must not be negative; got {self.pads}.")
        if min((*self.weight, *self.data[1:])) < 1 or self.data[0] < 0:
            raise ShapeError(
                f"{name} data and weight must not be empty; got {self.data} and {self.weight}."
            )
        self._check_channels(name)
        object.__setattr__(self, "output", self._output())
        for axis, extent in enumerate(self.output[2:]):
            if extent < 1 and self.transposed:
                cut = self.pads[axis] + self.pads[n + axis]
                raise ShapeError(
                    f"{name} pads must leave an output; got {cut} of {extent + cut} points cut off on spatial axis {axis} "
                    f"(data {self.data}, weight {self.weight}, pads {self.pads})."
                )
            if extent < 1:
                raise ShapeError(
                    f"{name} filter must fit the padded data; got dilated filter {self.effective_kernel[axis]} for padded extent "
                    f"{self.data[2 + axis] + self.pads[axis] + self.pads[n + axis]} on spatial axis {axis} "
                    f"(data {self.data}, weight {self.weight}, pads {self.pads})."
                )

    def _check_channels(self, name: str) -> None:
        channels, group = self.data[1], self.group
        if group < 1:
            raise ShapeError(f"{name} group must be positive; got {group}.")
        if channels % group:
            raise ShapeError(
                f"{name} group must divide the data's channels; got group {group} for C = {channels}."
            )
        if self.transposed:
            if self.weight[0] != channels:
                raise ShapeError(
                    f"ConvTranspose weight must have C = {channels} input channels; got {self.weight[0]} (weight {self.weight})."
                )
            for axis, extra in enumerate(self.output_padding):
                limit = max(self.strides[axis], self.dilations[axis])
                if not 0 <= extra < limit:
                    raise ShapeError(
                        f"ConvTranspose output_padding must be in [0, max(stride, dilation)) = [0, {limit}) "
                        f"on spatial axis {axis}; got {extra}."
                    )
            return
        if self.weight[1] != channels // group:
            raise ShapeError(
                f"Conv weight must have C/group = {channels}/{group} = {channels // group} input channels; "
                f"got {self.weight[1]} (weight {self.weight})."
            )
        if self.weight[0] % group:
            raise ShapeError(
                f"Conv group must divide the output channels; got group {group} for K = {self.weight[0]}."
            )

    # ---- geometry -----------------------------------------------------------------------------------------------

    @property
    def rank(self) -> int:
        """Number of spatial dimensions."""
        return len(self.data) - 2

    @property
    def in_channels(self) -> int:
        return self.data[1]

    @property
    def out_channels(self) -> int:
        return self.weight[1] * self.group if self.transposed else self.weight[0]

    @property
    def kernel(self) -> Shape:
        """Spatial shape of the filter."""
        return self.weight[2:]

    @property
    def effective_kernel(self) -> Shape:
        """Extent that the dilated filter covers."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def _output(self) -> Shape:
        """Return the shape of the result.

        P = floor((H + pad_begin + pad_end - dilation (R - 1) - 1) / stride) + 1; transposed:
        P = stride (H - 1) + output_padding + dilation (R - 1) + 1 - pad_begin - pad_end.
        """
        n = self.rank
        extents = []
        for axis in range(n):
            pad = self.pads[axis] + self.pads[n + axis]
            covered = self.effective_kernel[axis]
            if self.transposed:
                extents.append(
                    self.strides[axis] * (self.data[2 + axis] - 1)
                    + self.output_padding[axis]
                    + covered
                    - pad
                )
            else:
                extents.append((self.data[2 + axis] + pad - covered) // self.strides[axis] + 1)
        return (self.data[0], self.out_channels, *extents)

    @property
    def is_depthwise(self) -> bool:
        """One input channel per group (channel multiplier K/C of any size)."""
        return self.group == self.in_channels and self.group > 1

    @property
    def is_pointwise(self) -> bool:
        """A filter of one tap: a matrix product over pixels."""
        return max(self.kernel) == 1

    # ---- cost ---------------------------------------------------------------------------------------------------

    @property
    def flops(self) -> int:
        """FLOPs of the direct method, taps on padding included."""
        pixels = self.data[2:] if self.transposed else self.output[2:]
        per_pixel = self.weight[0] * self.weight[1] * math.prod(self.kernel)
        return 2 * self.data[0] * math.prod(pixels) * per_pixel

    @property
    def nbytes(self) -> int:
        """Bytes of data, weight and output together, each counted once."""
        item = numpy_dtype(self.dtype).itemsize
        return item * (math.prod(self.data) + math.prod(self.weight) + math.prod(self.output))

    # ---- canonical name -----------------------------------------------------------------------------------------

    @property
    def key(self) -> str:
        """Canonical name: log key, symbol stem and test id. `ConvSpec.parse` is its inverse."""
        axes, taps = "dhw"[3 - self.rank :], "trs"[3 - self.rank :]
        spatial = "".join(f"{a}{v}" for a, v in zip(axes, self.data[2:], strict=True))
        kernel = "".join(f"{a}{v}" for a, v in zip(taps, self.kernel, strict=True))
        kind = f"conv{self.rank}d" + ("t" if self.transposed else "")
        tail = "-op" + "x".join(map(str, self.output_padding)) if self.transposed else ""
        return (
            f"{kind}-{SHORT_NAMES[self.dtype]}-n{self.data[0]}c{self.in_channels}{spatial}-k{self.out_channels}{kernel}"
            f"-st{'x'.join(map(str, self.strides))}-pd{'.'.join(map(str, self.pads))}"
            f"-dl{'x'.join(map(str, self.dilations))}-g{self.group}{tail}"
        )

    @staticmethod
    def parse(key: str) -> ConvSpec:
        """Return the spec that `key` names.

        Raises:
            ShapeError: if `key` is not a convolution's canonical name.

        Example:
            >>> ConvSpec.parse("conv2d-f32-n1c8h5w5-k4r3s3-st2x2-pd1.1.1.1-dl1x1-g2").output
            (1, 4, 3, 3)
        """
        pattern = (
            r"conv\dd(t?)-(\w+)-n(\d+)c(\d+)((?:[dhw]\d+)+)-k(\d+)((?:[trs]\d+)+)"
            r"-st(\d+(?:x\d+)*)-pd(\d+(?:\.\d+)*)-dl(\d+(?:x\d+)*)-g([1-9]\d*)(?:-op(\d+(?:x\d+)*))?"
        )
        found = re.fullmatch(pattern, key)
        if not found:
            raise ShapeError(f"convolution key must look like '{_EXAMPLE.key}'; got '{key}'.")
        t, short, n, c, spatial, k, kernel, strides, pads, dilations, g, extra = found.groups()
        names = {s: name for name, s in SHORT_NAMES.items()}
        channels, group, out = int(c), int(g), int(k)
        taps = tuple(map(int, re.findall(r"\d+", kernel)))
        weight = (channels, out // group, *taps) if t else (out, channels // group, *taps)
        return ConvSpec(
            (int(n), channels, *map(int, re.findall(r"\d+", spatial))),
            weight,
            tuple(map(int, strides.split("x"))),
            tuple(map(int, pads.split("."))),
            tuple(map(int, dilations.split("x"))),
            group,
            bool(t),
            tuple(map(int, extra.split("x"))) if extra else (),
            names.get(short, short),
        )

    def with_batch(self, n: int) -> ConvSpec:
        """Return the same convolution at batch size `n`."""
        return replace(self, data=(n, *self.data[1:]))


_EXAMPLE = ConvSpec.of((1, 8, 5, 5), (4, 8, 3, 3))


def pooled_extent(
    extent: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int, *, ceil_mode: bool
) -> int:
    """Return how many windows fit, ONNX's rule.

    With `ceil_mode` a last window may hang over the end, but must start inside the data or its begin padding.

    Source:
        ONNX MaxPool-12 / AveragePool-19, "output spatial shape".

    Example:
        >>> pooled_extent(112, 3, 2, (0, 0), 1, ceil_mode=False), pooled_extent(112, 3, 2, (0, 0), 1, ceil_mode=True)
        (55, 56)
    """
    span = extent + sum(pads) - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return span // stride + 1
    count = -(-span // stride) + 1
    return count - 1 if (count - 1) * stride >= extent + pads[0] else count
