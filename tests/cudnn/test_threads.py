"""Two calls of cuDNN at once, two threads on two streams: a handle and a result for each, one answer to a refusal; no data race."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import tvm_ffi

from convc.runtime.libraries.cudnn import compile_shim
from tests.cudnn.double_library import build_double

SOURCE = Path(__file__).with_name("threads.cpp")


def together(folder: Path, rounds: int, *options: str) -> list[str]:
    """Return what the program says after `rounds` of each thread's calls; `options` of g++ for the shim and the program."""
    include = f"-I{tvm_ffi.libinfo.find_include_path()}"
    program, shim = folder / "threads", folder / "shim.so"
    shim.write_bytes(compile_shim(("-shared", *options)))
    # -rdynamic: the program itself is the shim's host.
    command = ["g++", "-std=c++17", "-O1", "-rdynamic", *options, include, str(SOURCE), "-o", str(program), "-ldl", "-lpthread"]  # fmt: skip
    subprocess.run(command, check=True)
    double = build_double(options=options)
    done = subprocess.run(
        [program, shim, double, str(rounds)], capture_output=True, text=True, timeout=400, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def check(said: list[str]) -> None:
    first, more, memory, behind = said
    # Each convolution was inside cuDNN while the other was, so each had a handle.
    assert first.count("create;") == 2
    assert sorted(part for part in first.split(";") if part.startswith("run ")) == [
        "run 25 on stream 100",
        "run 25 on stream 101",
    ]
    assert more == "more handles: 0, more plans: 0"
    assert memory == "no memory: 1, then 1: refused=cuDNN's workspace for"
    assert behind == "behind: destroy;destroy; 0 descriptors"


def test_two_calls_at_once(tmp_path: Path) -> None:
    check(together(tmp_path, 50))


@pytest.mark.slow
def test_the_thread_sanitizer_sees_nothing(tmp_path: Path) -> None:
    check(together(tmp_path, 200, "-fsanitize=thread", "-g"))
