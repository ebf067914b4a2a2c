"""A compiled peer of the benchmarks: its attributes are not known to type checkers."""

from typing import Any

def __getattr__(name: str) -> Any: ...
