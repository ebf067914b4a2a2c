"""Unsupported: how a converter says no, with the reason."""

from __future__ import annotations

__all__ = ["Unsupported"]


class Unsupported(Exception):  # noqa: N818  # an answer, not an error: the importer collects them all and raises one error
    """A node uses its operator in a way convc does not take; `reason` is one line of the report."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
