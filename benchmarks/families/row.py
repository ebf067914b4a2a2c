"""Row: what came of one network; rows are kept one a line, so that a run that was killed goes on where it stopped."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

__all__ = ["ROWS", "TOLERANCE", "Row", "append", "read"]

# What the documentation's table is made of.
ROWS: Final = Path(__file__).with_name("rows.jsonl")
# Greatest max |error| / max |reference| that passes.
TOLERANCE: Final = 1e-4


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One network, exported at one opset.

    Attributes:
        name: "torchvision/resnet18".
        opset: that was asked for.
        written: that of the file, where the exporter has its own mind; else 0.
        date, cpu, versions: when, where and of what.
        shape: of the input.
        operators: nodes in the file, without constants.
        parameters: in the torch module.
        export_seconds: on a machine with other work.
        compile_seconds: the processor's, for one thread; rows before 2026-11-28 have a clock's, on a machine with other work.
        peak_gib: most memory of the process that compiled and compared.
        error: max |y - reference| / max |reference|, the greatest of the outputs, against float64.
        peer_error: the same against ONNX Runtime in float32; None where it is not installed or refuses the file.
        peer_exact: ONNX Runtime's own error against float64, which says how much of ours is the network's.
        failure: why there is no result: the first line of an error, with the stage that raised it.
    """

    name: str
    opset: int
    date: str
    cpu: str
    versions: dict[str, str]
    written: int = 0
    shape: tuple[int, ...] = ()
    operators: int = 0
    parameters: int = 0
    export_seconds: float = 0.0
    compile_seconds: float = 0.0
    peak_gib: float = 0.0
    error: float | None = None
    peer_error: float | None = None
    peer_exact: float | None = None
    failure: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was compiled and computes what it must."""
        return self.error is not None and self.error <= TOLERANCE and not self.failure


def read(path: Path = ROWS) -> dict[tuple[str, int], Row]:
    """Return the rows by name and opset, the last of each."""
    if not path.is_file():
        return {}
    rows = [msgspec.json.decode(line, type=Row) for line in path.read_bytes().splitlines() if line]
    return {(row.name, row.opset): row for row in rows}


def append(rows: Iterable[Row], path: Path = ROWS) -> None:
    """Add rows to the file, which holds the last of each name and opset."""
    known = read(path)
    known.update({(row.name, row.opset): row for row in rows})
    scratch = path.with_suffix(".part")
    scratch.write_bytes(b"".join(msgspec.json.encode(known[key]) + b"\n" for key in sorted(known)))
    scratch.replace(path)
