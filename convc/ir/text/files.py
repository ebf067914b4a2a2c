"""Graph <-> .cvc file, with its large constants in an .npz file of the same name beside it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from convc.errors import TextError
from convc.ir.graph import Graph
from convc.ir.text.parser import parse
from convc.ir.text.printer import constant_form, print_graph
from convc.ir.text.weights import write_weights

__all__ = ["load", "save"]


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside `path`, then rename: a reader sees the old file or the new one, never half of one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        write(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def save(graph: Graph, path: str | os.PathLike[str]) -> None:
    """Write the graph's text to `path` and its large constants to `<stem>.npz` beside it, if there are any.

    Each file is replaced atomically, the weights first.
    """
    path = Path(path)
    weights = path.with_suffix(".npz")
    if weights == path:
        raise TextError(f"path must not end in .npz, where the weights go; got '{path}'.")
    large = {n.name: (n.value, n.type) for n in graph.constants if constant_form(n) == "ref"}
    if large:
        _replace(weights, lambda draft: write_weights(draft, large))
    text = print_graph(graph, weights=weights.name)
    _replace(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def load(path: str | os.PathLike[str]) -> Graph:
    """Return the verified graph of a .cvc file.

    Raises:
        TextError: if the text does not parse or a reference does not hold.
        OSError: if the file cannot be read.
    """
    path = Path(path)
    return parse(path.read_text(encoding="utf-8"), filename=str(path), directory=path.parent)
