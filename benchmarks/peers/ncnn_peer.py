"""ncnn: the model converted by pnnx without half precision, every reduced-precision option off.

ncnn has no batch axis: a model's inputs must have batch 1, which is taken off on the way in and put back on the way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.cache import cache_folder, made_once
from benchmarks.onnx_file import OnnxFile
from benchmarks.peers.peer import Array, Infer, Peer, PeerError, run_tool

__all__ = ["ROW"]

_OPTIONS: Final = {
    "use_vulkan_compute": False,
    "use_fp16_packed": False,
    "use_fp16_storage": False,
    "use_fp16_arithmetic": False,
    "use_bf16_packed": False,
    "use_bf16_storage": False,
    "lightmode": True,
}
# pnnx's letters for the element types of inputs.
_KINDS: Final = {"float32": "f32", "float64": "f64", "int32": "i32", "int64": "i64", "int8": "i8", "uint8": "u8"}  # fmt: skip


def _tool() -> str:
    """Return the path of pnnx's program; its Python package would import all of torch."""
    spec = find_spec("pnnx")
    if spec is None or spec.origin is None:
        raise PeerError("ncnn must have the converter pnnx; got a package without files.")
    return str(Path(spec.origin).with_name("pnnx"))


def _convert(model: OnnxFile, folder: Path) -> None:
    # pnnx writes files beside its input, so it is given a link in the scratch folder.
    source = folder / "model.onnx"
    source.symlink_to(model.path.absolute())
    shapes = ",".join(f"[{','.join(map(str, t.shape))}]{_KINDS[t.dtype]}" for t in model.inputs)
    outputs = ("ncnnparam=model.param", "ncnnbin=model.bin", "ncnnpy=ncnn.py", "pnnxparam=pnnx.param", "pnnxbin=pnnx.bin", "pnnxpy=pnnx.py", "pnnxonnx=pnnx.onnx")  # fmt: skip
    run_tool(
        (_tool(), source.name, f"inputshape={shapes}", "fp16=0", *outputs), folder, "model.param"
    )
    for left in folder.iterdir():
        if left.name not in ("model.param", "model.bin"):
            left.unlink()


def _check(model: OnnxFile) -> None:
    for tensor in model.inputs:
        if tensor.dtype not in _KINDS:
            raise PeerError(
                f"ncnn inputs must be {', '.join(_KINDS)}; got {tensor.dtype} for '{tensor.name}'."
            )
        if not tensor.shape or tensor.shape[0] != 1:
            raise PeerError(
                f"ncnn inputs must have batch 1, it has no batch axis; got {tensor.shape} for '{tensor.name}'."
            )


def _load(model: OnnxFile, threads: int) -> Infer:
    import ncnn  # pyright: ignore[reportMissingImports]

    _check(model)
    versions = ROW.versions()
    folder = cache_folder() / f"ncnn-pnnx-{versions['pnnx']}" / model.sha256
    files = made_once(folder, lambda made: _convert(model, made))
    net = ncnn.Net()
    net.opt.num_threads = threads
    for name, value in _OPTIONS.items():
        # Options come and go with versions; one that does not exist is not in force either.
        if hasattr(net.opt, name):
            setattr(net.opt, name, value)
    if net.load_param(str(files / "model.param")) or net.load_model(str(files / "model.bin")):
        raise PeerError(
            "ncnn must load the model that pnnx wrote; it has a layer that this ncnn lacks."
        )
    # pnnx names them in0, in1, ..., out0, ... in the model's order.
    names_in = [f"in{i}" for i in range(len(model.inputs))]
    names_out = [f"out{i}" for i in range(len(model.outputs))]

    def infer(inputs: Sequence[Array]) -> Sequence[Array]:
        extractor = net.create_extractor()
        for name, array in zip(names_in, inputs, strict=True):
            if extractor.input(name, ncnn.Mat(array[0])):
                raise PeerError(
                    f"ncnn must take the input '{name}'; the converted model has no such one."
                )
        results = []
        for name in names_out:
            code, mat = extractor.extract(name)
            if code:
                raise PeerError(f"ncnn must compute the output '{name}'; got code {code}.")
            results.append(np.array(mat)[None])
        return results

    return infer


ROW = Peer("ncnn", ("ncnn", "pnnx"), _load)
