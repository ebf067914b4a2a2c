"""Peer: one row per engine that convc is compared with, and how a model is put into it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from benchmarks.onnx_file import OnnxFile
from convc.errors import ConvcError

__all__ = ["Array", "Infer", "Peer", "PeerError", "PeerMissingError", "run_tool"]

Array: TypeAlias = np.ndarray
# Inputs and outputs in the ONNX model's order; both are NumPy arrays on the host, so that every engine pays for its own copies.
Infer: TypeAlias = Callable[[Sequence[Array]], Sequence[Array]]

_TOOL_LIMIT_SECONDS: Final = 600
_SHOWN_LINES: Final = 3


class PeerError(ConvcError):
    """A peer does not take the model, or fails on it; reported beside its name, never silently dropped."""


class PeerMissingError(PeerError):
    """A peer's package is not installed."""


@dataclass(frozen=True, slots=True)
class Peer:
    """An engine.

    Attributes:
        name: on the command line and in tables.
        packages: what pip calls it, its converter last.
        load: puts a model into it, to run with a number of threads; raises whatever the engine raises.
    """

    name: str
    packages: tuple[str, ...]
    load: Callable[[OnnxFile, int], Infer]

    def versions(self) -> dict[str, str]:
        """Return the versions of its packages, without those that are not installed."""
        found = {}
        for package in self.packages:
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                continue
        return found

    def open(
        self, model: OnnxFile, threads: int, inputs: Sequence[Array]
    ) -> tuple[Infer, Sequence[Array]]:
        """Return the engine with the model in it, and the outputs of its first run.

        Raises:
            PeerMissingError: if a package is not installed.
            PeerError: if the engine fails, in its own words.
        """
        missing = [p for p in self.packages if p not in self.versions()]
        if missing:
            raise PeerMissingError(
                f"{self.name} must have the package{'s' if len(missing) > 1 else ''} {', '.join(missing)}; got no such package. "
                "Run: pip install 'convc[compare]'"
            )
        try:
            infer = self.load(model, threads)
            # Copies: an engine may hand out its own memory, which its next run overwrites.
            return infer, [np.array(output) for output in infer(inputs)]
        except ConvcError:
            raise
        # Engines raise what they like, MNN plain `Exception`: this is the one boundary behind which all of it is a report.
        except Exception as error:
            text = " ".join(str(error).split()) or "no message"
            raise PeerError(
                f"{self.name} must run the model; got {type(error).__name__}: {text}"
            ) from error


def run_tool(command: Sequence[str], folder: Path, result: str) -> None:
    """Run a converter in `folder`, where it must write the file `result`.

    Raises:
        PeerError: if it fails, writes nothing or takes longer than ten minutes; the message ends with its last words.
    """
    name = Path(command[0]).name
    try:
        # In a process of its own: a converter that crashes takes only itself down.
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TOOL_LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PeerError(
            f"{name} must convert the model in {_TOOL_LIMIT_SECONDS} s; got no end."
        ) from None
    if done.returncode or not (folder / result).is_file():
        lines = [line.strip() for line in done.stdout.decode(errors="replace").splitlines()]
        last = "; ".join([line for line in lines if line][-_SHOWN_LINES:])
        raise PeerError(
            f"{name} must convert the model; got exit code {done.returncode}: {last or 'no output'}"
        )
