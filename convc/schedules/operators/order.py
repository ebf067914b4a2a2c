"""Places of extremes, ranks and running sums."""

from __future__ import annotations

import math
from typing import Any, Final

from tvm import te, tirx, topi
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T  # noqa: N812  # TVM's own name for it

from convc.ir.graph import Node
from convc.schedules.extreme import greatest_of, least_of
from convc.schedules.operators.operator import Operator, Tensors, Types

__all__ = ["ROWS"]


def _argmax(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    """Return where the extreme lies: first the extreme itself, then the least (or greatest) place that holds it."""
    a: Any = node.attributes
    (x,), axis, n = tensors, a.axis, types[0].shape[a.axis]
    top = (greatest_of if a.largest else least_of)(x, axis, keepdims=True)
    k = te.reduce_axis((0, n), "k")
    reduce = te.max if a.last else te.min
    # What is no place of the extreme counts as the last one looked at: a row of NaN alone has a place, too.
    absent = tirx.const(0 if a.last else n - 1, "int64")

    def value(*i: Any) -> Any:
        rest = i[axis + 1 :] if a.keepdims else i[axis:]
        here = x(*i[:axis], k, *rest) == top(*i[:axis], 0, *rest)
        return reduce(tirx.Select(here, k.astype("int64"), absent), axis=k)

    return te.compute(node.type.shape, value, name="argmax")


def _topk(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    """Return the k best places of every row, by a heap of k places whose root is the worst one: n log k comparisons.

    Source:
        Knuth, The Art of Computer Programming 3, 5.2.3 (heapsort).
    """
    a: Any = node.attributes
    shape, k, n = types[0].shape, a.k, types[0].shape[a.axis]
    after = math.prod(shape[a.axis + 1 :])
    rows = math.prod(shape[: a.axis]) * after

    def loops(data: Any, result: Any) -> Any:
        with IRBuilder() as builder:
            with T.serial(
                0, 1
            ):  # several statements need one around them; T.seq_scope makes LLVM warn
                x, heap = T.buffer_proxy(data), T.buffer_proxy(result)
                hole = T.buffer_proxy(T.alloc_buffer((1,), "int64", scope="local"))
                child = T.buffer_proxy(T.alloc_buffer((1,), "int64", scope="local"))
                item = T.buffer_proxy(T.alloc_buffer((1,), "int64", scope="local"))
                with T.serial(0, rows) as row:
                    source = (row // after) * (n * after) + row % after
                    target = (row // after) * (k * after) + row % after

                    def at(i: Any) -> Any:
                        return heap[target + i * after]

                    def worse(i: Any, j: Any) -> Any:
                        """Whether place i ranks behind place j."""
                        u, v = x[source + i * after], x[source + j * after]
                        return tirx.any(u < v if a.largest else u > v, tirx.all(u == v, i > j))

                    def sift(value: Any, size: Any) -> None:
                        """Put a place at the root of a heap of `size`, and let it sink below all that are worse."""
                        item[0] = value
                        hole[0] = tirx.const(0, "int64")
                        sink(size)

                    def sink(size: Any) -> None:
                        child[0] = 2 * hole[0] + 1
                        with T.While(child[0] < size):
                            with T.If(child[0] + 1 < size), T.Then():
                                step = T.If(worse(at(child[0] + 1), at(child[0])))
                                with step, T.Then():
                                    child[0] = child[0] + 1
                            with T.If(worse(at(child[0]), item[0])):
                                with T.Then():
                                    heap[target + hole[0] * after] = at(child[0])
                                    hole[0] = child[0]
                                    child[0] = 2 * hole[0] + 1
                                with T.Else():
                                    child[0] = size
                        heap[target + hole[0] * after] = item[0]

                    with T.serial(0, k) as i:
                        heap[target + i * after] = i.astype("int64")
                    with T.serial(0, k // 2) as down:
                        begin = (k // 2 - 1 - down).astype("int64")
                        item[0] = at(begin)
                        hole[0] = begin
                        sink(tirx.const(k, "int64"))
                    with T.serial(0, n - k) as more:
                        place = (more + k).astype("int64")
                        with T.If(worse(at(0), place)), T.Then():
                            sift(place, tirx.const(k, "int64"))
                    with T.serial(0, k - 1) as done:
                        last = (k - 1 - done).astype("int64")
                        worst = T.buffer_proxy(T.alloc_buffer((1,), "int64", scope="local"))
                        worst[0] = at(0)
                        sift(at(last), last)
                        heap[target + last * after] = worst[0]
            return builder.get()

    buffer = tirx.decl_buffer(node.type.shape, "int64", "places")
    return te.extern(
        [node.type.shape],
        list(tensors),
        lambda ins, outs: loops(ins[0], outs[0]),
        dtype="int64",
        out_buffers=[buffer],
        name="topk",
    )


def _running(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    a: Any = node.attributes
    function = topi.cumsum if a.function == "sum" else topi.cumprod
    return function(tensors[0], axis=a.axis, dtype=types[0].dtype, exclusive=a.exclusive)


ROWS: Final[dict[str, Operator]] = {
    "argmax": Operator(_argmax),
    "topk": Operator(_topk),
    "running": Operator(_running),
}
