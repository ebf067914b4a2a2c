"""Matrix products that the kernel of dense layers computes: dense layers and matmul.

Rewrite:
    dense(x[M, C], w[K, C]);  matmul(x[..., C], w[C, K]);  matmul(x[..., M, C], w[..., C, K])
    -->
    pack(w): at compile time, or a step before the product;  product(x as [M, C] or [B..., M, C], packed)
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
from convc.ir.ops.linear import MatmulAttributes
from convc.ir.types import HALVES, Shape
from convc.lowering.product_axes import ProductAxes
from convc.schedules.backend import backend_of
from convc.schedules.layout import PLAIN
from convc.target import Target

__all__ = ["Product", "product_of"]

# When a weight matrix of run time is read as it is. Measured on two cores of an Emerald Rapids, 1024 x 1024, in microseconds, as it
# is and packed. Rows of w[k, c]: 1 row 731, 920; 8 rows 5505, 912. Rows of w[c, k], in whole vectors: 1 row 715, 920; 8 rows 2532, 856;
# a sum of 8 products 234, 306, of 64 3374, 1613.
_FEW_ROWS = 2
_FEW_ROWS_BY_COLUMNS = 4
_SHORT_SUM = 16
_ROWS_OF_SHORT_SUMS = 16


@dataclass(frozen=True, slots=True)
class Product:
    """y[..., m, k] = sum over c of x[..., m, c] w, with w[..., k, c] or, `by_columns`, w[..., c, k].

    Attributes:
        axes: the batch and the rows as the kernel runs them.
        depth, outputs: C and K.
        own: extents of the weights in front of their matrices.
        by_columns: how the weights lie in memory.
        constant: whether they are known at compile time.
        epilogue: what follows.
    """

    axes: ProductAxes
    depth: int
    outputs: int
    own: Shape
    by_columns: bool
    constant: bool
    epilogue: tuple[Step, ...] = ()

    @property
    def data(self) -> Shape:
        """(M, C), with the batch in front if there is one."""
        return (*self.axes.batch, self.axes.rows, self.depth)

    @property
    def weight(self) -> Shape:
        """(K, C) or (C, K), with the number of matrices in front if they are several."""
        matrix = (self.depth, self.outputs) if self.by_columns else (self.outputs, self.depth)
        count = math.prod(self.own)
        return (count, *matrix) if count > 1 else matrix


def product_of(graph: Graph, node: Node, target: Target) -> Product | None:
    """Return the product that a node is, or None if the kernel of dense layers does not compute it."""
    if node.op not in ("dense", "matmul") or not node.type.size:
        return None
    widens = node.type.dtype in HALVES and backend_of(target).widens
    if node.type.dtype != "float32" and not widens:
        return None
    x, w, *extras = graph.operands(node)
    if not x.type.size:
        return None
    attributes = node.attributes
    assert isinstance(attributes, DenseAttributes | MatmulAttributes), node
    taken = [step.name for step in attributes.epilogue if step.takes_operand]
    whole = [e.type.shape for name, e in zip(taken, extras, strict=True) if name != "bias"]
    plain = [PLAIN.view(s, "float32") for s in (x.type.shape, node.type.shape, *whole)]
    own = w.type.shape[:-2] if math.prod(w.type.shape[:-2]) > 1 else ()
    axes = ProductAxes.of(node.type.shape, own, plain)
    depth, outputs = x.type.shape[-1], node.type.shape[-1]
    by_columns, constant = node.op == "matmul", w.op == CONSTANT
    if not constant:
        short = axes.rows < (_FEW_ROWS_BY_COLUMNS if depth > _SHORT_SUM else _ROWS_OF_SHORT_SUMS)
        vectors = outputs % target.lanes == 0
        as_it_is = vectors and short if by_columns else axes.rows < _FEW_ROWS
        if as_it_is:
            return None
    if (axes.batch or not constant) and "dense_packing" not in backend_of(target).schedules:
        return None
    return Product(axes, depth, outputs, own, by_columns, constant, attributes.epilogue)
