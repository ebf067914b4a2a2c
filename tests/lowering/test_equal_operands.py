"""An operand that is two inputs of its node, as it is where constants are equal, beside float64."""

from __future__ import annotations

import numpy as np

from convc.compiler import compile
from convc.frontend import dsl as cc
from convc.frontend.dsl.tensor import apply
from convc.ir.ops.group_norm import GroupNormAttributes
from convc.ir.ops.layer_norm import LayerNormAttributes
from convc.ir.reference import interpret


def test_scale_and_bias_may_be_one_tensor():
    rows, image = cc.input("rows", (2, 5, 48)), cc.input("image", (1, 32, 6, 6))
    row, planes = cc.input("row", (1, 1, 48)), cc.input("planes", (1, 32, 1, 1))
    graph = cc.graph(
        {
            "last": apply("layer_norm", [rows, row, row], LayerNormAttributes(2)),
            "channels": apply("layer_norm", [image, planes, planes], LayerNormAttributes(1)),
            "groups": apply("group_norm", [image, planes, planes], GroupNormAttributes(4)),
            "alone": apply("layer_norm", [row, row, row], LayerNormAttributes(2)),
            "product": cc.matmul(rows, cc.transpose(rows, (0, 2, 1))),
        }
    )
    model = compile(graph, threads=1)
    assert {s.algorithm for s in model.manifest.steps if s.op.endswith("_norm")} >= {"rows", "chunks"}  # fmt: skip
    generator = np.random.default_rng(0)
    fed = {t.name: generator.normal(size=t.shape).astype(np.float32) for t in model.manifest.inputs}
    exact = interpret(graph, fed)
    for name, actual in model.load(threads=1).run(fed).items():
        np.testing.assert_allclose(actual, exact[name], atol=2e-6 * np.abs(exact[name]).max())
