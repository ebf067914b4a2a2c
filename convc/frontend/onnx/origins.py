"""Where integers that are constant for one size come from: which extent of which value, and by which arithmetic.

    Shape(x) -> Gather -> (n - 1) // 8 + 1 -> Concat -> Resize        [1, 40, 28, 28] for one size, and 28 follows from a row count of x

For fixed shapes all of that is folded away. Where height and width are open, what is resized to such a constant must follow: the nodes
behind it are computed again for every extent that the value can have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from convc.frontend.onnx.model_file import normal_domain
from convc.ir.ops.definition import Array
from convc.ir.types import Shape

__all__ = ["Origin", "Origins"]

# Height and width of N, C, H, W.
_OPEN: Final = (2, 3)


@dataclass(frozen=True, slots=True)
class Origin:
    """What one element of a constant follows from.

    Attributes:
        value: of the graph; "" if it follows from several extents.
        axis: of the value.
        table: the element for each extent from 1 on, 0 where there is none; empty where it is the extent itself.
    """

    value: str
    axis: int = 0
    table: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Shape:
    """A constant that is a value's shape, from one axis to before another; or its number of elements."""

    value: str
    shape: Shape
    begin: int = 0
    end: int | None = None
    count: bool = False

    def of(self, shape: Sequence[int]) -> Array:
        if self.count:
            return np.asarray(np.prod(shape, dtype=np.int64))
        return np.asarray(shape[self.begin : self.end], np.int64)


@dataclass
class Origins:
    """The constants of one import that follow from extents.

    Attributes:
        opsets: of the model.
        constant: returns the array of an ONNX name.
    """

    opsets: Mapping[str, int]
    constant: Callable[[str], Array]
    _shapes: dict[str, _Shape] = field(default_factory=dict)
    _nodes: dict[str, NodeProto] = field(default_factory=dict)
    _known: dict[str, tuple[Origin | None, ...]] = field(default_factory=dict)

    def follow(self, proto: NodeProto, shape_of: Callable[[str], tuple[str, Shape] | None]) -> None:
        """Remember a node whose results are constants.

        Args:
            proto: the node.
            shape_of: returns name and shape of an operand that is a value of the graph, None of a constant.
        """
        if proto.op_type in ("Shape", "Size"):
            operand = shape_of(proto.input[0])
            if operand is None:
                return
            given = {a.name: a.i for a in proto.attribute}
            self._shapes[proto.output[0]] = _Shape(
                *operand, given.get("start", 0), given.get("end"), proto.op_type == "Size"
            )
        elif any(n in self._shapes or n in self._nodes for n in proto.input):
            self._nodes.update(dict.fromkeys(proto.output, proto))

    def of(self, name: str) -> tuple[Origin | None, ...]:
        """Return what each element of a constant follows from; None where it is written in the model."""
        if name not in self._known:
            elements = self.constant(name).reshape(-1)
            followed = name in self._shapes or name in self._nodes
            self._known[name] = self._found(name, elements) if followed else (None,) * len(elements)
        return self._known[name]

    def _found(self, name: str, elements: Array) -> tuple[Origin | None, ...]:
        leaves, compute = self._function(name)
        values = {s.value: s.shape for s in leaves.values() if len(s.shape) == 4}
        ones = {v: (*s[:2], 1, 1) for v, s in values.items()}
        found: list[Origin | None] = [None] * len(elements)
        for value, shape in values.items():
            for axis in _OPEN:
                # With all else at its largest, and at 1: what differs follows from more than this extent.
                tables = [
                    np.array([
                        compute({**base, value: (*base[value][:axis], n, *base[value][axis + 1 :])}, len(elements))
                        for n in range(1, shape[axis] + 1)
                    ])
                    for base in (values, ones)
                ]  # fmt: skip
                for i in range(len(elements)):
                    first, second = (t[:, i] for t in tables)
                    if np.all(first == first[-1]) and np.all(second == second[-1]):
                        continue
                    if found[i] is not None or not np.array_equal(first, second):
                        found[i] = Origin("")
                        continue
                    same = np.array_equal(first, np.arange(1, shape[axis] + 1))
                    found[i] = Origin(value, axis, () if same else tuple(map(int, first)))
        return tuple(found)

    def _function(
        self, name: str
    ) -> tuple[dict[str, _Shape], Callable[[Mapping[str, Shape], int], Array]]:
        """Return the shapes that a constant follows from, and the function from shapes of values to its elements."""
        nodes: dict[int, NodeProto] = {}
        leaves: dict[str, _Shape] = {}
        constants: dict[str, TensorProto] = {}

        def gather(wanted: str) -> None:
            if wanted in self._shapes:
                leaves[wanted] = self._shapes[wanted]
            elif wanted not in self._nodes:
                constants[wanted] = numpy_helper.from_array(np.ascontiguousarray(self.constant(wanted)).reshape(self.constant(wanted).shape), wanted)  # fmt: skip
            elif id(node := self._nodes[wanted]) not in nodes:
                for operand in filter(None, node.input):
                    gather(operand)
                nodes[id(node)] = node

        gather(name)
        infos = [helper.make_empty_tensor_value_info(n) for n in leaves]
        result = [helper.make_empty_tensor_value_info(name)]
        graph = helper.make_graph(list(nodes.values()), "extents", infos, result, list(constants.values()))  # fmt: skip
        opsets = [helper.make_opsetid(normal_domain(d), v) for d, v in self.opsets.items()]
        evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets)) if nodes else None  # fmt: skip

        def compute(shapes: Mapping[str, Shape], count: int) -> Array:
            fed = {n: s.of(shapes.get(s.value, s.shape)) for n, s in leaves.items()}
            if evaluator is None:
                return fed[name].reshape(-1)
            try:
                with np.errstate(all="ignore"):
                    (result,) = evaluator.run([name], fed)
            except (ValueError, TypeError, IndexError, RuntimeError, ArithmeticError):
                return np.zeros(count, np.int64)  # this extent is too small
            elements = np.asarray(result).reshape(-1)
            return elements if len(elements) == count else np.zeros(count, np.int64)

        return leaves, compute
