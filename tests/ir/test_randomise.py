from __future__ import annotations

import numpy as np

from convc.ir.graph import Graph
from convc.ir.randomise import randomise
from convc.ir.reference import interpret
from convc.ir.text import parse


def tower(depth: int) -> Graph:
    """Residual blocks without any normalisation: constant weights would explode in them."""
    lines, data = ["%x = input : f32[1,8,6,6]"], "%x"
    for i in range(depth):
        lines += [
            f"%w{i} = constant splat(0.5) : f32[8,8,3,3]",
            f"%s{i} = constant splat(1.0) : f32[1,8,1,1]",
            f"%b{i} = constant splat(0.0) : f32[1,8,1,1]",
            f"%c{i} = conv({data}, %w{i}) {{pads = [1, 1, 1, 1]}} : f32[1,8,6,6]",
            f"%m{i} = mul(%c{i}, %s{i}) : f32[1,8,6,6]",
            f"%a{i} = add(%m{i}, %b{i}) : f32[1,8,6,6]",
            f"%r{i} = add(%a{i}, {data}) : f32[1,8,6,6]",
            f"%o{i} = relu(%r{i}) : f32[1,8,6,6]",
        ]
        data = f"%o{i}"
    body = "\n".join(lines)
    return parse(f'graph @tower {{ {body}\n return {data} as "y" }}')


def test_values_neither_vanish_nor_explode() -> None:
    graph = tower(30)
    x = {"x": np.random.default_rng(7).standard_normal((1, 8, 6, 6))}
    assert interpret(graph, x)["y"].max() > 1e20
    values = interpret(randomise(graph), x, keep=True)
    spreads = [values[f"c{i}"].std() for i in range(30)]
    assert 0.3 < min(spreads) < max(spreads) < 3
    assert values["o29"].std() < 30


def test_it_keeps_structure_and_depends_on_the_seed_alone() -> None:
    graph = tower(2)
    first, again, other = randomise(graph, 1), randomise(graph, 1), randomise(graph, 2)
    first.verify()
    assert first == again
    assert not np.array_equal(first["w0"].value, other["w0"].value)
    assert not np.array_equal(first["w0"].value, first["w1"].value)
    assert [(n.name, n.op, n.inputs, n.type) for n in first.nodes] == [
        (n.name, n.op, n.inputs, n.type) for n in graph.nodes
    ]
    assert first["w0"].value.dtype == np.float32
    assert first["s0"].value.min() >= 0.5


def test_what_is_no_weight_stays() -> None:
    graph = parse(
        """graph @g {
          %x = input : f32[1,4]
          %k = constant splat(3.0) : f32[1]
          %e = constant splat(2.0) : f32[4]
          %m = mul(%x, %k) : f32[1,4]
          %p = pow(%m, %e) : f32[1,4]
          return %p
        }"""
    )
    made = randomise(graph)
    assert made["k"] == graph["k"]
    assert made["e"] == graph["e"]
