"""Matrix products that the kernel of dense layers computes: dense layers, and matmul whose right side is one matrix, or one for each left.

Rewrite:
    dense(x[M, C], w[K, C]);  matmul(x[..., C], w[C, K]);  matmul(x[..., M, C], w[..., C, K])
    -->
    pack(w): at compile time, or a step before the product;  product(x as [M, C] or [B, M, C], packed)
Unless:
    the type is neither float32 nor a half that the target's kernels widen; or packing would take longer than it saves: for few
    rows, or short sums of whole vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from convc.ir.epilogue import Step
from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops.conv import DenseAttributes
from convc.ir.types import HALVES, Shape
from convc.schedules.backend import backend_of
from convc.target import Target

__all__ = ["Product", "product_of"]

# When a weight matrix of run time is read as it is. Measured on two cores of an Emerald Rapids, 1024 x 1024, in microseconds, as it
# is and packed. Rows of w[k, c]: 1 row 731, 920; 8 rows 5505, 912. Rows of w[c, k], in whole vectors: 1 row 715, 920; 8 rows 2532, 856;
# a sum of 8 products 234, 306, of 64 3374, 1613.
_FEW_ROWS = 2
_FEW_ROWS_BY_COLUMNS = 4
_SHORT_SUM = 16


@dataclass(frozen=True, slots=True)
class Product:
    """y[m, k] = sum over c of x[m, c] w, with w[k, c] or, `by_columns`, w[c, k]; `batch` of them, or 0 for one without that axis."""

    batch: int
    rows: int
    depth: int
    outputs: int
    by_columns: bool
    constant: bool
    epilogue: tuple[Step, ...] = ()

    @property
    def data(self) -> Shape:
        """(M, C), with the batch in front if there is one."""
        return (*self._batch, self.rows, self.depth)

    @property
    def result(self) -> Shape:
        """(M, K), likewise."""
        return (*self._batch, self.rows, self.outputs)

    @property
    def weight(self) -> Shape:
        """(K, C) or (C, K), likewise."""
        matrix = (self.depth, self.outputs) if self.by_columns else (self.outputs, self.depth)
        return (*self._batch, *matrix)

    @property
    def _batch(self) -> Shape:
        return (self.batch,) if self.batch else ()


def product_of(graph: Graph, node: Node, target: Target) -> Product | None:
    """Return the product that a node is, or None if the kernel of dense layers does not compute it."""
    if node.op not in ("dense", "matmul") or not node.type.size:
        return None
    widens = node.type.dtype in HALVES and backend_of(target).widens
    if node.type.dtype != "float32" and not widens:
        return None
    x, w = (graph[name] for name in node.inputs[:2])
    if w.type.rank < 2 or x.type.rank < 2 or not x.type.size:
        return None
    by_columns, constant = node.op == "matmul", w.op == CONSTANT
    batch = math.prod(w.type.shape[:-2])
    if batch == 1:
        batch, rows = 0, math.prod(x.type.shape[:-1])
    elif _leading(x.type.shape) == _leading(w.type.shape):
        rows = x.type.shape[-2]
    else:
        return None
    outputs = node.type.shape[-1]
    if not constant:
        short = rows < _FEW_ROWS_BY_COLUMNS or x.type.shape[-1] <= _SHORT_SUM
        vectors = outputs % target.lanes == 0
        as_it_is = vectors and short if by_columns else rows < _FEW_ROWS
        if as_it_is:
            return None
    if (batch or not constant) and "dense_packing" not in backend_of(target).schedules:
        return None
    epilogue = node.attributes.epilogue if isinstance(node.attributes, DenseAttributes) else ()
    return Product(batch, rows, x.type.shape[-1], outputs, by_columns, constant, epilogue)


def _leading(shape: Shape) -> Shape:
    """Return the extents in front of a matrix, without those of 1 before them all."""
    lead = shape[:-2]
    return lead[next((i for i, n in enumerate(lead) if n != 1), len(lead)) :]
