"""What the command line shows: JSON documents, tables, quantities with units."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["Column", "Output", "console", "count", "mebibytes", "print_json", "seconds", "table"]

# Into a pipe or a file a table is as wide as its content; rich would cut it at 80 columns.
_UNLIMITED: Final = 100_000


@dataclass(frozen=True, slots=True)
class Output:
    """How one command answers.

    Attributes:
        json: one JSON document on stdout, and nothing else there.
        quiet: results and errors only.
        verbose: more detail; full tracebacks.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False

    @property
    def shows_progress(self) -> bool:
        """A bar only where a person watches."""
        return not self.json and not self.quiet and sys.stderr.isatty()

    def note(self, text: str) -> None:
        """Say something on stderr that is not the result."""
        if not self.quiet and not self.json:
            console(sys.stderr).print(text, markup=False, highlight=False)

    def warn(self, text: str) -> None:
        """Say on stderr why a result may mislead."""
        if not self.json:
            console(sys.stderr).print(
                f"warning: {text}", markup=False, highlight=False, style="yellow"
            )


def console(stream: TextIO | None = None) -> Console:
    """Return a rich console on a stream (stdout); it honours NO_COLOR."""
    from rich.console import Console

    target: TextIO = sys.stdout if stream is None else stream
    is_terminal = target.isatty()
    width = None if is_terminal else _UNLIMITED
    return Console(file=target, width=width, highlight=False, soft_wrap=not is_terminal)


def print_json(document: object) -> None:
    """Print one JSON document on stdout; NaN and infinities become null, as JSON has none."""
    import msgspec

    encoded = msgspec.json.encode(document, enc_hook=_plain)
    sys.stdout.write(msgspec.json.format(encoded, indent=2).decode() + "\n")
    sys.stdout.flush()


def _plain(value: object) -> object:
    """Return NumPy scalars and paths as plain Python values."""
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column; numbers are aligned right."""

    title: str
    right: bool = False


def table(title: str | None, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table of text cells; markup in them is not interpreted."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for column in columns:
        made.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def seconds(value: float) -> str:
    """Return a time with a unit that suits it.

    Example:
        >>> seconds(0.0123), seconds(2.5e-6), seconds(75.0)
        ('12.30 ms', '2.5 us', '75.0 s')
    """
    for least, scale, unit, digits in ((10, 1, "s", 1), (1, 1, "s", 2), (1e-3, 1e3, "ms", 2)):
        if value >= least:
            return f"{value * scale:.{digits}f} {unit}"
    return f"{value * 1e6:.1f} us"


def count(value: float) -> str:
    """Return a count with a metric prefix.

    Example:
        >>> count(950), count(8_200_000_000), count(25_600_000)
        ('950', '8.20 G', '25.6 M')
    """
    for least, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= least:
            return (
                f"{value / least:.3g} {unit}"
                if value / least >= 10
                else f"{value / least:.2f} {unit}"
            )
    return f"{value:g}"


def mebibytes(value: int) -> str:
    """Return bytes in MiB.

    Example:
        >>> mebibytes(3 * 2**20)
        '3.0 MiB'
    """
    return f"{value / 2**20:.1f} MiB"
