"""OPERATORS: tensor expressions of every op that is not a convolution, one row each in its family's file; TOPI computes."""

from __future__ import annotations

from typing import Final

from convc.schedules.operators import (
    elementwise,
    gather,
    group_norm,
    layer_norm,
    linear,
    local,
    logic,
    movement,
    order,
    quantized,
    reduction,
    sample,
    select,
    softmax,
    weight_gradient,
    window,
    window_grad,
)
from convc.schedules.operators.operator import OpAlgorithm, Operator

__all__ = ["OPERATORS", "OpAlgorithm", "Operator"]

OPERATORS: Final[dict[str, Operator]] = {
    name: row
    for family in (
        elementwise,
        logic,
        window,
        window_grad,
        linear,
        reduction,
        softmax,
        layer_norm,
        group_norm,
        movement,
        gather,
        order,
        select,
        sample,
        local,
        weight_gradient,
        quantized,
    )
    for name, row in family.ROWS.items()
}
