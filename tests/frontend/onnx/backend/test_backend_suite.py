"""A sample of ONNX's own backend suite on every run, all of it with `pytest -m slow`."""

from __future__ import annotations

import random
from fnmatch import fnmatch

import onnx
import pytest

from convc.errors import ConvcError
from tests.frontend.onnx.backend.exclusions import EXCLUSIONS, excluded
from tests.frontend.onnx.backend.operator_table import DOCUMENT, operator_table
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


@pytest.mark.parametrize("name", sorted(n for n in IN_SCOPE if excluded(n)))
def test_excluded_cases_fail(name: str) -> None:
    with pytest.raises((ConvcError, AssertionError)):
        check(cases()[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", WANTED)
def test_case(name: str) -> None:
    check(cases()[name])


def test_the_table_of_operators_is_as_written() -> None:
    written = DOCUMENT.read_text(encoding="utf-8")
    if f"(onnx {onnx.__version__})" not in written:
        pytest.skip(
            f"docs/ops.md was written with another onnx than {onnx.__version__}, and suites differ by version; "
            "python -m tests.frontend.onnx.backend.operator_table writes it for this one"
        )
    assert operator_table() == written, (
        "docs/ops.md is stale: python -m tests.frontend.onnx.backend.operator_table"
    )


def test_at_least_95_percent_of_the_node_cases_pass() -> None:
    nodes = [n for n in IN_SCOPE if cases()[n].kind == "node"]
    assert sum(not excluded(n) for n in nodes) >= 0.95 * len(nodes)
