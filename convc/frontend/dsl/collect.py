"""Tensors -> Graph: what the outputs depend on, in topological order, every value with a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from convc.errors import DTypeError, VerifyError
from convc.frontend.dsl.tensor import Tensor
from convc.ir.graph import Graph, Output

__all__ = ["collected", "graph"]


def collected(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Return all tensors that `outputs` depend on, each after its producers; the order follows the operands' order alone."""
    done: dict[Tensor, None] = {}
    # A stack of our own: a network is deeper than Python's recursion limit.
    stack = [(o, False) for o in reversed(outputs)]
    while stack:
        tensor, visited = stack.pop()
        if tensor in done:
            continue
        if visited:
            done[tensor] = None
        else:
            stack.append((tensor, True))
            stack.extend((p, False) for p in reversed(tensor.producers))
    return list(done)


def _names(tensors: Sequence[Tensor]) -> dict[Tensor, str]:
    """Return a name for every tensor: the given one, else the op's with the next free number."""
    given = [t.node.name for t in tensors if t.node.name]
    taken = set(given)
    if len(taken) < len(given):
        twice = next(n for n in given if given.count(n) > 1)
        raise VerifyError(f"tensor names must be distinct in a graph; got '{twice}' twice.")
    counts: dict[str, int] = {}
    names: dict[Tensor, str] = {}
    for tensor in tensors:
        op, name = tensor.node.op, tensor.node.name
        while not name:
            counts[op] = counts.get(op, 0) + 1
            numbered = f"{op}_{counts[op]}"
            name = "" if numbered in taken else numbered
        names[tensor] = name
    return names


def _is_output(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def graph(outputs: Tensor | Mapping[str, Tensor], *, name: str = "graph") -> Graph:
    """Return the verified graph of everything that `outputs` depend on; inputs in the order in which they are first read.

    Args:
        outputs: public names and tensors; a single tensor is an output under its own name.
        name: of the graph.

    Raises:
        DTypeError: if `outputs` or `name` are something else.
        VerifyError: if two tensors have the same name, or there is no output.

    Example:
        >>> from convc.frontend.dsl.tensor import input
        >>> [(o.name, o.value) for o in graph(input("x", (2,)) + 1.0).outputs]
        [('add_1', 'add_1')]
    """
    named = {"": outputs} if isinstance(outputs, Tensor) else outputs
    if not (isinstance(named, Mapping) and all(map(_is_output, named.items()))):
        raise DTypeError(f"outputs must be a tensor, or tensors by their names; got {outputs!r}.")
    if not isinstance(name, str):
        raise DTypeError(f"graph name must be a string; got {name!r}.")
    tensors = collected(list(named.values()))
    names = _names(tensors)
    nodes = (
        replace(t.node, name=names[t], inputs=tuple(names[p] for p in t.producers)) for t in tensors
    )
    results = (Output(public or names[t], names[t]) for public, t in named.items())
    result = Graph(name, tuple(nodes), tuple(results))
    result.verify()
    return result
