"""Kernels that move elements and compute nothing: between memory orders, channels, zeros around an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import te, tirx

from convc.ir.channel_moves import Picks
from convc.ir.types import Shape, TensorType
from convc.lowering.named_kernel import named_kernel
from convc.lowering.program import Kernel
from convc.lowering.views import moved
from convc.schedules import channel_moves, permutation
from convc.schedules.backend import backend_of
from convc.schedules.layout import View
from convc.target import Target

__all__ = [
    "border_kernel",
    "cast_kernel",
    "channel_kernel",
    "channels_last_kernel",
    "permutation_kernel",
    "reorder_kernel",
]


def reorder_kernel(
    type: TensorType, source: int, result: int, target: Target, views: Sequence[View]
) -> Kernel:
    """Return the copy of an image from one block to another (0: plain); channels beyond the last are zeros."""
    if backend_of(target).widens:
        # As the same backend's kernels have bfloat16 in memory.
        views = list(map(moved, views))
    type = TensorType(type.shape, views[0].dtype)

    def make() -> tirx.PrimFunc:
        x = te.placeholder(views[0].shape, type.dtype, name="x")

        def read(n: Any, c: Any, *at: Any) -> Any:
            return x(n, c // source, *at, c % source) if source else x(n, c, *at)

        def blocked(n: Any, c: Any, *position: Any) -> Any:
            *at, lane = position
            channel = c * result + lane
            if type.shape[1] % result == 0:
                return read(n, channel, *at)
            zero = tirx.const(0, type.dtype)
            return tirx.if_then_else(channel < type.shape[1], read(n, channel, *at), zero)

        if not source and not result:
            y = te.compute(type.shape, lambda *i: x(*i), name="copy")
        else:
            y = te.compute(views[1].shape, blocked if result else read, name="reorder")
        func = te.create_prim_func([x, y])
        if type.is_image and (source > 1) != (result > 1):
            return backend_of(target).schedule_transpose(func, max(source, result), target)
        return backend_of(target).schedule_any(func, target)

    return named_kernel(f"reorder_{source}_{result}", (type,), views, make)


def channels_last_kernel(block: int, target: Target, views: Sequence[View]) -> Kernel:
    """Return the kernel that brings an image's channels, the last axis of the one view, into blocks, or back, as views have them."""
    views = list(map(moved, views))
    source, result = views
    to_blocks = len(result.shape) > len(source.shape)

    def make() -> tirx.PrimFunc:
        x = te.placeholder(source.shape, source.dtype, name="x")
        channels = source.shape[-1]

        def blocked(n: Any, c: Any, *position: Any) -> Any:
            *at, lane = position
            if result.shape[1] * block == channels:
                return x(n, *at, c * block + lane)
            inside, zero = c * block + lane < channels, tirx.const(0, source.dtype)
            return tirx.if_then_else(inside, x(n, *at, c * block + lane), zero)

        def last(n: Any, *position: Any) -> Any:
            *at, c = position
            return x(n, c // block, *at, c % block)

        y = te.compute(result.shape, blocked if to_blocks else last, name="channels_last")
        func = te.create_prim_func([x, y])
        return backend_of(target).schedules["channels_last"](func, {"block": block}, target)

    return named_kernel("channels_last", (block,), views, make)


def permutation_kernel(shape: Shape, perm: Shape, target: Target, views: Sequence[View]) -> Kernel:
    """Return the kernel of a transpose of plain values."""
    views = list(map(moved, views))

    def make() -> tirx.PrimFunc:
        func = te.create_prim_func(permutation.compute(shape, perm, views[0].dtype))
        last = perm.index(len(perm) - 1)
        return backend_of(target).schedules["permutation"](func, {"last": last}, target)

    return named_kernel("permutation", (perm,), views, make)


def channel_kernel(picks: Picks, block: int, target: Target, views: Sequence[View]) -> Kernel:
    """Return the kernel that moves channels of blocked operands."""
    views = list(map(moved, views))

    def make() -> tirx.PrimFunc:
        x = [te.placeholder(v.shape, v.dtype, name=f"x{i}") for i, v in enumerate(views[:-1])]
        func = te.create_prim_func([*x, channel_moves.compute(x, picks, block)])
        if block == 1:  # whole planes, no vectors of channels
            return backend_of(target).schedule_any(func, target)
        return backend_of(target).schedule_channels(func, picks, target)

    return named_kernel("channels", (block, picks), views, make)


def cast_kernel(views: Sequence[View], target: Target) -> Kernel:
    """Return the kernel that rounds a plain value to the second view's type."""

    def make() -> tirx.PrimFunc:
        x = te.placeholder(views[0].shape, views[0].dtype, name="x")
        y = te.compute(x.shape, lambda *i: x(*i).astype(views[1].dtype), name="cast")
        return backend_of(target).schedule_any(te.create_prim_func([x, y]), target)

    return named_kernel("cast", (), views, make)


def border_kernel(views: Sequence[View], target: Target, fill: int = 0) -> Kernel:
    """Return the kernel that writes zeros, or another number, into the bands of a halo."""
    views = list(map(moved, views))

    def make() -> tirx.PrimFunc:
        bands = [_filled(view, fill, f"band{i}") for i, view in enumerate(views)]
        return backend_of(target).schedule_any(te.create_prim_func(bands), target)

    return named_kernel("border", (fill,) if fill else (), views, make)


def _filled(view: View, fill: int, name: str) -> te.Tensor:
    return te.compute(view.shape, lambda *i: tirx.const(fill, view.dtype), name=name)
