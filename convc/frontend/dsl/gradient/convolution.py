"""Rules of convolutions, their transposes and weight gradients, which are closed among themselves, and of epilogues.

y  = conv(x, w)              dx = conv_transpose(dy, w)       dw = conv_weight_grad(x, dy)
y  = conv_transpose(x, w)    dx = conv(dy, w)                 dw = conv_weight_grad(dy, x)
w' = conv_weight_grad(x, g)  dx = conv_transpose(g, dw')      dg = conv(x, dw')
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from convc.frontend.dsl.gradient import elementwise, linear
from convc.frontend.dsl.gradient.rule import Call, Gradients, Rule, sum_to
from convc.frontend.dsl.tensor import Tensor, apply
from convc.ir.epilogue import Step
from convc.ir.ops.conv import ConvAttributes, ConvTransposeAttributes, conv_spec
from convc.ir.ops.conv_weight_grad import ConvWeightGradAttributes, forward_spec
from convc.ir.ops.elementwise import UNARY
from convc.ir.ops.shape import ReshapeAttributes
from convc.ir.spec import ConvSpec

__all__ = ["ROWS"]


def _forward(spec: ConvSpec, accumulate: str = "") -> ConvAttributes:
    return ConvAttributes(
        spec.strides, spec.pads, spec.dilations, spec.group, accumulate=accumulate
    )


# A library that a layer asks for computes its gradients, too, as Theano's cuDNN layers do. What names a mathematics, or a way to choose, is
# not passed on: a gradient is another computation.
_LIBRARIES: Final = ("cudnn",)


def _inherited(algorithm: str) -> str:
    """Return what the gradients of a layer ask for.

    Example:
        >>> _inherited("cudnn:small,im2col"), _inherited("winograd")
        ('cudnn', '')
    """
    names = {name.partition(":")[0].strip() for name in algorithm.split(",")}
    return ",".join(name for name in _LIBRARIES if name in names)


def _data_gradient(
    dy: Tensor, w: Tensor, spec: ConvSpec, accumulate: str = "", algorithm: str = ""
) -> Tensor:
    """Return the gradient of a convolution's data, in the data's shape."""
    n = spec.rank
    # What the strides left unread behind the last window.
    left = tuple(
        (spec.data[2 + i] + spec.pads[i] + spec.pads[n + i] - spec.effective_kernel[i])
        % spec.strides[i]
        for i in range(n)
    )
    attributes = ConvTransposeAttributes(
        spec.strides,
        spec.pads,
        spec.dilations,
        spec.group,
        left,
        accumulate=accumulate,
        algorithm=algorithm,
    )
    return apply("conv_transpose", [dy, w], attributes)


def _weight_gradient(
    x: Tensor, dy: Tensor, spec: ConvSpec, accumulate: str = "", algorithm: str = ""
) -> Tensor:
    attributes = ConvWeightGradAttributes(
        spec.kernel, spec.strides, spec.pads, spec.dilations, spec.group, accumulate, algorithm
    )
    return apply("conv_weight_grad", [x, dy], attributes)


def _conv(call: Call) -> Gradients:
    (x, w), a = call.operands, call.attributes
    spec, asked = conv_spec(x.node.type, w.node.type, a), _inherited(a.algorithm)
    return [
        _data_gradient(call.dy, w, spec, a.accumulate, asked) if call.needed[0] else None,
        _weight_gradient(x, call.dy, spec, a.accumulate, asked) if call.needed[1] else None,
    ]


def _conv_transpose(call: Call) -> Gradients:
    (x, w), a = call.operands, call.attributes
    spec = conv_spec(x.node.type, w.node.type, a)
    # The convolution from the result's space to the data's, of which this is the adjoint.
    adjoint = ConvSpec.of(
        spec.output,
        spec.weight,
        strides=spec.strides,
        pads=spec.pads,
        dilations=spec.dilations,
        group=spec.group,
        dtype=spec.dtype,
    )
    dy = call.dy
    if adjoint.output != spec.data:
        # output_padding of a stride or more, as dilation allows: points that no window of the adjoint begins at.
        dy, adjoint = _without_extra_windows(dy, adjoint, spec)
    return [
        apply("conv", [dy, w], _forward(adjoint, a.accumulate)) if call.needed[0] else None,
        _weight_gradient(dy, x, adjoint, a.accumulate) if call.needed[1] else None,
    ]


def _without_extra_windows(
    dy: Tensor, adjoint: ConvSpec, spec: ConvSpec
) -> tuple[Tensor, ConvSpec]:
    """Return gradient and convolution without the last points, which no input point reaches."""
    n = spec.rank
    ends, pads = list(dy.shape), list(spec.pads)
    for i in range(n):
        extra = (adjoint.output[2 + i] - spec.data[2 + i]) * spec.strides[i]
        padding = min(extra, pads[n + i])
        pads[n + i] -= padding
        ends[2 + i] -= extra - padding
    cut = dy[tuple(slice(0, e) for e in ends)] if tuple(ends) != dy.shape else dy
    return cut, replace(adjoint, data=tuple(ends), pads=tuple(pads))


def _conv_weight_grad(call: Call) -> Gradients:
    x, g = call.operands
    a = call.attributes
    spec = forward_spec(x.node.type, g.node.type, a)
    return [
        _data_gradient(g, call.dy, spec, a.accumulate) if call.needed[0] else None,
        apply("conv", [x, call.dy], _forward(spec, a.accumulate)) if call.needed[1] else None,
    ]


def _with_epilogue(rule: Rule) -> Rule:
    """Return the rule of an op with an epilogue: back through its steps, then `rule` for the op without one."""

    def whole(call: Call) -> Gradients:
        steps = call.attributes.epilogue
        if not steps:
            return rule(call)
        main, extras = call.operands[:2], list(call.operands[2:])
        bare = apply(call.y.node.op, main, replace(call.attributes, epilogue=()))
        values = [bare]
        operands = iter(extras)
        for step in steps:
            values.append(_step(call.y.node.op, values[-1], step, operands.__next__))
        gradient, back = call.dy, []
        taken = list(extras)
        for step, before, after in zip(
            reversed(steps), reversed(values[:-1]), reversed(values[1:]), strict=True
        ):
            if step.name == "bias":
                back.append(sum_to(gradient, _per_channel(call.y.node.op, gradient)))
                taken.pop()
            elif step.name == "add":
                back.append(sum_to(gradient, taken.pop().shape))
            elif step.name == "mul":
                factor = taken.pop()
                back.append(sum_to(gradient * before, factor.shape))
                gradient = gradient * factor
            else:
                gradient = _function(step, after, gradient)
        shaped = [
            apply("reshape", [g], ReshapeAttributes(extra.shape)) if g.shape != extra.shape else g
            for g, extra in zip(reversed(back), extras, strict=True)
        ]
        inner = rule(Call(bare, gradient, call.needed[:2]))
        return [*inner, *shaped]

    return whole


def _per_channel(op: str, y: Tensor) -> tuple[int, ...]:
    if op == "matmul":
        return (*(1,) * (len(y.shape) - 1), y.shape[-1])
    return (1, y.shape[1], *(1,) * (len(y.shape) - 2))


def _step(op: str, y: Tensor, step: Step, operand: Callable[[], Tensor]) -> Tensor:
    if step.name == "bias":
        return y + apply("reshape", [operand()], ReshapeAttributes(_per_channel(op, y)))
    if step.name == "add":
        return y + operand()
    if step.name == "mul":
        return y * operand()
    return apply(step.name, [y], UNARY[step.name].attributes(*step.arguments))


def _function(step: Step, after: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient before a scalar function of the epilogue; zero is written out."""
    (result,) = elementwise.ROWS[step.name](Call(after, gradient, (True,)))
    return gradient * 0.0 if result is None else result


ROWS: Final[dict[str, Rule]] = {
    "conv": _with_epilogue(_conv),
    "conv_transpose": _with_epilogue(_conv_transpose),
    "conv_weight_grad": _conv_weight_grad,
    "dense": _with_epilogue(linear.dense),
    "matmul": _with_epilogue(linear.matmul),
}
