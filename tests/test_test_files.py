"""The tests' own rules: every one can fail, and pytest can tell files of one name apart."""

from __future__ import annotations

import ast

from tests.source_files import TESTS, tree


def _asserts(function: ast.FunctionDef, checkers: set[str]) -> bool:
    """Whether a test can fail: an assert, `pytest.raises`, or a call of a function that asserts."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            last = name.rpartition(".")[2]
            if (
                name in ("pytest.raises", "pytest.fail")
                or last.startswith("assert_")
                or last in checkers
            ):
                return True
            # A subprocess whose failure is an exception.
            if any(k.arg == "check" and ast.unparse(k.value) == "True" for k in node.keywords):
                return True
    return False


def test_every_test_can_fail():
    files = sorted(TESTS.rglob("*.py"))
    # Functions of the tests that assert themselves, or call one that does.
    checkers: set[str] = set()
    for _ in range(3):
        for path in files:
            for node in ast.walk(tree(path)):
                if (
                    isinstance(node, ast.FunctionDef)
                    and not node.name.startswith("test_")
                    and _asserts(node, checkers)
                ):
                    checkers.add(node.name)
    idle = [
        f"{path.relative_to(TESTS)}::{node.name}"
        for path in files
        if path.name.startswith("test_")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and not _asserts(node, checkers)
    ]
    assert idle == []


def test_test_files_have_a_name_of_their_own_in_their_folder():
    packages = {p.parent for p in TESTS.rglob("test_*.py")}
    assert [str(p.relative_to(TESTS)) for p in packages if not (p / "__init__.py").exists()] == []
