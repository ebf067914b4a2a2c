"""Seed after seed in a process with limits: one line for each that is answered in no expected way, and how many of each kind at the end."""

from __future__ import annotations

import logging
import resource
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

__all__ = ["try_seeds"]


def try_seeds(
    seeds: range,
    mutant: Callable[[int], tuple[str, bytes]],
    tried: Callable[[Path], str],
    expected: Collection[str],
    limit_bytes: int,
) -> None:
    """Write each seed's mutant to a file and try it.

    Args:
        seeds: what to try.
        mutant: seed -> (what was changed, the model's bytes).
        tried: what became of a file.
        expected: answers that are no fault.
        limit_bytes: of this process's address space.
    """
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    kinds: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutant.onnx"
        for seed in seeds:
            _say(f"seed {seed}")
            what, data = mutant(seed)
            path.write_bytes(data)
            answer = tried(path)
            if answer in expected:
                kinds[answer] += 1
            else:
                _say(f"WRONG {seed} ({what}): {answer!r}")
    _say(f"done {dict(kinds)}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
