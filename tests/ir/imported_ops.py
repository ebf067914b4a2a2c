"""IMPORTED: ops that only imported graphs and passes have. The DSL has no function for them, so that nothing differentiates them either."""

from convc.ir.ops import (
    gather,
    group_norm,
    layer_norm,
    logic,
    order,
    quantized,
    resample,
    sample,
    select,
)

__all__ = ["IMPORTED"]

IMPORTED = {
    row.name
    for family in (
        gather,
        group_norm,
        layer_norm,
        logic,
        order,
        quantized,
        resample,
        sample,
        select,
    )
    for row in family.ROWS
} | {
    "max_pool_indices",
    "pick_channels",
    "reduce_prod",
}
