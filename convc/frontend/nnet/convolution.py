"""Convolutions and their gradients with respect to input and filters, over any number of spatial axes.

The definition, for input x (batch, IC, *spatial) and filters W (OC, IC/groups, *kernel):

    y[b, o, p...] = sum over i, k... of xpad[b, i, p subsample + k dilation] W[o, i, K - 1 - k]       (filter_flip; else W[o, i, k])

Unshared filters are (OC, *output, IC/groups, *kernel).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convc.errors import ShapeError
from convc.frontend.dsl.arguments import flag, whole
from convc.frontend.dsl.movement import flip, pad
from convc.frontend.dsl.tensor import Operand, Tensor, apply, constant
from convc.frontend.nnet.geometry import (
    BorderMode,
    DeclaredShape,
    border_mode_to_pad,
    check_declared,
    dilated,
    extents,
    float_tensor,
    ir_pads,
    per_axis,
    sum_type,
)
from convc.frontend.nnet.shapes import get_conv_output_shape
from convc.ir.graph import CONSTANT
from convc.ir.ops.conv import ConvAttributes, ConvTransposeAttributes
from convc.ir.ops.conv_local import (
    LocalAttributes,
    LocalDataGradAttributes,
    LocalWeightGradAttributes,
)
from convc.ir.ops.conv_weight_grad import ConvWeightGradAttributes
from convc.ir.types import Shape

__all__ = ["Convolution"]


@dataclass(frozen=True, slots=True)
class Convolution:
    """What a call says about a convolution, whichever of the three operands it computes.

    Attributes:
        rank: number of spatial axes.
        border_mode, subsample, filter_flip, filter_dilation, num_groups, unshared: Theano's arguments.
        precision: element type of the sums: None (float32 for narrower operands), 'as_input', or an element type.
        algorithm: names in order of preference, see `ConvAttributes`.
        name: of the result.
    """

    rank: int
    border_mode: BorderMode = "valid"
    subsample: int | tuple[int, ...] = 1
    filter_flip: bool = True
    filter_dilation: int | tuple[int, ...] = 1
    num_groups: int = 1
    unshared: bool = False
    precision: str | None = None
    algorithm: str = ""
    name: str | None = None

    def __post_init__(self) -> None:
        for switch in ("filter_flip", "unshared"):
            object.__setattr__(self, switch, flag(switch, getattr(self, switch)))
        object.__setattr__(self, "num_groups", whole("num_groups", self.num_groups))
        # Computed for what they raise.
        _ = self.strides, self.dilations, sum_type(self.precision, "float32")

    @property
    def strides(self) -> Shape:
        return per_axis("subsample", self.subsample, self.rank)

    @property
    def dilations(self) -> Shape:
        return per_axis("filter_dilation", self.filter_dilation, self.rank)

    def pads(self, kernel: Shape) -> tuple[tuple[int, int], ...]:
        """Return the zeros before and after each axis, for a filter of this spatial shape."""
        covered = [dilated(k, d) for k, d in zip(kernel, self.dilations, strict=True)]
        return border_mode_to_pad(self.border_mode, self.rank, covered)

    def forward(
        self,
        input: Operand,
        filters: Operand,
        input_shape: DeclaredShape = None,
        filter_shape: DeclaredShape = None,
    ) -> Tensor:
        """Return the convolution of `input` with `filters`."""
        x = float_tensor("input", input, filters)
        w = float_tensor("filters", filters, x)
        check_declared("input_shape", input_shape, x.shape)
        check_declared("filter_shape", filter_shape, w.shape)
        self.check_ranks("input", x, w)
        pads = self.pads(w.shape[-self.rank :])
        self._output(x.shape, w.shape, pads)
        outputs = w.shape[0]
        w = self._grown(self._grown(self._flipped(w), 0, self.num_groups), self._channel_axis, 1)
        x = self._grown(x, 1, self.num_groups)
        if self.unshared:
            local = LocalAttributes(*self._geometry(pads), self._wishes(x)[0])
            y = apply("conv_local", [x, w], local, name=self.name)
        else:
            strides, padding, dilations, groups = self._geometry(pads)
            attributes = ConvAttributes(strides, padding, dilations, groups, (), *self._wishes(x))
            y = apply("conv", [x, w], attributes, name=self.name)
        return y if outputs else y[:, :0]

    def input_gradient(
        self,
        output_grad: Operand,
        filters: Operand,
        input_shape: DeclaredShape,
        filter_shape: DeclaredShape = None,
    ) -> Tensor:
        """Return the gradient with respect to the input, of `input_shape`: its spatial extents must be given."""
        dy = float_tensor("output_grad", output_grad, filters)
        w = float_tensor("filters", filters, dy)
        check_declared("filter_shape", filter_shape, w.shape)
        self.check_ranks("output_grad", dy, w)
        channels = w.shape[self._channel_axis] * self.num_groups
        lead, spatial = self._required("input_shape", input_shape, self.rank + 2)
        check_declared("input_shape", lead, (dy.shape[0], channels))
        data = (dy.shape[0], channels, *spatial)
        pads = self.pads(w.shape[-self.rank :])
        self._check_gradient(data, w.shape, pads, dy)
        w = self._grown(self._grown(self._flipped(w), 0, self.num_groups), self._channel_axis, 1)
        dy = self._grown(dy, 1, self.num_groups)
        strides, padding, dilations, groups = self._geometry(pads)
        if self.unshared:
            local = LocalDataGradAttributes(
                spatial, strides, padding, dilations, groups, self._wishes(dy)[0]
            )
            dx = apply("conv_local_data_grad", [dy, w], local, name=self.name)
        else:
            # What the last stride does not reach has no gradient: ONNX's output_padding.
            rest = []
            for axis, extent in enumerate(spatial):
                covered = dilated(w.shape[2 + axis], dilations[axis])
                reached = (dy.shape[2 + axis] - 1) * strides[axis] + covered - sum(pads[axis])
                rest.append(extent - reached)
            attributes = ConvTransposeAttributes(
                strides, padding, dilations, groups, tuple(rest), (), *self._wishes(dy)
            )
            dx = apply("conv_transpose", [dy, w], attributes, name=self.name)
        return dx if channels else dx[:, :0]

    def weight_gradient(
        self,
        input: Operand,
        output_grad: Operand,
        filter_shape: DeclaredShape,
        input_shape: DeclaredShape = None,
    ) -> Tensor:
        """Return the gradient with respect to the filters, of `filter_shape`: its kernel extents must be given."""
        x = float_tensor("input", input, output_grad)
        dy = float_tensor("output_grad", output_grad, x)
        check_declared("input_shape", input_shape, x.shape)
        rank = self.rank
        for label, tensor in (("input", x), ("output_grad", dy)):
            self.check_rank(label, tensor, rank + 2)
        if x.shape[0] != dy.shape[0]:
            raise ShapeError(
                f"input and output_grad must have one batch size; got {x.node.type} and {dy.node.type}."
            )
        _, kernel = self._required("filter_shape", filter_shape, self.weight_rank)
        self._check_groups(x.shape[1], dy.shape[1])
        outputs = dy.shape[2:] if self.unshared else ()
        weight = (dy.shape[1], *outputs, x.shape[1] // self.num_groups, *kernel)
        check_declared("filter_shape", filter_shape, weight)
        pads = self.pads(kernel)
        self._check_gradient(x.shape, weight, pads, dy)
        empty_outputs, empty_inputs = not dy.shape[1], not x.shape[1]
        x, dy = self._grown(x, 0, 1), self._grown(dy, 0, 1)
        x, dy = self._grown(x, 1, self.num_groups), self._grown(dy, 1, self.num_groups)
        attributes = (kernel, *self._geometry(pads))
        name = None if self.filter_flip else self.name
        if self.unshared:
            local = LocalWeightGradAttributes(*attributes, self._wishes(x)[0])
            dw = apply("conv_local_weight_grad", [x, dy], local, name=name)
        else:
            shared = ConvWeightGradAttributes(*attributes, *self._wishes(x))
            dw = apply("conv_weight_grad", [x, dy], shared, name=name)
        if empty_outputs:
            dw = dw[:0]
        if empty_inputs:
            dw = dw[(*(slice(None),) * self._channel_axis, slice(0))]
        return flip(dw, self._kernel_axes(dw), name=self.name) if self.filter_flip else dw

    # ---- parts ------------------------------------------------------------------------------------------------------

    @property
    def weight_rank(self) -> int:
        return 2 + self.rank * (2 if self.unshared else 1)

    @property
    def _channel_axis(self) -> int:
        """Axis of the filters' input channels."""
        return 1 + (self.rank if self.unshared else 0)

    def _geometry(self, pads: tuple[tuple[int, int], ...]) -> tuple[Shape, Shape, Shape, int]:
        return self.strides, ir_pads(pads), self.dilations, self.num_groups

    def _wishes(self, x: Tensor) -> tuple[str, str]:
        return sum_type(self.precision, x.dtype), self.algorithm

    def _flipped(self, w: Tensor) -> Tensor:
        """Return the filters as a cross-correlation needs them; known ones are reversed now."""
        if not self.filter_flip:
            return w
        axes = self._kernel_axes(w)
        if w.node.op == CONSTANT:
            return constant(np.flip(w.node.value, axes), name=w.node.name or None)
        return flip(w, axes)

    def _kernel_axes(self, w: Tensor) -> tuple[int, ...]:
        return tuple(range(len(w.shape) - self.rank, len(w.shape)))

    def _grown(self, tensor: Tensor, axis: int, extent: int) -> Tensor:
        """Return the tensor with `extent` zeros on an axis that has none: an empty sum is zero, and kernels need something to add."""
        if tensor.shape[axis]:
            return tensor
        ends = [extent if a == axis else 0 for a in range(len(tensor.shape))]
        return pad(tensor, [*[0] * len(ends), *ends])

    def _required(
        self, name: str, declared: DeclaredShape, rank: int
    ) -> tuple[tuple[int | None, ...], Shape]:
        """Return a declared shape in two: the axes before the last ones, and those, all of which must be known."""
        shape = () if declared is None else extents(name, declared)
        spatial = tuple(d for d in shape[-self.rank :] if d is not None)
        if len(shape) != rank or len(spatial) != self.rank:
            raise ShapeError(
                f"{name} must have {rank} entries and say the last {self.rank}, which the operands do not tell; got {declared!r}."
            )
        return shape[: -self.rank], spatial

    def check_rank(self, name: str, tensor: Tensor, rank: int) -> None:
        if len(tensor.shape) != rank:
            raise ShapeError(
                f"{name} must have {rank} axes for {self.rank} spatial ones; got {tensor.node.type}."
            )

    def check_ranks(self, name: str, x: Tensor, w: Tensor) -> None:
        self.check_rank(name, x, self.rank + 2)
        if len(w.shape) != self.weight_rank:
            form = (
                "(OC, *output, IC/groups, *kernel)" if self.unshared else "(OC, IC/groups, *kernel)"
            )
            raise ShapeError(
                f"filters must have {self.weight_rank} axes, {form}; got {w.node.type} for {name} {x.node.type}."
            )

    def _check_groups(self, inputs: int, outputs: int) -> None:
        groups = self.num_groups
        if groups < 1 or inputs % groups or outputs % groups:
            raise ShapeError(
                f"num_groups must divide the channels of input and output; got {groups} for {inputs} and {outputs}."
            )

    def _output(self, data: Shape, weight: Shape, pads: tuple[tuple[int, int], ...]) -> Shape:
        """Return the output's shape, after checking that there is one."""
        self._check_groups(data[1], weight[0])
        channels = weight[self._channel_axis] * self.num_groups
        if data[1] != channels:
            raise ShapeError(
                f"input must have num_groups x IC/groups = {self.num_groups} x {weight[self._channel_axis]} channels; "
                f"got {data[1]} (input {data}, filters {weight})."
            )
        known = get_conv_output_shape(data, weight, pads, self.strides, self.dilations)
        shape = tuple(d for d in known if d is not None)
        if min((*data[2:], *weight[-self.rank :], *shape[2:])) < 1:
            raise ShapeError(
                f"filters must fit the padded input; got output {shape} of input {data}, filters {weight}, padded by {pads}."
            )
        if self.unshared and weight[1 : 1 + self.rank] != shape[2:]:
            raise ShapeError(
                f"unshared filters must be one per output point {shape[2:]}; got {weight[1 : 1 + self.rank]} "
                f"(input {data}, filters {weight})."
            )
        return shape

    def _check_gradient(
        self, data: Shape, weight: Shape, pads: tuple[tuple[int, int], ...], dy: Tensor
    ) -> None:
        wanted = self._output(data, weight, pads)
        if dy.shape != wanted:
            raise ShapeError(
                f"output_grad must have the output's shape {wanted} for input {data} and filters {weight}; got {dy.shape}."
            )
