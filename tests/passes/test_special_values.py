"""Every pass's documented rewrite, and what is like it, on infinities, NaN, both zeros and the ends of float32: the same as before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convc.compiler import compile
from convc.ir.passes import PASSES, run_passes
from convc.ir.passes.expand_powers import expand_powers
from convc.ir.reference import interpret
from convc.ir.text import parse
from tests.passes.test_documented_rewrites import CASES, graph_of, last_value

SPECIAL = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -3.0,
    np.inf,
    -np.inf,
    np.nan,
    3e38,
    -3e38,
    1e-40,
    6.0,
    -104.0,
)
# What multiplies or sums in another order: 0 times infinity, and infinities of two signs, are NaN in one and not in the other.
REORDERED = {"fold_constants", "pool_before_pointwise", "merge_branches", "fold_channel_affine", "merge_affine", "fuse_epilogue", "fuse_layer_norm", "fuse_group_norm"}  # fmt: skip
EXPONENTS = (2.0, 3.0, 4.0, 0.5, -1.0, -0.5, 1.0, 0.0, -2.0, 1.5)

few = settings(deadline=None, max_examples=40, derandomize=True)


def drawn(draw, graph):
    values = {}
    for node in graph.inputs:
        chosen = st.lists(
            st.sampled_from(SPECIAL), min_size=node.type.size, max_size=node.type.size
        )
        values[node.name] = np.float32(draw(chosen)).reshape(node.type.shape)
    return values


def assert_same(actual, expected):
    """Assert equality, NaN for NaN; of zeros the sign, too, by what they divide."""
    with np.errstate(all="ignore"):
        # In float64 roots and products round twice where pow does once.
        np.testing.assert_allclose(actual, expected, rtol=1e-14)
        np.testing.assert_allclose(1 / actual, 1 / expected, rtol=1e-14)


@pytest.mark.parametrize(("step", "before", "after"), [c for c in CASES if c[0].name not in REORDERED], ids=lambda c: getattr(c, "name", ""))  # fmt: skip
@few
@given(data=st.data())
def test_documented_rewrites_keep_special_values(step, before, after, data):
    graph = graph_of(step.name, before, last_value(before))
    inputs = drawn(data.draw, graph)
    with np.errstate(all="ignore"):
        expected, got = interpret(graph, inputs), interpret(step.function(graph), inputs)
    for name, array in expected.items():
        if step.name == "fuse_activations":
            # Exporters write a root of 2 in a few digits, which become the root.
            np.testing.assert_allclose(got[name], array, rtol=1e-6)
        else:
            assert_same(got[name], array)


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_powers(exponent, dtype):
    graph = parse(f"graph @g {{ %x = input : {dtype}[{len(SPECIAL)}] %k = constant splat({exponent}) : {dtype}[] %y = pow(%x, %k) return %y }}")  # fmt: skip
    x = np.array(SPECIAL, np.float32 if dtype == "f32" else np.float64)
    with np.errstate(all="ignore"):
        assert_same(interpret(expand_powers(graph), {"x": x})["y"], interpret(graph, {"x": x})["y"])
        # What is written does not depend on what an analysis of signs says.
        actual, exact = (
            compile(graph, threads=1).run({"x": x})["y"],
            interpret(graph, {"x": x})["y"],
        )
        np.testing.assert_allclose(actual, exact.astype(actual.dtype), rtol=1e-6)
        assert (np.signbit(actual) == np.signbit(exact.astype(actual.dtype)))[
            ~np.isnan(exact)
        ].all()


PATTERNS = {
    "root of a square": "%s = mul(%x, %x) %y = pow(%s, %half)",
    "inverse deviation": "%s = mul(%x, %x) %e = add(%s, %half) %y = pow(%e, %minus)",
    "maximum of nothing": "%s = mul(%x, %zero) %y = maximum(%s, %x)",
    "greater of two": "%y = maximum(%x, %v)",
    "lesser of two": "%y = minimum(%v, %x)",
    "silu": "%s = sigmoid(%x) %y = mul(%x, %s)",
    "ramp": "%a = maximum(%x, %zero) %y = minimum(%a, %half)",
    "root of a bound": "%a = maximum(%x, %half) %y = pow(%a, %minus)",
    "root of a relu": "%a = relu(%x) %y = pow(%a, %minus)",
    "error function": "%y = erf(%x)",
    "exponential": "%y = exp(%x)",
}


@pytest.mark.parametrize("body", PATTERNS.values(), ids=PATTERNS)
def test_patterns(body):
    x = np.float32([a for a in SPECIAL for _ in SPECIAL])
    v = np.float32([b for _ in SPECIAL for b in SPECIAL])
    numbers = {"zero": 0.0, "half": 0.5, "minus": -0.5}
    head = " ".join(f"%{name} = constant splat({n}) : f32[]" for name, n in numbers.items())
    graph = parse(f"graph @g {{ %x = input : f32[{x.size}] %v = input : f32[{x.size}] {head} {body} return %y }}")  # fmt: skip
    inputs = {"x": x, "v": v}
    with np.errstate(all="ignore"):
        exact = interpret(graph, inputs)["y"]
        assert_same(interpret(run_passes(graph), inputs)["y"], exact)
        if body == PATTERNS["maximum of nothing"]:
            return  # TVM writes x times 0 as 0
        actual = compile(graph, threads=1).run(inputs)["y"]
    # Squares of the largest are no float32.
    held = ~((np.abs(x) > 1e30) & np.isfinite(x) & np.isfinite(exact) & np.isinf(actual))
    np.testing.assert_allclose(actual[held], exact.astype(np.float32)[held], rtol=1e-6, atol=1e-37)


def test_every_pass_is_looked_at():
    assert {p.name for p in PASSES} >= REORDERED
