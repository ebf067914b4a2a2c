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
    # 9.19 has one for an H200, 9.28 has none there.
    assert fft.startswith("engine=3;") or "policy 'fft'; got none" in fft
    assert "policy 'winograd'; got none" in winograd


def numbers(answers: list[str]) -> list[int]:
    return [int(a.removeprefix("engine=").split(";")[0]) for a in answers]


@pytest.mark.slow
def test_what_it_does_not_note_is_known():
    """By number: that of the Winograd of weight gradients, and those of 1x1 by cuBLASLt."""
    spec = ConvSpec.of((32, 256, 14, 14), (256, 256, 3, 3), pads=(1, 1, 1, 1))
    shapes = [(spec.data, "float32"), (spec.output, "float32"), (spec.weight, "float32")]
    ranks = range(6)
    direct = [(described(spec, "weight_gradient", rank=r), shapes) for r in ranks]
    winograd = [(described(spec, "weight_gradient", policy="winograd"), shapes)]
    *others, only = numbers(plans(direct + winograd))
    assert only == 17
    assert 17 not in others
    small = ConvSpec.of((1, 2048, 7, 7), (512, 2048, 1, 1))
    x, w, y = small.data, small.weight, small.output
    orders = {"forward": (x, w, y), "data_gradient": (y, w, x), "weight_gradient": (x, y, w)}
    found: dict[str, set[str]] = {"float16": set(), "float32": set()}
    for dtype, workspaces in found.items():
        for kind, engine in (("forward", 58), ("data_gradient", 63), ("weight_gradient", 62)):
            shapes = [(shape, dtype) for shape in orders[kind]]
            answers = plans([(described(small, kind, strict=False, rank=r), shapes) for r in ranks])
            taken = (a.split(";workspace")[0] for a in answers if a.startswith(f"engine={engine};"))
            workspaces.update(words.split("knobs=")[1] for words in taken)
    assert found["float16"] <= {"25:0"}
    assert found["float32"] >= {"25:1", "25:2"}
