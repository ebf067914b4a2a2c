"""What is done on a device whose cuDNN refuses a layer: forced, since no device refuses when asked to.

One layer of three names an engine that no cuDNN has. Where convc may fall back, its own kernel must run in that place, the other layers
must stay cuDNN's, and the result be exact; where somebody insists on cuDNN, loading must fail and name the layer. And a module must run
where there is no cuDNN at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import numpy as np

from benchmarks.gpu.job import Job
from convc.errors import DeviceError
from convc.ir import Graph
from convc.ir.reference import interpret
from convc.runtime import load
from convc.runtime.libraries.cudnn.find import VARIABLE

if TYPE_CHECKING:
    from convc.lowering.build import Built
    from convc.target import Target

__all__ = ["build_refusal", "refusal_jobs", "run_refusal"]

_REFUSED: Final = "refused"
_LAYERS: Final = (_REFUSED, "kept", "half")
# cuDNN 9 numbers an operation's engines from 0 to below 100.
_NO_ENGINE: Final = 9999
_NOWHERE: Final = "/no/such/libcudnn.so.9"


def refusal_jobs() -> Iterator[Job]:
    """Yield a job for modules that may fall back, and one for those that may not."""
    for what in ("falls-back", "is-an-error"):
        yield Job(name=f"refusal-{what}", part="refusals", library=what)


def _net() -> Graph:
    from convc.frontend import dsl as cc

    rng = np.random.default_rng(0)

    def layer(h: cc.Tensor, name: str, dtype: str) -> cc.Tensor:
        w, b = rng.integers(-1, 2, (16, 16, 3, 3)), rng.integers(-2, 3, 16)
        return cc.relu(cc.conv2d(h, w.astype(dtype), b.astype(dtype), pads=1, name=name))

    x = cc.input("x", (2, 16, 10, 10))
    half = layer(cc.input("x_half", (2, 16, 10, 10), "float16"), "half", "float16")
    h = layer(x, _REFUSED, "float32")
    return cc.graph({"y": layer(h, "kept", "float32") + h, "y_half": half}, name="refusal")


def _inputs() -> dict[str, np.ndarray]:
    whole = np.random.default_rng(1).integers(-1, 2, (2, 16, 10, 10))
    return {"x": whole.astype("float32"), "x_half": whole.astype("float16")}


def build_refusal(job: Job, target: Target) -> Built:
    """Return the module of a job: three layers by cuDNN, the first of them by an engine that does not exist."""
    from dataclasses import replace

    from convc.lowering.build import build
    from convc.lowering.emit import emit
    from convc.planning import Wishes, plan_graph

    graph = _net()
    use = "prefer" if job.library == "falls-back" else "require"
    plan = plan_graph(graph, target, Wishes.of(cudnn=use), "").plan
    first = plan[_REFUSED]
    choices = {
        **plan.choices,
        _REFUSED: replace(first, knobs={**first.knobs, "engine": _NO_ENGINE}),
    }
    return build(emit(graph, replace(plan, choices=choices), target), target)


def run_refusal(job: Job, folder: Path) -> dict[str, Any]:
    """Return a row for each thing that was refused: whether what happened is what should have, and cuDNN's words."""
    path = job.module(folder)
    if job.library == "is-an-error":
        return {"cases": [_is_error(path)]}
    return {
        "cases": [
            _falls_back(path, "an engine that does not exist", (_REFUSED,)),
            _falls_back(path, "no cuDNN at all", _LAYERS, {VARIABLE: _NOWHERE}),
        ]
    }


def _row(key: str, ok: bool, said: str) -> dict[str, Any]:
    return {"algorithm": "cudnn", "key": key, "knobs": {}, "ok": ok, "said": said}


def _is_error(path: Path) -> dict[str, Any]:
    key = "an engine that does not exist, cuDNN required"
    try:
        load(path)
    except DeviceError as error:
        return _row(key, f"--algo-for '{_REFUSED}=ALGORITHM'" in str(error), str(error))
    return _row(key, False, "the module loaded")


def _falls_back(
    path: Path, key: str, expected: Sequence[str], environment: dict[str, str] | None = None
) -> dict[str, Any]:
    inputs = _inputs()
    with mock.patch.dict(os.environ, environment or {}):
        module = load(path)
        outputs = module.run(inputs)
    assert module.preparation is not None
    fallen = {f.layer: f for f in module.preparation.fallbacks}
    reference = interpret(_net(), inputs)
    wrong = [name for name, y in outputs.items() if not np.array_equal(y, reference[name])]
    said = "; ".join(map(str, fallen.values()))
    if wrong:
        said = f"wrong: {', '.join(wrong)}; {said}"
    return _row(key, not wrong and tuple(fallen) == tuple(expected), said)
