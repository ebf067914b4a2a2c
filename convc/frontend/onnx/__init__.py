"""The ONNX importer: a model file in, an `ir.Graph` out. The one part of convc that imports onnx."""

from convc.frontend.onnx.model_import import from_onnx

__all__ = ["from_onnx"]
