"""The real cuDNN, where it is installed: our numbers are its numbers, and it makes plans of what we describe. Nothing runs."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tvm_ffi

from convc.ir import ConvSpec
from convc.runtime.libraries.cudnn import Description, find_cudnn
from convc.runtime.libraries.cudnn.shim import NATIVE
from tests.conv_grid import CONV_GRID
from tests.cuda_emulation.toolkit import toolkit_headers
from tests.cudnn.test_shim import described, symmetric


@cache
def library() -> Path:
    found = find_cudnn()
    if found is None or "/" not in found:
        pytest.skip("cuDNN is not installed here; `pip install nvidia-cudnn-cu13` (517 MB)")
    return Path(found)


def test_our_numbers_are_those_of_the_header():
    folder = library().parents[1] / "include"
    if not (folder / "cudnn_graph.h").exists():
        pytest.skip(f"no cudnn_graph.h in {folder}")
    command = [
        "g++",
        "-std=c++17",
        "-fsyntax-only",
        f"-I{folder}",
        f"-I{toolkit_headers()}",
        f"-I{tvm_ffi.libinfo.find_include_path()}",
        "abi_check.cc",
    ]
    done = subprocess.run(command, cwd=NATIVE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def plans(questions: list[tuple[Description, list[tuple[tuple[int, ...], str]]]]) -> list[str]:
    library()
    text = json.dumps([[str(d), tensors] for d, tensors in questions])
    command = [sys.executable, "-m", "tests.cudnn.deviceless", str(toolkit_headers() / "cuda.h")]
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def tensors(spec: ConvSpec, dtype: str = "float32", extras: tuple[str, ...] = ()) -> list[Any]:
    shapes = [spec.data, spec.weight]
    shapes += [(spec.out_channels,) if e == "bias" else spec.output for e in extras]
    return [(shape, dtype) for shape in (*shapes, spec.output)]


@pytest.mark.slow
def test_plans_over_the_grid():
    specs = [row.spec for row in CONV_GRID if symmetric(row.spec)
             and all(p < s for p, s in zip(row.spec.output_padding or (0,), row.spec.strides, strict=False))]  # fmt: skip
    questions = [
        (described(s, "data_gradient" if s.transposed else "forward"), tensors(s)) for s in specs
    ]
    answers = plans(questions)
    refused = {s.key: a for s, a in zip(specs, answers, strict=True) if not a.startswith("engine=")}
    assert refused == {}


@pytest.mark.slow
def test_fused_epilogues_types_and_policies():
    spec = ConvSpec.of((16, 64, 56, 56), (64, 64, 3, 3), pads=(1, 1, 1, 1))
    fused = [
        (described(spec, steps=steps, strict=strict), tensors(spec, dtype, extras))
        for steps, extras in (
            (("bias", "relu"), ("bias",)),
            (("bias", "add", "relu"), ("bias", "add")),
        )
        for dtype, strict in (
            ("float32", True),
            ("float32", False),
            ("float16", False),
            ("bfloat16", False),
        )
    ]
    transforms = [(described(spec, policy=p), tensors(spec)) for p in ("fft", "winograd")]
    *answers, fft, winograd = plans(fused + transforms)
    assert [a for a in answers if not a.startswith("engine=")] == []
    # An H200's cuDNN has neither.
    assert "policy 'fft'; got none" in fft
    assert "policy 'winograd'; got none" in winograd
