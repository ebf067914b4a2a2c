"""The weight gradient of a convolution as a problem: what records are kept of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from convc.errors import ShapeError
from convc.ir.graph import Graph, Node
from convc.ir.ops.conv import accumulator
from convc.ir.ops.conv_weight_grad import ConvWeightGradAttributes, forward_spec
from convc.ir.spec import ConvSpec
from convc.schedules.algorithm import KIND, Problem

__all__ = ["WEIGHT_GRADIENT", "WeightGradientProblem", "is_weight_gradient", "weight_gradient_problem", "weight_gradient_spec"]  # fmt: skip

# Before `KIND` in keys.
WEIGHT_GRADIENT: Final = "weight_gradient"


@dataclass(frozen=True, slots=True)
class WeightGradientProblem:
    """The weight gradient of a convolution.

    Attributes:
        spec: the forward convolution.
        accumulate: element type of the sums, "" where it is the usual one.
    """

    spec: ConvSpec
    accumulate: str = ""

    @property
    def geometry(self) -> Problem:
        """The forward convolution with these sums: what says how far one is from another."""
        return Problem(self.spec, accumulate=self.accumulate)

    @property
    def key(self) -> str:
        """Canonical name, the key of tuning records.

        Example:
            >>> WeightGradientProblem(ConvSpec.of((1, 8, 5, 5), (4, 8, 3, 3)), "float64").key
            'weight_gradient:conv2d-f32-n1c8h5w5-k4r3s3-st1x1-pd0.0.0.0-dl1x1-g1@float64'
        """
        return f"{WEIGHT_GRADIENT}{KIND}{self.geometry.key}"

    @staticmethod
    def parse(key: str) -> WeightGradientProblem:
        """Return the problem that `key` names.

        Raises:
            ShapeError: if it is no weight gradient's canonical name.
        """
        kind, _, geometry = key.partition(KIND)
        if kind != WEIGHT_GRADIENT:
            raise ShapeError(
                f"a weight gradient's name must begin with '{WEIGHT_GRADIENT}{KIND}'; got '{key}'."
            )
        problem = Problem.parse(geometry)
        return WeightGradientProblem(problem.spec, problem.accumulate)


def is_weight_gradient(node: Node) -> bool:
    """Whether the node is a convolution's weight gradient."""
    return isinstance(node.attributes, ConvWeightGradAttributes)


def weight_gradient_spec(graph: Graph, node: Node) -> ConvSpec:
    """Return the convolution whose weight gradient a node is."""
    assert isinstance(node.attributes, ConvWeightGradAttributes)
    data, gradient = graph.operands(node)
    return forward_spec(data.type, gradient.type, node.attributes)


def weight_gradient_problem(graph: Graph, node: Node) -> WeightGradientProblem:
    """Return the problem that a weight gradient's node poses."""
    spec, attributes = weight_gradient_spec(graph, node), node.attributes
    assert isinstance(attributes, ConvWeightGradAttributes)
    usual = accumulator(spec.dtype)
    return WeightGradientProblem(spec, "" if attributes.accumulate == usual else attributes.accumulate)  # fmt: skip
