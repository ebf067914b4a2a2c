"""What `compile` makes: a model in memory, to be called or written to a file."""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from convc.deploy.bundle import write_bundle
from convc.deploy.static import write_static
from convc.errors import PackageError
from convc.ir.graph import Graph
from convc.lowering.build import Built
from convc.planning import Planned
from convc.runtime import Module, load
from convc.runtime.manifest import Manifest
from convc.schedules.plan import Plan

if TYPE_CHECKING:
    from convc.runtime.module import NanPolicy

__all__ = ["CompiledModel", "ExportFormat"]

ExportFormat: TypeAlias = Literal["so", "bundle", "static"]


@dataclass(frozen=True)
class CompiledModel:
    """A compiled model in memory: `export` it, or call it.

    Attributes:
        source: the graph as it came in.
        graph: the graph after all passes; of the greatest batch size, where the batch is symbolic.
        plan: the algorithm of every convolution, and why; the first CPU's, if it is compiled for several.
        planned: what the plan rests on: how many layers are tuned, and the lock that pins it.
        sources: `source`; with an open height and width also the graphs of other sizes, the last of one in between.
    """

    source: Graph
    graph: Graph
    plan: Plan
    planned: Planned = field(repr=False)
    _built: Built = field(repr=False)
    sources: tuple[Graph, ...] = field(default=(), repr=False)
    _loaded: dict[str, object] = field(default_factory=dict, repr=False, compare=False)

    @property
    def manifest(self) -> Manifest:
        """What the packaged module will say about itself."""
        return self._built.manifest

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Numbers of samples that there is code for, largest first; empty where shapes are fixed."""
        manifest = self.manifest
        return (manifest.batch, *(s.batch for s in manifest.smaller)) if manifest.batch else ()

    def export(
        self, path: str | os.PathLike[str], *, format: ExportFormat = "so", cc: str = "g++"
    ) -> Path:
        """Write the runtime module, which needs no compiler, and return its path.

        Args:
            path: "so": the file; "bundle": a new folder, or a file that ends in .tar; "static": a file that ends in .a.
            format: "so" is one file, for `convc.load` and for libconvc; "bundle" has libconvc, headers and examples with it;
                "static" is an archive and headers, to be linked into a program.
            cc: the C++ compiler that links it; for another kind of machine its cross compiler.

        Raises:
            ToolchainError: if there is no such compiler.
            PackageError: if the format does not take the target, or the path, or there is no such folder.
        """
        destination = Path(path)
        if not destination.absolute().parent.is_dir():
            raise PackageError(f"an exported module must go into a folder that exists; got '{path}'. Make that folder first.")  # fmt: skip
        if format != "so" and self.manifest.areas:
            raise PackageError(f"format must be 'so' for an open height and width, whose sizes the C runtime does not tell apart; got '{format}'. Compile once for each size.")  # fmt: skip
        if format == "so":
            self._built.export(destination, cc)
        elif format == "static":
            built = self._built
            write_static(built.objects, built.manifest, built.weights, destination, cc=cc)
        else:
            with TemporaryDirectory(prefix=".convc-", dir=destination.absolute().parent) as folder:
                module = Path(folder) / "module.so"
                self._built.export(module, cc)
                write_bundle(module, destination, cc=cc)
        return destination

    def load(self, threads: int | None = None, nan: NanPolicy = "allow") -> Module:
        """Return the model ready to run in this process; linked into a temporary folder that lives as long as this object."""
        if "file" not in self._loaded:
            folder = Path(mkdtemp(prefix="convc-"))
            # Not a TemporaryDirectory: that one warns when it is cleaned up together with its owner.
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self._loaded["file"] = self.export(folder / "model.so")
        file = self._loaded["file"]
        assert isinstance(file, Path)
        return load(file, threads=threads, nan=nan)

    def _module(self) -> Module:
        if "module" not in self._loaded:
            self._loaded["module"] = self.load()
        module = self._loaded["module"]
        assert isinstance(module, Module)
        return module

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name."""
        return self._module().run(inputs)

    def __call__(self, *inputs: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """Return the output (or a tuple of them) for the inputs in order."""
        return self._module()(*inputs)
