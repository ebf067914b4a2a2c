"""What is tuned: a convolution, a weight gradient, nodes that one kernel computes. A new kind is one file here and a row of `_KINDS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from convc.schedules.algorithm import Problem
from convc.schedules.bottleneck import Bottleneck
from convc.schedules.pooled import Pooled
from convc.schedules.weight_gradient_problem import WeightGradientProblem
from convc.tuning.subjects.chain import LayerChain
from convc.tuning.subjects.convolution import Convolution
from convc.tuning.subjects.pooled import PooledConvolution
from convc.tuning.subjects.subject import Case, Ready, Subject
from convc.tuning.subjects.weight_gradient import GradientOfWeights

__all__ = ["Case", "Ready", "Subject", "Tunable", "subject_of"]

Tunable: TypeAlias = Problem | WeightGradientProblem | Bottleneck | Pooled

_KINDS: Final[Mapping[type, Any]] = {
    Problem: Convolution,
    WeightGradientProblem: GradientOfWeights,
    Bottleneck: LayerChain,
    Pooled: PooledConvolution,
}


def subject_of(problem: Tunable) -> Subject:
    """Return what the tuner knows of a problem."""
    return _KINDS[type(problem)](problem)
