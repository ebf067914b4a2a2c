"""convc's and the tests' own source files, parsed once: what the rules of the house are checked on."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Final

import convc

__all__ = ["ROOT", "TESTS", "sources", "tree"]

ROOT: Final = Path(convc.__file__).parent
TESTS: Final = Path(__file__).parent


@cache
def sources() -> dict[str, Path]:
    """Return module name without `convc.` -> file."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
