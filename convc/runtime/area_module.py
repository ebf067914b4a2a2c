"""A loaded module with an open height and width: any size up to the largest, on code for a few areas.

    module(x) with 300 x 200, code for 256 x 256 and 512 x 512:  zeros around it up to 512 x 512, results cut to what 300 x 200 gives

The code for an area is right for every smaller one (`ir.area`): inputs of it, which are filled in here, say what of each value is valid,
and from which points with which weights a resampling makes each of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tvm_ffi
from numpy.typing import NDArray

from convc.errors import InputError
from convc.ir.resampling import Rules, table
from convc.runtime.manifest import Area, Manifest, Open, Resampling, Tensor
from convc.runtime.memory import Window
from convc.runtime.module import Module, NanPolicy
from convc.runtime.ports import ArrayLike
from convc.runtime.profile import StepTimes
from convc.runtime.threads import ThreadPool

__all__ = ["AreaModule"]


class AreaModule(Module):
    """See the module's text; made by `load`."""

    def __init__(
        self,
        manifest: Manifest,
        parts: Sequence[tuple[Area, Module]],
        library: tvm_ffi.Module,
        entry: tvm_ffi.Function,
        weights: Window,
        pool: ThreadPool,
        nan: NanPolicy,
    ) -> None:
        super().__init__(manifest, library, entry, weights, pool, nan)
        self._parts = sorted(parts, key=lambda part: part[0].height * part[0].width)
        filled = manifest.areas[0].filled
        self._given = tuple(t for t in manifest.inputs if t.name not in filled)
        self._ready: dict[tuple[int, int, int], dict[str, NDArray]] = {}

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What a caller gives, with the largest height and width."""
        return self._given

    @property
    def areas(self) -> tuple[tuple[int, int], ...]:
        """Heights and widths that there is code for, the smallest first."""
        return tuple((area.height, area.width) for area, _ in self._parts)

    @property
    def least(self) -> tuple[int, int]:
        """The smallest height and width."""
        return self.manifest.least

    def __call__(self, *arrays: ArrayLike, **named: ArrayLike) -> NDArray | tuple[NDArray, ...]:
        """Return the output, or the tuple of outputs; see `Module`."""
        names = [t.name for t in self._given if t.name not in named]
        if len(arrays) != len(names):
            raise InputError(f"module must have {len(names)} inputs by position, {', '.join(names)}; got {len(arrays)}.")  # fmt: skip
        results = tuple(self.run({**dict(zip(names, arrays, strict=True)), **named}).values())
        return results[0] if len(results) == 1 else results

    def run(
        self,
        inputs: Mapping[str, ArrayLike],
        *,
        outputs: Mapping[str, NDArray] | None = None,
    ) -> dict[str, NDArray]:
        """Return the outputs by name, of the size that the inputs give.

        Args:
            inputs: every input, by name; those with an open height and width have the same.
            outputs: arrays to write into, of the size that there is.

        Raises:
            InputError: as `Module.run`; or if a height or width is smaller than the least, or greater than the largest.
        """
        (area, part), fed, (height, width) = self._fed(inputs)
        results = part.run(fed)
        for name, crop in area.crops.items():
            rows, cols = crop.rows[height - 1], crop.cols[width - 1]
            results[name] = np.ascontiguousarray(results[name][:, :, :rows, :cols])
        for name, array in (outputs or {}).items():
            if name not in results:
                raise InputError(f"outputs must be among {', '.join(results)}; got {name}.")
            if array.shape != results[name].shape or array.dtype != results[name].dtype:
                raise InputError(f"output '{name}' must be {results[name].dtype} {results[name].shape}; got {array.dtype} {array.shape}.")  # fmt: skip
            np.copyto(array, results[name])
            results[name] = array
        return results

    def profile(self, inputs: Mapping[str, ArrayLike], repeats: int = 10) -> tuple[StepTimes, ...]:
        """Return how long each step of the code for this size takes; see `Module.profile`."""
        (_, part), fed, _ = self._fed(inputs)
        return part.profile(fed, repeats)

    def _fed(
        self, inputs: Mapping[str, ArrayLike]
    ) -> tuple[tuple[Area, Module], dict[str, ArrayLike], tuple[int, int]]:
        """Return the code for the inputs' size, what it is fed, and that size."""
        missing = [t.name for t in self._given if t.name not in inputs]
        unknown = set(inputs) - {t.name for t in self._given}
        if missing or unknown:
            raise InputError(f"inputs must be {', '.join(t.name for t in self._given)}; got {', '.join(inputs) or 'none'}.")  # fmt: skip
        arrays = {name: np.from_dlpack(v) if not isinstance(v, np.ndarray) else v for name, v in inputs.items()}  # type: ignore[arg-type]  # fmt: skip
        sizes = {name: arrays[name].shape[2:] for name in self.manifest.open}
        if len(set(sizes.values())) > 1 or any(len(size) != 2 for size in sizes.values()):
            found = ", ".join(f"'{name}' {arrays[name].shape}" for name in sizes)
            raise InputError(f"inputs must be N, C, H, W of one height and width; got {found}.")
        height, width = next(iter(sizes.values()))
        low = self.manifest.least
        fitting = [(area, part) for area, part in self._parts if area.height >= height and area.width >= width]  # fmt: skip
        if not fitting or height < low[0] or width < low[1]:
            last = self._parts[-1][0]
            raise InputError(
                f"height and width must be from {low[0]} x {low[1]} to {last.height} x {last.width}; got {height} x {width}."
            )
        area, part = fitting[0]
        fed: dict[str, ArrayLike] = {}
        for name, array in arrays.items():
            fed[name] = _within(array, area) if name in self.manifest.open else array
        fed |= self._filled(area, height, width)
        return (area, part), fed, (height, width)

    def _filled(self, area: Area, height: int, width: int) -> dict[str, NDArray]:
        key = (area.height * area.width, height, width)
        if key not in self._ready:
            if len(self._ready) > 8:
                self._ready.clear()
            inputs = {t.name: t for t in area.inputs}
            ready = {name: _mask(inputs[name].shape, table, height, width) for name, table in area.masks.items()}  # fmt: skip
            for row in area.resamplings:
                size = height if row.axis == 2 else width
                tables = _taps(row, size)
                for name, values in zip((row.places, row.weights), tables, strict=True):
                    whole = np.zeros(inputs[name].shape, inputs[name].dtype)
                    whole[: values.shape[0], : values.shape[1]] = values
                    ready[name] = whole
            self._ready[key] = ready
        return self._ready[key]


def _mask(shape: tuple[int, ...], table: Open, height: int, width: int) -> NDArray:
    mask = np.zeros(shape, bool)
    mask[:, :, : table.rows[height - 1], : table.cols[width - 1]] = True
    return mask


def _taps(row: Resampling, size: int) -> tuple[NDArray, NDArray]:
    rules = Rules(row.coordinate, row.mode, row.rounding, row.cubic, row.antialias, row.exclude_outside)  # fmt: skip
    return table(rules, row.scale, row.extents[size - 1], row.results[size - 1])


def _within(array: NDArray, area: Area) -> NDArray:
    """Return the array with zeros up to the area."""
    *outer, height, width = array.shape
    if (height, width) == (area.height, area.width):
        return array
    whole = np.zeros((*outer, area.height, area.width), array.dtype)
    whole[..., :height, :width] = array
    return whole
