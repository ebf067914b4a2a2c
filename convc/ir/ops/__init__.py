"""OPS: the closed set of ops. A new op is one row in one family file (meaning) and one row in `schedules.operators` (computation)."""

from __future__ import annotations

from typing import Final

from convc.errors import unknown_name
from convc.ir.ops import (
    conv,
    conv_local,
    conv_weight_grad,
    elementwise,
    flip,
    gather,
    group_norm,
    layer_norm,
    linear,
    logic,
    order,
    pool,
    pool_grad,
    quantized,
    resample,
    sample,
    select,
    shape,
)
from convc.ir.ops.definition import Attributes, OpDef

__all__ = ["OPS", "Attributes", "OpDef", "op_named"]

OPS: Final[dict[str, OpDef]] = {
    row.name: row
    for family in (
        conv,
        conv_local,
        conv_weight_grad,
        linear,
        group_norm,
        layer_norm,
        pool,
        pool_grad,
        elementwise,
        logic,
        shape,
        gather,
        order,
        select,
        resample,
        sample,
        flip,
        quantized,
    )
    for row in family.ROWS
}


def op_named(name: str) -> OpDef:
    """Return the op called `name`, or raise UnknownNameError."""
    if name not in OPS:
        raise unknown_name("op", name, OPS)
    return OPS[name]
