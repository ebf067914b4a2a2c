"""RefusalReport: every operator of a model that convc does not take, in one error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from convc.errors import UnsupportedModelError
from convc.frontend.onnx.converter import display_domain

__all__ = ["Refusal", "RefusalReport"]

NAMES_SHOWN: Final = 3


@dataclass(frozen=True, slots=True, order=True)
class Refusal:
    """Why one operator is refused, alike for all the nodes of one line of the report.

    Attributes:
        domain: as displayed.
        op_type: ONNX's name.
        version: the operator's since_version; of a foreign domain, its opset version; None if it is not imported.
        reason: one line.
        is_operator: no converter at all, in contrast to a use of an operator that convc takes otherwise.
    """

    domain: str
    op_type: str
    version: int | None
    reason: str
    is_operator: bool


class RefusalReport:
    """Collects refusals during an import."""

    def __init__(self) -> None:
        self._nodes: dict[Refusal, list[str]] = {}

    def add(
        self,
        domain: str,
        op_type: str,
        version: int | None,
        node: str,
        reason: str,
        *,
        is_operator: bool,
    ) -> None:
        """Note that a node is refused."""
        row = Refusal(display_domain(domain), op_type, version, reason, is_operator)
        self._nodes.setdefault(row, []).append(node)

    def raise_if_any(self, label: str) -> None:
        """Raise UnsupportedModelError with one line per operator and reason, sorted."""
        if not self._nodes:
            return
        # An unknown version sorts first; None does not compare with numbers.
        rows = sorted(self._nodes, key=lambda r: (r.domain, r.op_type, r.version or 0, r.reason))
        table = [
            (
                f"{r.domain}::{r.op_type}",
                "v?" if r.version is None else f"v{r.version}",
                f"x{len(self._nodes[r])}",
                _names(self._nodes[r]),
                r.reason,
            )
            for r in rows
        ]
        widths = [max(len(cells[column]) for cells in table) for column in range(4)]
        lines = [
            "  " + "  ".join([*(c.ljust(w) for c, w in zip(cells, widths, strict=False)), cells[4]])
            for cells in table
        ]
        operators = len({(r.domain, r.op_type, r.version) for r in rows if r.is_operator})
        uses = sum(not r.is_operator for r in rows)
        counted = [
            f"{count} {noun}{'' if count == 1 else 's'}{rest}"
            for count, noun, rest in ((operators, "operator", ""), (uses, "use", " of operators"))
            if count
        ]
        verb = "is" if operators + uses == 1 else "are"
        raise UnsupportedModelError(
            "\n".join(
                [
                    f"{label} cannot be compiled: {' and '.join(counted)} {verb} not supported",
                    *lines,
                    "help: `convc ops` lists what is supported",
                ]
            )
        )


def _names(nodes: list[str]) -> str:
    shown = ", ".join(nodes[:NAMES_SHOWN])
    return f"{shown}, ..." if len(nodes) > NAMES_SHOWN else shown
