"""ONNX Runtime as a second opinion and as a competitor: one CPU session per model, its threads under our control."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from convc.errors import InputError, InvalidModelError, ToolchainError

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["OnnxRuntimePeer"]


class OnnxRuntimePeer:
    """A loaded ONNX Runtime session.

    Raises:
        ToolchainError: if onnxruntime is not installed.
        InvalidModelError: if ONNX Runtime does not take the model.
    """

    def __init__(self, model_path: str | os.PathLike[str], threads: int = 1) -> None:
        self.session = _session(model_path, threads)
        self.threads = threads

    @property
    def version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(i.name for i in self.session.get_inputs())

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(o.name for o in self.session.get_outputs())

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the model's outputs by name.

        Raises:
            InputError: if an input is missing.
        """
        missing = [n for n in self.input_names if n not in inputs]
        if missing:
            raise InputError(
                f"the ONNX model's inputs must all be given; got {', '.join(inputs)}, without {', '.join(missing)}."
            )
        values = self.session.run(None, {n: inputs[n] for n in self.input_names})
        return {n: np.asarray(v) for n, v in zip(self.output_names, values, strict=True)}


def _session(model_path: str | os.PathLike[str], threads: int) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
        from onnxruntime.capi.onnxruntime_pybind11_state import (
            Fail,
            InvalidGraph,
            InvalidProtobuf,
            NoSuchFile,
            NotImplemented,
        )
    except ImportError:
        raise ToolchainError(
            "comparing with onnxruntime must have the package 'onnxruntime'; got no such package. "
            "Run: pip install 'convc[verify]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: old models make it warn about every initializer
    try:
        return onnxruntime.InferenceSession(
            os.fspath(model_path), options, providers=["CPUExecutionProvider"]
        )
    except (Fail, InvalidGraph, InvalidProtobuf, NoSuchFile, NotImplemented) as error:
        raise InvalidModelError(
            f"'{os.fspath(model_path)}' must be a model that onnxruntime takes; it says: {error}"
        ) from error
