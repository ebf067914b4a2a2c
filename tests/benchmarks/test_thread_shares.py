"""How evenly threads share work: their parts follow one another on one thread, and a launch counts as long as its longest part."""

from __future__ import annotations

import numpy as np
import onnx

from benchmarks import thread_shares
from convc import dsl as cc
from convc.frontend.onnx.export import to_onnx


def test_a_launch_is_as_long_as_its_longest_part(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(64, 32, 3, 3)).astype(np.float32)
    y = cc.conv2d(cc.input("x", (1, 32, 64, 64)), wide, pads=1)
    onnx.save(to_onnx(cc.graph({"y": y})), tmp_path / "wide.onnx")
    found = []
    monkeypatch.setattr(thread_shares, "_print", lambda shares, threads, top: found.extend(shares))
    assert thread_shares.main([str(tmp_path / "wide.onnx"), "--threads", "4", "--rounds", "3"]) == 0
    (conv,) = (step for step in found if step.key)
    # By this thread's own clock, four parts of 10 MFLOP each: the rest of the machine does not matter.
    assert 0 < conv.shared < conv.alone


def test_what_is_wrong_is_said(capsys):
    assert thread_shares.main(["no.onnx", "--threads", "0"]) != 0
    assert "--threads must be at least 1; got 0" in capsys.readouterr().err
