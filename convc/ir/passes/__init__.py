"""Passes: `Graph -> Graph`, one file each; the PIPELINE runs them in order and checks the graph between them.

A pass is pure and deterministic: same graph in, same graph out, names included. Graph inputs, the public names of outputs,
and the names of layers stay: a conv that absorbs what follows it is still called what the model calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from convc.errors import ConvcError
from convc.ir.graph import Graph
from convc.ir.passes.absorb_broadcasts import absorb_broadcasts
from convc.ir.passes.deduplicate_nodes import deduplicate_nodes
from convc.ir.passes.drop_dead_taps import drop_dead_taps
from convc.ir.passes.drop_unit_axes import drop_unit_axes
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.passes.expand_powers import expand_powers
from convc.ir.passes.fold_channel_affine import fold_channel_affine
from convc.ir.passes.fold_constants import fold_constants
from convc.ir.passes.fuse_activations import fuse_activations
from convc.ir.passes.fuse_bounds import fuse_bounds
from convc.ir.passes.fuse_dynamic_layers import fuse_dynamic_layers
from convc.ir.passes.fuse_epilogue import fuse_epilogue
from convc.ir.passes.fuse_group_norm import fuse_group_norm
from convc.ir.passes.fuse_layer_norm import fuse_layer_norm
from convc.ir.passes.fuse_softmax import fuse_softmax
from convc.ir.passes.keep_reduced_axes import keep_reduced_axes
from convc.ir.passes.merge_affine import merge_affine
from convc.ir.passes.merge_branches import merge_branches
from convc.ir.passes.merge_channel_moves import merge_channel_moves
from convc.ir.passes.merge_pads import merge_pads
from convc.ir.passes.nest_concats import nest_concats
from convc.ir.passes.pool_before_pointwise import pool_before_pointwise
from convc.ir.passes.remove_identities import remove_identities
from convc.ir.passes.replace_global_pools import replace_global_pools
from convc.ir.passes.resample_tokens import resample_tokens
from convc.ir.passes.sink_transposes import sink_transposes
from convc.ir.passes.unflatten_transposes import unflatten_transposes

__all__ = ["PASSES", "PIPELINE", "Pass", "run_passes"]


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass and its name, which is its function's and its file's."""

    name: str
    function: Callable[[Graph], Graph]


def _named(*functions: Callable[[Graph], Graph]) -> tuple[Pass, ...]:
    return tuple(Pass(f.__name__, f) for f in functions)


PIPELINE: Final = _named(
    # Fewer nodes first: what is constant, dead or computed twice.
    fold_constants,
    eliminate_dead_nodes,
    deduplicate_nodes,
    # One spelling for one meaning.
    drop_unit_axes,
    remove_identities,
    # Before a scale is anything but what is multiplied.
    fuse_dynamic_layers,
    expand_powers,
    fuse_layer_norm,
    fuse_group_norm,
    fuse_softmax,
    merge_channel_moves,
    nest_concats,
    unflatten_transposes,
    resample_tokens,
    sink_transposes,
    fuse_bounds,
    fuse_activations,
    merge_pads,
    drop_dead_taps,
    keep_reduced_axes,
    replace_global_pools,
    absorb_broadcasts,
    # Layers absorb their surroundings: weights first, then the epilogue takes what is left.
    merge_branches,
    fold_channel_affine,
    merge_affine,
    pool_before_pointwise,
    fuse_epilogue,
    # What became equal or dead on the way.
    deduplicate_nodes,
    eliminate_dead_nodes,
)

# Every pass once, in the order of its first run.
PASSES: Final = tuple(dict.fromkeys(PIPELINE))


def run_passes(
    graph: Graph,
    passes: Sequence[Pass] = PIPELINE,
    *,
    dump: Callable[[str, Graph], None] | None = None,
) -> Graph:
    """Return the graph after all passes, verified before the first and after each.

    Args:
        graph: left as it is.
        passes: in order.
        dump: called as `dump(pass name, graph)` after each pass.

    Raises:
        VerifyError: if the graph, or what a pass made of it, broke a rule; a note names the pass and those that ran before.

    Example:
        >>> from convc.ir.text import parse, print_graph
        >>> text = "graph @g { %x = input : f32[1,3,4,4] %w = input : f32[2,3,3,3] %c = conv(%x, %w) %y = relu(%c) return %y }"
        >>> print(print_graph(run_passes(parse(text))), end="")
        graph @g {
          %x = input : f32[1,3,4,4]
          %w = input : f32[2,3,3,3]
          %c = conv(%x, %w) {epilogue = [relu]} : f32[1,2,2,2]
          return %c as "y"
        }
    """
    graph.verify()
    done: list[str] = []
    for step in passes:
        try:
            result = step.function(graph)
            if result is not graph:
                result.verify()
        except ConvcError as error:
            after = f", after {', '.join(done)}" if done else ""
            error.add_note(f"in pass {step.name}{after}")
            raise
        graph = result
        done.append(step.name)
        if dump is not None:
            dump(step.name, graph)
    return graph
