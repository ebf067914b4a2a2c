"""Models built in tests, and the one comparison all of them use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from convc.frontend.onnx import from_onnx
from convc.ir import Graph
from convc.ir.reference import interpret

NEWEST = onnx.defs.onnx_opset_version()


def make_model(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Sequence[int | str | None]],
    outputs: Sequence[str],
    *,
    opset: int = 18,
    constants: Mapping[str, np.ndarray] | None = None,
    dtype: type | np.dtype = np.float32,
    domains: Mapping[str, int] | None = None,
) -> ModelProto:
    """Return a model; inputs map names to shapes, outputs are untyped."""
    code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(n, code, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, code, None) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()],
    )
    imports = [helper.make_opsetid(d, v) for d, v in {"": opset, **(domains or {})}.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def random_inputs(model: ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    """Return signed data for every input that is no initializer, away from the corners of piecewise functions."""
    rng = np.random.default_rng(seed)
    constants = {t.name for t in model.graph.initializer}
    feeds = {}
    for info in model.graph.input:
        if info.name not in constants:
            shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
            dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
            feeds[info.name] = (rng.normal(size=shape) * 2).astype(dtype)
    return feeds


def run_onnx(model: ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return the outputs that onnx.reference computes."""
    return ReferenceEvaluator(model).run(None, dict(feeds))


def run_onnxruntime(model: ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return the outputs that onnxruntime computes, for what onnx.reference gets wrong."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(feeds))


def check_against_onnx(
    model: ModelProto, feeds: Mapping[str, np.ndarray], *, tolerance: float = 1e-5, oracle=run_onnx
) -> Graph:
    """Import the model, compare all outputs of its interpretation with the oracle's, and return the graph."""
    graph = from_onnx(model)
    graph.verify()
    got = interpret(graph, feeds)
    wanted = oracle(model, feeds)
    for info, value in zip(model.graph.output, wanted, strict=True):
        assert got[info.name].shape == np.shape(value)
        np.testing.assert_allclose(
            got[info.name].astype(np.float64),
            np.asarray(value, np.float64),
            rtol=tolerance,
            atol=tolerance,
            err_msg=info.name,
        )
    return graph
