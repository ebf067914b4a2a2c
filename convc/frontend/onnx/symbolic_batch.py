"""A model with a symbolic batch: imported for one sample, and once more for three, which shows what has the one written into it.

    batch = 1 at export:   y = Reshape(x, [1, 512])      right for one sample, an error or another network for any other number

The graph of one sample would be scaled to any number without a word. So its graph for three is compared, value by value, with the
import for three; the first that differs is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from convc.errors import ConvcError, ShapeError
from convc.frontend.onnx.input_shapes import Dimension
from convc.ir.batch import with_batch
from convc.ir.graph import Graph

__all__ = ["with_symbolic_batch"]

# No extent of a network by chance.
_SAMPLES = 3


def with_symbolic_batch(
    graph_of: Callable[[int], Graph], batch: str, inputs: Mapping[str, Sequence[Dimension]]
) -> Graph:
    """Return the graph of one sample whose inputs have a symbolic batch.

    Args:
        graph_of: imports the model for a number of samples.
        batch: the dimension's name.
        inputs: shapes of the inputs that have it.

    Raises:
        ShapeError: if a node mixes samples, or has a number of samples written into it.
    """
    name, shape = next(iter(inputs.items()))
    way_out = f"Give the batch a number: `--shape {name}:{'x'.join(map(str, (1, *shape[1:])))}`."
    try:
        graph = graph_of(1)
    except ShapeError as error:
        if "symbolic batch" in str(error):
            error.add_note(way_out)
        raise
    try:
        several = graph_of(_SAMPLES)
    except ConvcError as error:
        where = " ".join(getattr(error, "__notes__", ()))
        raise ShapeError(
            f"model must run for any {batch} to have a symbolic batch; it runs for 1, and not for {_SAMPLES}: {error} {where} "
            f"A shape with the batch written into it does that; export the model with a dynamic batch. {way_out}"
        ) from error
    scaled = with_batch(graph, _SAMPLES)
    for node in scaled.nodes:
        other = several.by_name.get(node.name)
        if other is None or other.op != node.op or other.type == node.type:
            continue
        raise ShapeError(
            f"%{node.name} must have {_SAMPLES} samples where the inputs have; got {other.type} for {node.type}: a number of samples "
            f"is written into {other.op} '{node.name}', or into a shape before it. Export the model with a dynamic batch. {way_out}"
        )
    for ours, theirs in zip(scaled.outputs, several.outputs, strict=True):
        if scaled[ours.value].type != several[theirs.value].type:
            raise ShapeError(
                f"output '{ours.name}' must have {scaled[ours.value].type} for {_SAMPLES} samples; got {several[theirs.value].type}. {way_out}"
            )
    return graph
