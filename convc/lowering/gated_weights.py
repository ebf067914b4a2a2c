"""The step of a gated layer that scales its packed weights for every image, see `schedules.gated`."""

from __future__ import annotations

from tvm import te, tirx

from convc.ir.graph import Node
from convc.lowering.named_kernel import named_kernel
from convc.lowering.program import Argument, Call
from convc.schedules.backend import backend_of
from convc.schedules.gated import scaled_weights
from convc.target import Target

__all__ = ["scaling_call"]


def scaling_call(
    gate: Node, weight: Argument, scale: Argument, result: Argument, target: Target
) -> Call:
    """Return the call that writes weights times scale, once for each image.

    Args:
        gate: the multiplication that it stands for.
        weight: packed.
        scale: (N, C, 1, 1) in the weights' blocks of input channels.
        result: (N, ...) of the packed weights' shape.
        target: the machine.
    """
    packed, images = weight.view.shape, result.view.shape[0]

    def make() -> tirx.PrimFunc:
        func = te.create_prim_func(scaled_weights(packed, images))
        return backend_of(target).schedule_any(func, target)

    arguments = (weight, scale, result)
    kernel = named_kernel("scale_weights", (images,), [a.view for a in arguments], make)
    return Call(kernel, arguments, gate.name, gate.op, reason="scales weights, not data")
