"""CUDA C as TVM prints it, to C++ for the emulation: shared memory, inline PTX and the kernels' exports; the rest is headers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tests.cuda_emulation.inline_ptx import translate_assembly

__all__ = ["Translated", "translate"]

_ALIGNMENT = r"(?:(?:__align__|alignas)\((\d+)\)\s*)?"
_DYNAMIC: Final = re.compile(rf"extern\s+__shared__\s+{_ALIGNMENT}([\w: ]+?)\s+(\w+)\[\s*\];")
_STATIC: Final = re.compile(rf"__shared__\s+{_ALIGNMENT}([\w:<>, ]+?)\s+(\w+)((?:\[[^\]]+\])+);")
_KERNEL: Final = re.compile(
    r'(?:extern "C" )?__global__ void (?:__cluster_dims__\((\d+), (\d+), (\d+)\)\s*)?(?:__launch_bounds__\((\d+)[^)]*\)\s*)?(\w+)\s*\([^;{]*\)\s*\{'
)
_DEVICE_THREADS: Final = 1024


@dataclass(frozen=True, slots=True)
class Translated:
    """C++ and the names of the kernels in it."""

    code: str
    kernels: tuple[str, ...]


def translate(source: str) -> Translated:
    """Return C++ for the emulation; its line numbers are those of the CUDA source.

    Raises:
        UnknownInstructionError: if inline PTX holds what is not emulated.
        ValueError: if a __shared__ declaration is left that was not understood.
    """
    kernels = {
        match[5]: (match[4] or _DEVICE_THREADS, *(extent or 1 for extent in match.group(1, 2, 3)))
        for match in _KERNEL.finditer(source)
    }
    code = _DYNAMIC.sub(
        r"\2* \3 = reinterpret_cast<\2*>(cuda_emulation::dynamic_shared());", source
    )
    code = _STATIC.sub(_shared_array, code)
    if left := re.search(r"[^\n]*__shared__[^\n]*", code):
        raise ValueError(f"__shared__ declaration must be an array; got '{left.group().strip()}'.")
    exports = [f"CUDA_EMULATION_EXPORT({name}, {', '.join(map(str, of))})" for name, of in kernels.items()]  # fmt: skip
    parts = ['#include "kernel.h"', "#line 1", translate_assembly(code), *exports]
    return Translated("\n".join((*parts, "")), tuple(kernels))


def _shared_array(match: re.Match[str]) -> str:
    alignment, element, name, extents = match.groups()
    return f"auto& {name} = cuda_emulation::shared<{element}{extents}, __COUNTER__>({alignment or ''});"
