"""The same model gives the same file, byte for byte: twice in one process, and in two with other hash seeds."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from convc.compiler import compile
from convc.ir.text import parse

# Every stage that could depend on an order: passes, units, kernels, the arena, weights, options.
NET = """
graph @net {
  %x = input : f32[1,5,6,6]  %w = constant splat(0.5) : f32[20,5,3,3]  %v = constant splat(0.25) : f32[20,20,1,1]
  %a = conv(%x, %w) {pads = [1, 1, 1, 1]}  %r = relu(%a)  %b = conv(%r, %v)  %c = add(%b, %r)
  %d = concat(%c, %r) {axis = 1}  %e = sigmoid(%d)  %m = reduce_mean(%e) {axes = [2, 3]}  %s = mul(%d, %m)
  return %s, %c
}
"""
CODE = """
import sys
from convc.compiler import compile
from convc.ir.text import parse
compile(parse(sys.stdin.read()), threads=2, algo_for={"a": "direct", "b": "generic"}).export(sys.argv[1])
"""


def test_twice_in_one_process(tmp_path: Path):
    files = []
    for name in ("first.so", "second.so"):
        graph = parse(NET)
        compile(graph, threads=1).export(tmp_path / name)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_in_two_processes_with_other_hash_seeds(tmp_path: Path):
    digests = []
    for seed in ("1", "2"):
        file = tmp_path / seed / "net.so"
        file.parent.mkdir()
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run(
            [sys.executable, "-c", CODE, str(file)],
            input=NET,
            text=True,
            env=environment,
            check=True,
            timeout=120,
        )
        digests.append(hashlib.sha256(file.read_bytes()).hexdigest())
    assert digests[0] == digests[1]
