"""Algorithms that misbehave, each in one way; `install` is run in worker processes."""

from __future__ import annotations

import os
import time

import numpy as np
from tvm import tirx

from convc.schedules.generic import Generic
from convc.schedules.llvm import backend

__all__ = ["NAMES", "install"]

SCHEDULES = backend.BACKEND.schedules
generic = SCHEDULES["generic"]


class Row(Generic):
    """As fast as nothing, by its own word."""

    def __init__(self, name: str) -> None:
        self.name = name

    def space(self, problem, target):
        return ()

    def cycles(self, problem, target, knobs):
        return 1.0


class AbortsInBuild(Row):
    def compute(self, problem, target, knobs):
        os.abort()


class HangsInBuild(Row):
    def compute(self, problem, target, knobs):
        time.sleep(600)


class Refuses(Row):
    def compute(self, problem, target, knobs):
        raise ValueError("this one\ncannot be built")


class Hungry(Row):
    def pack(self, weight, problem, knobs):
        return np.ones(1 << 36, np.float32)


class Wrong(Row):
    def pack(self, weight, problem, knobs):
        return super().pack(weight, problem, knobs) * np.float32(1.001)


def calling(symbol: str):
    """Return a schedule whose kernel calls a C function first."""

    def schedule(func: tirx.PrimFunc, knobs, target) -> tirx.PrimFunc:
        made = generic(func, knobs, target)
        call = tirx.Evaluate(tirx.call_extern("int32", symbol))
        return made.with_body(tirx.SeqStmt([call, made.body]))

    return schedule


ROWS = (
    AbortsInBuild("aborts_in_build"),
    HangsInBuild("hangs_in_build"),
    Refuses("refuses"),
    Hungry("hungry"),
    Wrong("wrong"),
    Row("aborts"),
    Row("hangs"),
)
NAMES = tuple(row.name for row in ROWS)
RUNS = {"aborts": calling("abort"), "hangs": calling("pause")}


def install() -> None:
    """Add the rows to this process's backend."""
    for row in ROWS:
        SCHEDULES[row.name] = RUNS.get(row.name, generic)
    rows = (*backend.BACKEND.algorithms, *ROWS)
    object.__setattr__(backend.BACKEND, "algorithms", rows)
