"""convc: a compiler for convolutional networks. ONNX or a Python DSL in, one runtime module that needs no compiler out.

    import convc
    convc.compile("resnet50.onnx").export("resnet50.so")
    module = convc.load("resnet50.so")
    y = module(x)

Names are imported when first used, so that `convc.load` needs neither TVM's compiler nor onnx.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from convc.version import __version__

if TYPE_CHECKING:
    from convc.compiler import CompiledModel, compile
    from convc.explaining import explain
    from convc.frontend import dsl, nnet
    from convc.frontend.dsl import grad
    from convc.frontend.onnx import from_onnx
    from convc.ir import ConvSpec, Graph
    from convc.runtime import Module, load
    from convc.source import load_graph
    from convc.target import Target

__all__ = [
    "CompiledModel",
    "ConvSpec",
    "Graph",
    "Module",
    "Target",
    "__version__",
    "compile",
    "dsl",
    "explain",
    "from_onnx",
    "grad",
    "load",
    "load_graph",
    "nnet",
]

_HOMES = {
    "CompiledModel": "convc.compiler",
    "ConvSpec": "convc.ir",
    "Graph": "convc.ir",
    "Module": "convc.runtime",
    "Target": "convc.target",
    "compile": "convc.compiler",
    "explain": "convc.explaining",
    "from_onnx": "convc.frontend.onnx",
    "grad": "convc.frontend.dsl",
    "load": "convc.runtime",
    "load_graph": "convc.source",
}


def __getattr__(name: str) -> object:
    if name in ("dsl", "nnet"):
        return import_module(f"convc.frontend.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'convc' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
