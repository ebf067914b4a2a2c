"""Where every value lies: memory for results, conversions between memory orders, packed constants.

A value is written once, in its primary layout, and converted once for every other block that a reader wants. The operands of a
concatenation along channels are written straight into their part of its result, so that most concatenations run no code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.narrowing import narrow_constant
from convc.ir.types import Shape, TensorType, numpy_dtype
from convc.lowering.bytes_key import Bytes
from convc.lowering.layouts import Layouts
from convc.lowering.moves import border_kernel, cast_kernel, reorder_kernel
from convc.lowering.program import Argument, Buffer, Call
from convc.schedules.layout import PLAIN, Halo, Layout, View
from convc.target import Target

__all__ = ["Places"]


@dataclass(frozen=True, slots=True)
class _Place:
    """A value's memory: a buffer of its own, channels of a larger image's, or plain bytes from `offset` on."""

    buffer: Buffer
    image: Shape | None = None
    channel: int = 0
    offset: int = 0


class Places:
    """The memory of one program; calls that move data go to `emit`.

    Attributes:
        weights: packed constants by buffer name.
    """

    def __init__(
        self, graph: Graph, layouts: Layouts, target: Target, emit: Callable[[Call], None]
    ) -> None:
        self.graph, self.layouts, self.target, self._emit = graph, layouts, target, emit
        self.weights: dict[str, np.ndarray] = {}
        self._equal: dict[Bytes, str] = {}
        self._buffers = 0
        self._at: dict[str, dict[int, _Place]] = {}
        self._images: dict[str, Buffer] = {}
        self._fills: dict[Buffer, int] = {}
        self.outputs = {
            o.value: Buffer(f"output{i}", "output", graph[o.value].type.nbytes, i)
            for i, o in reversed(list(enumerate(graph.outputs)))
        }
        for index, node in enumerate(graph.inputs):
            buffer = Buffer(f"input{index}", "input", node.type.nbytes, index)
            self._at[node.name] = {0: _Place(buffer)}

    def read(self, value: str, block: int, border: Halo | None = None, fill: int = 0) -> Argument:
        """Return the value in the wanted block, converting it first if nobody did; `fill` is what its border is to hold."""
        node = self.graph[value]
        if node.op == CONSTANT and value not in self._at:
            return self._constant(node, block, border, fill)
        if block not in self._at[value]:
            self._convert(node, block)
        place, layout = self._at[value][block], self.layouts.of(value, block)
        if border and self._fills.get(place.buffer, fill) != fill:
            self._fill_border(node, layout, place, fill)
        return self._seen(node, place, layout, border)

    def apart(self, value: str, block: int) -> Argument:
        """Return the value in the wanted block, in a copy of its own if it is not there: what may not run leaves nothing to share."""
        node = self.graph[value]
        if (node.op == CONSTANT and value not in self._at) or block in self._at[value]:
            return self.read(value, block)
        source = self.layouts.primary[value]
        written = self._seen(node, self._at[value][source.block], source)
        copy = self.fresh(node, Layout(block))
        self._copy(node, written, copy, source, Layout(block))
        return copy

    def fresh(self, node: Node, layout: Layout) -> Argument:
        """Return memory of its own for a node's value in a layout without a halo."""
        shape, dtype = node.type.shape, node.type.dtype
        buffer = self._arena(f"{node.name}:{layout}", layout.nbytes(shape, dtype))
        return Argument(buffer, layout.view(shape, dtype))

    def put(self, node: Node, result: Argument, layout: Layout) -> None:
        """Copy a value from memory of its own to where `write` has placed it."""
        primary = self.layouts.primary[node.name]
        placed = self._seen(node, self._at[node.name][primary.block], primary)
        self._copy(node, result, placed, layout, primary)

    def _copy(
        self, node: Node, source: Argument, result: Argument, read: Layout, written: Layout
    ) -> None:
        self._reorder(node, source, result, (read.block, written.block), f"{read} -> {written}")

    def _reorder(
        self,
        node: Node,
        source: Argument,
        result: Argument,
        blocks: tuple[int, int],
        reason: str,
        type: TensorType | None = None,
    ) -> None:
        """Copy an image, `node`'s value or of the given type, from one block to another."""
        type = type or node.type
        n, c, *spatial = type.shape if type.is_image else (1, 1)
        # On CPUs rows that are no whole vectors are moved as one row; threads want several of them each.
        lanes, shared = max(blocks), n * c // max(1, *blocks)
        vectors = self.target.device is None and lanes > 1
        if vectors and spatial[-1] % lanes and shared >= 4 * (self.target.cores - 1):
            views = [a.view.rows_joined(len(spatial)) for a in (source, result)]
            if views[0] and views[1]:
                source, result = (
                    Argument(source.buffer, views[0]),
                    Argument(result.buffer, views[1]),
                )
                type = replace(type, shape=(n, c, math.prod(spatial)))
        kernel = reorder_kernel(type, *blocks, self.target, (source.view, result.view))
        self._emit(Call(kernel, (source, result), node.name, "reorder", reason=reason))

    def _seen(
        self, node: Node, place: _Place, layout: Layout, border: Halo | None = None
    ) -> Argument:
        shape, dtype = node.type.shape, node.type.dtype
        view = layout.view(shape, dtype, border, image=place.image, channel=place.channel)
        return Argument(place.buffer, replace(view, offset=view.offset + place.offset))

    def write(self, node: Node) -> Argument:
        """Return fresh memory for a unit's result, its halo zeroed."""
        layout = self.layouts.primary[node.name]
        if layout == PLAIN and node.name in self.outputs:
            place = _Place(self.outputs[node.name])
        elif node.name in self.layouts.homes:
            home = self.layouts.homes[node.name]
            image = self.graph[home.image]
            place = _Place(self._image(image), image.type.shape, home.channel)
        else:
            place = _Place(self._image(node))
        self._at[node.name] = {layout.block: place}
        return self._seen(node, place, layout)

    def _image(self, node: Node) -> Buffer:
        """Return the memory of a value in its primary layout, its halo zeroed when it is first asked for."""
        if node.name not in self._images:
            layout = self.layouts.primary[node.name]
            buffer = self._arena(node.name, layout.nbytes(node.type.shape, node.type.dtype))
            self._fill_border(node, layout, _Place(buffer))
            self._images[node.name] = buffer
        return self._images[node.name]

    def concatenate(self, node: Node, block: int) -> None:
        """Make a concatenation along channels in whole blocks: copy the operands that were not written into it."""
        result, begin = self.write(node), 0
        place = self._at[node.name][block]
        layout = self.layouts.primary[node.name]
        for index, operand in enumerate(map(self.graph.__getitem__, node.inputs)):
            image = place.image or node.type.shape
            part = _Place(result.buffer, image, place.channel + begin)
            begin += operand.type.shape[1]
            home = self.layouts.homes.get(operand.name)
            if home is not None and home.by == (node.name, index):
                continue
            arguments = (self.read(operand.name, block), self._seen(operand, part, layout))
            reason = f"part {index} of {len(node.inputs)}"
            self._reorder(node, *arguments, (block, block), reason, operand.type)

    def alias(self, node: Node, source: str, first: int = 0) -> None:
        """Let a reshape or a slice be its operand's plain bytes, from byte `first` on."""
        whole = self.read(source, 0)
        self._at[node.name] = {0: _Place(whole.buffer, offset=whole.view.offset + first)}
        self.layouts.primary[node.name] = PLAIN

    def scratch(self, name: str, shape: Shape, dtype: str) -> Argument:
        """Return memory for what one step leaves to the next."""
        view = PLAIN.view(shape, dtype)
        nbytes = PLAIN.nbytes(shape, dtype)
        return Argument(self._arena(name, nbytes), view)

    def _arena(self, stem: str, nbytes: int) -> Buffer:
        """Return a new buffer; the number keeps a value apart from another one's copy that is called like it."""
        self._buffers += 1
        return Buffer(f"{stem}#{self._buffers}", "arena", nbytes)

    def _convert(self, node: Node, block: int) -> None:
        """Bring a value from the block it was written in to another one."""
        shape, dtype = node.type.shape, node.type.dtype
        source, result = self.layouts.primary[node.name], self.layouts.of(node.name, block)
        places = self._at[node.name]
        written = places[source.block]
        if source.same_bytes(result, shape) and written.image is None:
            places[block] = written
            return
        if block == 0 and node.name in self.outputs:
            buffer = self.outputs[node.name]
        else:
            buffer = self._arena(f"{node.name}:{result}", result.nbytes(shape, dtype))
        place = _Place(buffer)
        self._fill_border(node, result, place)
        self._copy(
            node, self._seen(node, written, source), self._seen(node, place, result), source, result
        )
        places[block] = place

    def _fill_border(self, node: Node, layout: Layout, place: _Place, fill: int = 0) -> None:
        views = layout.bands(place.image or node.type.shape, node.type.dtype)
        if views:
            arguments = tuple(Argument(place.buffer, view) for view in views)
            kernel = border_kernel(views, self.target, fill)
            reason = f"halo {layout.halo}"
            self._emit(Call(kernel, arguments, node.name, "border", reason=reason))
            self._fills[place.buffer] = fill

    def deliver(self, node: Node, index: int) -> None:
        """Copy an output that was not written into the caller's memory: an input, a constant, a reshape, a second name."""
        value = self.read(node.name, 0)
        if value.buffer.space == "output" and value.buffer.index == index:
            return
        buffer = Buffer(f"output{index}", "output", node.type.nbytes, index)
        result = Argument(buffer, PLAIN.view(node.type.shape, node.type.dtype))
        self._reorder(node, value, result, (0, 0), "copy to output")

    def weight(self, name: str, array: np.ndarray) -> Argument:
        """Return a packed constant; the same name is the same constant, and equal ones lie in one place.

        A recurrent layer reads its weights in every step: 786 kB of a GRU's as 49 copies came from memory, 29 us a step, once from L2, 10.
        """
        array = np.asarray(array, order="C")  # ascontiguousarray would make one dimension of none
        if name not in self.weights:
            name = self._equal.setdefault(Bytes(array), name)
        buffer = Buffer(name, "weights", array.nbytes)
        self.weights.setdefault(name, array)
        return Argument(buffer, PLAIN.view(array.shape, str(array.dtype)))

    def _constant(self, node: Node, block: int, border: Halo | None, fill: int = 0) -> Argument:
        if not block:
            return self.weight(f"{node.name}:plain", node.value)
        layout, type = self.layouts.of(node.name, block), node.type
        n, cb, *spatial, b = layout.physical(type.shape)
        begins, ends = layout.halo.begins(len(spatial)), layout.halo.ends(len(spatial))
        around = [(0, 0), (0, cb * b - type.shape[1]), *zip(begins, ends, strict=True)]
        padded = np.pad(node.value, around, constant_values=fill)
        blocked = np.moveaxis(padded.reshape(n, cb, b, *padded.shape[2:]), 2, -1)
        stored = self.weight(
            f"{node.name}:{block}:{fill}" if fill else f"{node.name}:{block}", blocked
        )
        return Argument(stored.buffer, layout.view(type.shape, type.dtype, border))

    def bias(self, value: str, block: int, dtype: str = "") -> Argument:
        """Return a bias as (blocks, block), or (K,) for plain kernels; rounded to `dtype` if it is not in that.

        Raises:
            DTypeError: if a constant is too large for it.
        """
        node = self.graph[value]
        dtype = dtype or node.type.dtype
        if node.op == CONSTANT and (block or dtype != node.type.dtype):
            channels = node.type.shape[0]
            whole = -(-channels // block) * block if block else channels
            padded = np.zeros(whole, numpy_dtype(dtype))
            padded[:channels] = narrow_constant(value, node.value, dtype)
            shape = (whole // block, block) if block else (whole,)
            return self.weight(f"{value}:bias{block}:{dtype}", padded.reshape(shape))
        source = self._plain_bias(node, dtype)
        if not block:
            return source
        channels = node.type.shape[0]
        blocks = -(-channels // block)
        if channels % block == 0:
            return Argument(source.buffer, View((blocks, block), (block, 1), 0, dtype))
        return self._padded_bias(node, source, blocks, block)

    def _plain_bias(self, node: Node, dtype: str) -> Argument:
        """Return a bias that is known only at run time, rounded by a step of its own if it is in another type."""
        plain = self.read(node.name, 0)
        if dtype == node.type.dtype:
            return plain
        rounded = self.scratch(f"{node.name}:{dtype}", node.type.shape, dtype)
        kernel = cast_kernel([plain.view, rounded.view], self.target)
        self._emit(Call(kernel, (plain, rounded), node.name, "cast", reason=f"bias to {dtype}"))
        return rounded

    def _padded_bias(self, node: Node, source: Argument, blocks: int, block: int) -> Argument:
        """Copy a bias that is known only at run time into whole blocks: the same move as for an image of one point."""
        dtype = source.view.dtype
        image = type(node.type)((1, node.type.shape[0], 1, 1), dtype)
        layout = Layout(block)
        buffer = self._arena(f"{node.name}:bias{block}", layout.nbytes(image.shape, image.dtype))
        plain = Argument(source.buffer, PLAIN.view(image.shape, image.dtype))
        blocked = Argument(buffer, layout.view(image.shape, image.dtype))
        self._reorder(node, plain, blocked, (0, block), "bias to blocks", image)
        return Argument(buffer, View((blocks, block), (block, 1), 0, dtype))
