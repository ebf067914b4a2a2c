"""ONNX's own backend test suite: its cases, and how one of them is run through convc.

An operand that decides a shape (a Reshape's shape, a Slice's bounds) is an input of these models; convc compiles static shapes, so it
is given to `from_onnx` as a value: exactly those inputs that the importer asks for, see `imported`.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from ml_dtypes import finfo
from onnx import ModelProto, TensorProto, numpy_helper

from convc.compiler import compile
from convc.errors import UnsupportedModelError
from convc.frontend.onnx import from_onnx
from convc.frontend.onnx.narrow import NARROW, carried, natural
from convc.ir import Graph
from convc.ir.reference import interpret
from convc.ir.types import FLOATS

__all__ = ["KINDS", "BackendCase", "as_carried", "cases", "check", "imported", "out_of_scope"]

# The nine light models have a test of their own, test_onnx_light_models.py.
KINDS: Final = ("node", "simple", "pytorch-converted", "pytorch-operator")

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class BackendCase:
    """One case; its data sets are read when they are asked for."""

    kind: str
    name: str
    model: ModelProto
    rtol: float
    atol: float
    folder: Path | None
    data: tuple

    @property
    def operator(self) -> str:
        """The operator that the case is about."""
        return self.model.graph.node[0].op_type if self.model.graph.node else ""

    def data_sets(self) -> list[tuple[list[np.ndarray], list[np.ndarray]]]:
        """Return (inputs, outputs) of every run."""
        if self.folder is None:
            return [([*map(_array, given)], [*map(_array, wanted)]) for given, wanted in self.data]
        found = []
        for folder in sorted(self.folder.glob("test_data_set_*")):
            sides = [
                sorted(folder.glob(f"{side}_*.pb"), key=_number) for side in ("input", "output")
            ]
            found.append(
                tuple([numpy_helper.to_array(onnx.load_tensor(p)) for p in side] for side in sides)
            )
        return found


def _number(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def _array(value: object) -> np.ndarray:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


@cache
def cases() -> dict[str, BackendCase]:
    """Return every case by name."""
    with warnings.catch_warnings():
        # Making the expected outputs overflows and divides by zero on purpose.
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        found: dict[str, BackendCase] = {}
        for kind in KINDS:
            for case in load_model_tests(kind=kind):
                folder = Path(case.model_dir) if case.model_dir else None
                model = case.model
                if model is None:
                    assert folder is not None, f"{case.name} has neither a model nor a folder"
                    model = onnx.load(folder / "model.onnx")
                name = case.name if kind == "node" else f"{kind}/{case.name}"
                found[name] = BackendCase(
                    kind, name, model, case.rtol, case.atol, folder, tuple(case.data_sets or ())
                )
    return found


def out_of_scope(case: BackendCase) -> str:
    """Return why a case is none for a compiler of tensors for inference, or ""."""
    graph = case.model.graph
    domains = {n.domain for n in graph.node} - {"", "ai.onnx"}
    if domains:
        return f"domain {min(domains)}"
    kinds = {v.type.WhichOneof("value") for v in (*graph.input, *graph.output)} - {"tensor_type"}
    if kinds:
        return "sequences, optionals and maps"
    codes = {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    if TensorProto.STRING in codes:
        return "strings"
    return "training" if "training" in case.name else ""


def as_carried(array: np.ndarray) -> np.ndarray:
    """Return an array as a module takes and gives it: a type of 8 bits and less travels in an integer."""
    return carried(array) if array.dtype.name in NARROW else array


def imported(model: ModelProto, feeds: Arrays) -> tuple[Graph, Arrays]:
    """Return the graph, and the inputs that are constants of it: empty ones, and those that the importer must know."""
    values = {n: a for n, a in feeds.items() if not a.size}
    while True:
        shapes = {n: a.shape for n, a in feeds.items() if n not in values}
        try:
            return from_onnx(model, shapes=shapes, values=values), values
        except UnsupportedModelError as error:
            asked = re.findall(r"depends on runtime values of '([^']*)'", str(error))
            more = [n for n in asked if n in feeds and n not in values]
            if asked and not more:
                # It asks for what was computed from inputs: from the small integers among them, else from scalars.
                more = [
                    n
                    for n, a in feeds.items()
                    if n not in values and a.dtype.kind in "iub" and a.ndim <= 1
                ] or [n for n, a in feeds.items() if n not in values and not a.ndim]
            if not more:
                raise
            values |= {n: feeds[n] for n in more}


def _both_rounded(got: np.ndarray, wanted: np.ndarray, exact: np.ndarray) -> bool:
    """Return whether a result and what is expected are both within one rounding of their type, at the greatest value, of float64's.

    Expected values were computed in the operator's own type: in bfloat16 they are up to 0.005 from the exact ones, and every case
    allows 0.001. That they are as near as the type can tell says that the graph means what the case does.
    """
    if not np.array_equal(np.isfinite(got), np.isfinite(wanted)):
        return False
    finite = np.isfinite(exact) & np.isfinite(wanted)
    rounding = float(finfo(wanted.dtype).eps) * np.abs(exact, where=finite, out=np.zeros(exact.shape)).max(initial=0)  # fmt: skip
    errors = (np.abs(np.where(finite, v.astype(np.float64) - exact, 0)) for v in (got, wanted))
    return all(error.max(initial=0) <= rounding for error in errors)


def check(case: BackendCase) -> None:
    """Compile a case and compare every output of every run: within its own tolerance, or its type's rounding, see `_both_rounded`."""
    names = [i.name for i in case.model.graph.input]
    constants = {t.name for t in case.model.graph.initializer}
    names = [n for n in names if n not in constants]
    for inputs, outputs in case.data_sets():
        feeds = dict(zip(names, inputs, strict=False))
        graph, values = imported(case.model, feeds)
        live = {n.name: as_carried(feeds[n.name]) for n in graph.inputs}
        assert not set(live) & set(values)
        results = compile(graph, threads=1).run(live)
        for info, wanted in zip(case.model.graph.output, outputs, strict=False):
            got = results[info.name]
            assert got.dtype == as_carried(wanted).dtype
            assert got.shape == wanted.shape
            if wanted.dtype.name in NARROW:
                got = natural(got, wanted.dtype.name)
            far = ~np.isclose(
                got.astype(np.float64),
                wanted.astype(np.float64),
                rtol=case.rtol,
                atol=case.atol,
                equal_nan=True,
            )
            if far.any() and wanted.dtype.name in FLOATS:
                with np.errstate(all="ignore"):  # rows that are masked out are NaN on purpose
                    exact = interpret(graph, live)[info.name]
                    if _both_rounded(got, wanted, exact):
                        continue
            assert not far.any(), f"{info.name}: {got[far][:5]} where {wanted[far][:5]} is expected"
