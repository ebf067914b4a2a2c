"""A sample of ONNX's own backend suite on every run, all of it with `pytest -m slow`."""

from __future__ import annotations

import random
from fnmatch import fnmatch

import pytest

from tests.frontend.onnx.backend.exclusions import EXCLUSIONS, excluded
from tests.frontend.onnx.backend.suite import cases, check, out_of_scope

IN_SCOPE = [name for name, case in cases().items() if not out_of_scope(case)]
WANTED = sorted(name for name in IN_SCOPE if not excluded(name))
SAMPLE = random.Random(0).sample(WANTED, 30)


@pytest.mark.parametrize("name", SAMPLE)
def test_case_of_the_sample(name: str) -> None:
    check(cases()[name])


def test_every_exclusion_excludes_something() -> None:
    idle = [pattern for pattern, _ in EXCLUSIONS if not any(fnmatch(n, pattern) for n in IN_SCOPE)]
    assert idle == []


@pytest.mark.slow
@pytest.mark.parametrize("name", WANTED)
def test_case(name: str) -> None:
    check(cases()[name])
