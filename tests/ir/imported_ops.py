"""IMPORTED: ops that only imported graphs and passes have. The DSL has no function for them, so that nothing differentiates them either."""

from convc.ir import ops

__all__ = ["IMPORTED"]

IMPORTED = {
    row.name
    for family in (
        ops.gather,
        ops.group_norm,
        ops.layer_norm,
        ops.logic,
        ops.order,
        ops.quantized,
        ops.resample,
        ops.sample,
        ops.select,
    )
    for row in family.ROWS
} | {
    "max_pool_indices",
    "pick_channels",
    "reduce_prod",
}
