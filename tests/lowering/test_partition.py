"""Which nodes become one kernel, and each reason why not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from convc.ir.ops import OPS
from convc.ir.text import parse
from convc.lowering.partition import partition
from convc.schedules.following import is_literal
from tests.lowering.image_graphs import image_graphs

X = "%x = input : f32[1,3,4,4]  %s = constant splat(2.0) : f32[]  "


def units(body: str, outputs: str = "%y") -> list[list[str]]:
    graph = parse(f"graph @g {{ {X} {body} return {outputs} }}")
    return [[node.name for node in unit.nodes] for unit in partition(graph)]


def test_a_chain_of_elementwise_ops_is_one_unit():
    assert units("%a = mul(%x, %s)  %b = add(%a, %x)  %y = relu(%b)") == [["a", "b", "y"]]


def test_two_chains_meet_in_one_unit():
    assert units("%a = relu(%x)  %b = abs(%x)  %y = sub(%a, %b)") == [["a", "b", "y"]]


def test_operands_are_listed_once_in_order_of_first_use():
    graph = parse(f"graph @g {{ {X} %a = mul(%x, %s)  %b = abs(%a)  %y = add(%b, %x)  return %y }}")
    (unit,) = partition(graph)
    assert unit.operands == ("x", "s")
    assert unit.result.name == "y"


def test_no_other_op_joins():
    body = "%a = relu(%x)  %p = max_pool(%a) {kernel = [2, 2]}  %y = relu(%p)"
    assert units(body) == [["a"], ["p"], ["y"]]


def test_unless_an_inner_value_has_another_user():
    body = "%a = relu(%x)  %b = neg(%a)  %c = abs(%a)  %y = add(%b, %c)"
    assert units(body) == [["a"], ["b", "c", "y"]]


def test_unless_an_inner_value_is_an_output():
    assert units("%a = relu(%x)  %y = neg(%a)", "%a, %y") == [["a"], ["y"]]


def test_unless_an_inner_value_has_another_shape():
    body = "%r = reduce_sum(%x) {axes = [2, 3]}  %a = relu(%r)  %y = mul(%x, %a)"
    assert units(body) == [["r"], ["a"], ["y"]]


def test_unless_the_code_would_explode():
    assert units("%a = softplus(%x)  %y = tanh(%a)") == [["a"], ["y"]]
    # Mish: the product goes with the function before it.
    assert units("%a = softplus(%x)  %b = tanh(%a)  %y = mul(%x, %b)") == [["a"], ["b", "y"]]
    doubled = "  ".join(f"%d{i + 1} = add(%d{i}, %d{i})" for i in range(5))
    assert len(units(f"%d0 = abs(%x)  {doubled}  %y = neg(%d5)")) > 1


@pytest.mark.parametrize(
    ("constant", "expected"),
    [("splat(2.0) : f32[]", True), ("splat(2.0) : f32[1,1]", True), ("splat(2.0) : f32[2]", False), ("splat(2) : i32[]", False)],
)  # fmt: skip
def test_literals(constant, expected):
    graph = parse(f"graph @g {{ %c = constant {constant}  return %c }}")
    assert is_literal(graph["c"]) is expected


@settings(deadline=None, max_examples=50, derandomize=True)
@given(image_graphs())
def test_units_hold_every_node_once_after_their_operands(graph):
    found = partition(graph)
    nodes = [node.name for unit in found for node in unit.nodes]
    assert sorted(nodes) == sorted(n.name for n in graph.compute_nodes)
    known = {n.name for n in graph.nodes} - set(nodes)
    for unit in found:
        assert set(unit.operands) <= known
        known.add(unit.result.name)
        if len(unit.nodes) > 1:
            assert all(OPS[n.op].elementwise for n in unit.nodes)
            assert len({n.type.shape for n in unit.nodes}) == 1
