"""python -m benchmarks.families.exporting NAME OPSET FILE: one network to an ONNX file, in a process that ends with its memory."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Final

__all__ = ["export"]

# The exporter that traces knows opsets up to 20, the one by torch.export from 18 on.
_FIRST_BY_EXPORT: Final = 18
# Protobuf's limit is 2 GiB, for the whole file.
_LARGE_BYTES: Final = 1 << 31


def export(name: str, opset: int, path: Path) -> dict[str, object]:
    """Write a network with random weights, and return what is known of it."""
    import torch  # pyright: ignore[reportMissingImports]

    from benchmarks.families import applications, timm_models, torchvision_models
    from benchmarks.random_weights import randomise

    source, _, short = name.partition("/")
    torch.manual_seed(0)  # what `randomise` leaves alone
    build = {"torchvision": torchvision_models.build, "timm": timm_models.build}.get(source)
    model, shape = build(short) if build else applications.build(name)
    model.eval()
    randomise(model)
    data = torch.zeros(shape)
    count = sum(p.numel() for p in model.parameters())
    large = 4 * count > _LARGE_BYTES
    with torch.no_grad():
        if opset < _FIRST_BY_EXPORT:
            torch.onnx.export(model, (data,), str(path), opset_version=opset, input_names=["input"], dynamo=False)  # fmt: skip
        else:
            torch.onnx.export(model, (data,), str(path), opset_version=opset, input_names=["input"], dynamo=True, external_data=large, verbose=False)  # fmt: skip
    return {"parameters": count, "shape": shape}


if __name__ == "__main__":
    # torch warns of its own deprecations and of every branch that it freezes.
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    sys.stdout.write(json.dumps(export(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))) + "\n")
