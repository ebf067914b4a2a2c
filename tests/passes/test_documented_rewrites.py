"""Every pass's `Rewrite:` block is run: parsed before, transformed, compared with the parsed after."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import convc.ir.passes
from convc.ir import Graph
from convc.ir.passes import PASSES, PIPELINE
from convc.ir.passes.eliminate_dead_nodes import eliminate_dead_nodes
from convc.ir.text import parse, print_graph

# The values that the blocks leave free.
FREE = {
    "fold_constants": "%x = input : f32[1]",
    "remove_identities": "%x = input : f32[2,3,4]",
    "merge_channel_moves": "%a = input : f32[1,2,3,3] %b = input : f32[1,2,3,3]",
    "nest_concats": "%a = input : f32[1,4,2,2] %b = input : f32[1,5,2,2]",
    "unflatten_transposes": "%x = input : f32[1,3,4,4] %t = input : f32[1,16,3]",
    "resample_tokens": "%t = input : f32[1,3,4,5] %p = constant splat(1) : i32[9,2] %w = constant splat(0.5) : f32[9,2]",
    "fuse_dynamic_layers": "%x = input : u8[3,2] %z = input : i32[] %s = input : f32[1]",
    "drop_unit_axes": "%x = input : f32[2,3,4] %m = input : f32[1,1,1,4]",
    "sink_transposes": "%x = input : f32[1,3,4,4]",
    "fuse_layer_norm": "%x = input : f32[2,3,4,5]",
    "fuse_group_norm": "%x = input : f32[2,3,4,5]",
    "fuse_softmax": "%x = input : f32[2,3,4]",
    "expand_powers": "%x = input : f32[2,3]",
    "fuse_bounds": "%x = input : f32[2,3]",
    "fuse_activations": "%x = input : f32[2,3]",
    "merge_pads": "%x = input : f32[1,3,5,5] %w = input : f32[4,3,3,3]",
    "drop_dead_taps": "%x = input : f32[1,1,14,4]",
    "keep_reduced_axes": "%x = input : f32[1,3,4,4]",
    "replace_global_pools": "%x = input : f32[1,3,4,4]",
    "absorb_broadcasts": "%x = input : f32[1,3,4,4]",
    "merge_branches": "%x = input : f32[1,1,3,3]",
    "fold_channel_affine": "%x = input : f32[1,1,3,3]",
    "merge_affine": "%x = input : f32[1,2,3,3]",
    "pool_before_pointwise": "%x = input : f32[1,3,4,4] %w = input : f32[2,3,1,1]",
    "fuse_epilogue": (
        "%x = input : f32[1,3,5,5] %w = input : f32[4,3,3,3] %b = input : f32[1,4,1,1] %r = input : f32[1,4,3,3]"
        " %q = input : f32[2,3,4,5] %k = input : f32[2,3,5,4] %f = input : f32[3,1,1] %mask = input : f32[1,4,4]"
    ),
    "deduplicate_nodes": "%x = input : f32[2]",
    "eliminate_dead_nodes": "%x = input : f32[2]",
}


def rewrites(name: str) -> list[tuple[str, str]]:
    """Return the (before, after) pairs of a pass's docstring."""
    function = next(p.function for p in PASSES if p.name == name)
    doc = inspect.cleandoc(function.__doc__ or "")
    block = re.search(r"^Rewrite:\n(.*?)(?=^\w+:|\Z)", doc, re.DOTALL | re.MULTILINE)
    assert block, f"{name} must document a rewrite"
    pairs = []
    for part in re.split(r"\n\s*\n", block[1].strip()):
        before, after = part.split("-->")
        pairs.append((before.strip(), after.strip()))
    return pairs


def last_value(body: str) -> str:
    return re.findall(r"%(\w+) =", body)[-1]


def graph_of(name: str, body: str, output: str) -> Graph:
    """Return the graph of a block, whose last value is the output called `output`."""
    return parse(
        f'graph @{name} {{ {FREE[name]} {body} return %{last_value(body)} as "{output}" }}'
    )


CASES = [(p, before, after) for p in PASSES for before, after in rewrites(p.name)]


@pytest.mark.parametrize(("step", "before", "after"), CASES, ids=[c[0].name for c in CASES])
def test_documented_rewrite(step, before, after):
    output = last_value(before)
    graph = step.function(graph_of(step.name, before, output))
    if step.function is not eliminate_dead_nodes:
        # The blocks leave out what is dead afterwards.
        graph = eliminate_dead_nodes(graph)
    assert print_graph(graph) == print_graph(graph_of(step.name, after, output))


def test_every_pass_has_its_file_and_runs():
    folder = Path(convc.ir.passes.__file__).parent
    files = {f.stem for f in folder.glob("*.py")}
    tools = {"__init__", "rewrite", "uniform", "channels", "affine", "normalised", "signs"}
    # What a quantised model means is decided when it is loaded, before its reference is taken.
    loading = {
        "quantize_layers",
        "integer_layer",
        "quantized_ends",
        "add_quantized",
        "tabulate",
        "convert_floats",
    }
    assert {p.name for p in PIPELINE} == files - tools - loading
    assert set(PASSES) == set(PIPELINE)
