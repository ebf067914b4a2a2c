"""Ctrl-C and SIGTERM while nvcc compiles CUTLASS, on the real command line with a double of nvcc that never ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.cutlass.test_objects import headers
from tests.schedules.cuda.test_compiler_run import child, wait_for_end

MODEL = """\
graph @net {
  %x = input : f16[1,8,6,6]
  %w = constant splat(1.0) : f16[8,8,3,3]
  %y = conv(%x, %w) : f16[1,8,4,4]
  return %y
}
"""

# What convc asks nvcc for on its way; -c is a kernel of CUTLASS.
NVCC = """\
#!/bin/sh
case "$*" in
  *--version*) echo "release 13.0" ;;
  *--list-gpu-code*) echo sm_90 ;;
  *-dryrun*) echo '#$ LIBRARIES=  "-L{folder}"' >&2 ;;
  -c*) sleep 300 & echo $! > {folder}/part; mv {folder}/part {folder}/child; wait ;;
  *) exit 9 ;;
esac
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_every_nvcc_and_leaves_nothing(tmp_path, how):
    tools, temporary = tmp_path / "tools", tmp_path / "temporary"
    for folder in (tools, temporary):
        folder.mkdir()
    nvcc = tools / "nvcc"
    nvcc.write_text(NVCC.format(folder=tools))
    nvcc.chmod(0o755)
    (tools / "libcudart_static.a").touch()
    model = tmp_path / "net.cvc"
    model.write_text(MODEL)
    environment = os.environ | {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": str(temporary),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "CONVC_CUTLASS_PATH": str(headers(tmp_path / "cutlass")),
    }
    command = [sys.executable, "-m", "convc", "compile", str(model), "--target", "cuda", "--sm", "90", "--algo", "cutlass", "-o", str(tmp_path / "net.so")]  # fmt: skip
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:  # fmt: skip
        try:
            pid = child(tools, lambda: running.poll() is not None)
            assert list(temporary.iterdir()) != []
            running.send_signal(how)
            out, err = running.communicate(timeout=300)
        finally:
            running.kill()
    wait_for_end(pid)
    assert running.returncode == 130, err
    assert out == ""
    said = err.splitlines()
    begun = re.compile(r"build \d/\d: nvcc compiles \w+_2d_float16_\d+x\d+x\d+_\w\d")
    assert any(begun.fullmatch(line) for line in said), err
    assert said[-1] == "interrupted"
    assert list(temporary.iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "cutlass", "net.cvc", "temporary", "tools"]  # fmt: skip
    kept = [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix != ".lock"]
    assert kept == []
