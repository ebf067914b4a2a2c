"""One layer as everybody wants it: a graph for convc, an ONNX file for the peers, data, and the float64 result."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from convc.frontend import dsl
from convc.inputs import random_inputs
from convc.ir import ConvSpec, Graph
from convc.ir.reference import interpret
from convc.runtime.manifest import Tensor

__all__ = ["NODE", "LayerModel"]

NODE: Final = "conv"
_INPUT, _OUTPUT = "x", "y"
_OPSET: Final = 13
_FUNCTIONS: Final = {
    (1, False): dsl.conv1d,
    (2, False): dsl.conv2d,
    (3, False): dsl.conv3d,
    (1, True): dsl.conv_transpose1d,
    (2, True): dsl.conv_transpose2d,
    (3, True): dsl.conv_transpose3d,
}


@dataclass(frozen=True)
class LayerModel:
    """A convolution without bias or activation, with normal weights that keep the size of the data."""

    spec: ConvSpec
    seed: int = 0

    @cached_property
    def weight(self) -> np.ndarray:
        generator = np.random.default_rng(self.seed)
        fan_in = self.spec.flops / 2 / np.prod(self.spec.output)
        weight = generator.standard_normal(self.spec.weight) / np.sqrt(fan_in)
        return weight.astype(np.float32)

    @cached_property
    def feed(self) -> dict[str, np.ndarray]:
        """The input by name, aligned."""
        return random_inputs((Tensor(_INPUT, self.spec.data, "float32"),), self.seed)

    @cached_property
    def graph(self) -> Graph:
        """A graph of one node, called NODE."""
        spec = self.spec
        extra = {"output_padding": spec.output_padding} if spec.transposed else {}
        y = _FUNCTIONS[spec.rank, spec.transposed](
            dsl.input(_INPUT, spec.data),
            self.weight,
            strides=spec.strides,
            pads=spec.pads,
            dilations=spec.dilations,
            group=spec.group,
            name=NODE,
            **extra,
        )
        return dsl.graph({_OUTPUT: y}, name="layer")

    @cached_property
    def reference(self) -> np.ndarray:
        """The result in float64."""
        return interpret(self.graph, self.feed)[_OUTPUT]

    def save_onnx(self, path: Path) -> Path:
        """Write the same layer as an ONNX model, and return `path`."""
        spec = self.spec
        node = helper.make_node(
            "ConvTranspose" if spec.transposed else "Conv",
            [_INPUT, "w"],
            [_OUTPUT],
            name=NODE,
            kernel_shape=spec.kernel,
            strides=spec.strides,
            pads=spec.pads,
            dilations=spec.dilations,
            group=spec.group,
        )
        if spec.transposed:
            node.attribute.append(helper.make_attribute("output_padding", spec.output_padding))
        graph = helper.make_graph(
            [node],
            "layer",
            [helper.make_tensor_value_info(_INPUT, TensorProto.FLOAT, spec.data)],
            [helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, spec.output)],
            [numpy_helper.from_array(self.weight, "w")],
        )
        opset = helper.make_opsetid("", _OPSET)
        onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
        return path
