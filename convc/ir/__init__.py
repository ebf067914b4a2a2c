"""The intermediate representation: what is computed, and nothing of how."""

from convc.ir.builder import GraphBuilder
from convc.ir.epilogue import Step
from convc.ir.graph import Graph, Node, Output
from convc.ir.spec import ConvSpec
from convc.ir.types import TensorType

__all__ = ["ConvSpec", "Graph", "GraphBuilder", "Node", "Output", "Step", "TensorType"]
