"""docs/zoo.md, written from the rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from benchmarks.families.names import NAMES
from benchmarks.families.row import TOLERANCE, Row

__all__ = ["DOCUMENT", "document"]

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "zoo.md"

_HEAD: Final = """# Networks

Written by `python -m benchmarks.families table` from the rows kept in `benchmarks/families/`; a test compares both.

Networks of torchvision, timm and packages for one application (detection, segmentation, volumes, depth, speech, diffusion) with random
weights that keep the size of the data, exported by torch, compiled for one thread and run on one random input. The error is max |y - reference| / max |reference|, the greatest of the outputs; at most {tolerance:g} passes. float64 is
the model in double precision, in NumPy; ORT is ONNX Runtime in float32. Opsets 11 to 17 come from torch's exporter that traces, 18 to 23
from that by `torch.export`: another one for each network, in turn. Where a network of random weights magnifies roundings, float32 is far
from float64 in any order of its sums: ONNX Runtime's own error says how far. So it is with
starnet_s1 (blocks that multiply two branches), ssdlite320, yolo12n and levit below, and in part with mixnet_s and hifigan: torch's own float32 pass is 6.2e-04 off for ssdlite320 and 7.9e-05 for
mixnet_s (2026-11-26), ONNX Runtime 2e-3, 0.11 and 1e-5 for three inputs of levit. rt_detr orders its queries by scores that are close: 41 of 100 are
elsewhere than in float64, each within 7e-4 of one of float64's (2026-11-28). Seconds are the processor's from 2026-11-28 on; before
that they are a clock's, on a machine with other work. Of networks of many equal blocks some have a few, and some are smaller than those
that are trained: `timm_models`, `transformers_models` and `diffusers_models` say so. The last names of timm are one of each of its modules.
Detectors end at their heads: torchvision's code after them makes as many rows as there are objects.

```sh
pip install 'convc[zoo]'
python -m benchmarks.families check           # what has no good row yet; or names, or patterns: 'timm/*'
pip install monai segmentation-models-pytorch transformers diffusers ultralytics     # whichever applications are wanted
```
"""
_COLUMNS: Final = """| network | opset | operators | parameters, 10^6 | compile, s | memory, GiB | error against float64 | against ORT |
|---|---:|---:|---:|---:|---:|---:|---:|"""


def _opset(row: Row) -> str:
    return f"{row.written} (asked {row.opset})" if row.written else str(row.opset)


def _line(row: Row) -> str:
    assert row.error is not None, "only good rows are in the table"
    peer = "-" if row.peer_error is None else f"{row.peer_error:.1e}"
    cells = (row.name.partition("/")[2], _opset(row), row.operators, f"{row.parameters / 1e6:.1f}", f"{row.compile_seconds:.0f}", f"{row.peak_gib:.1f}", f"{row.error:.1e}", peer)  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def _section(source: str, rows: Iterable[Row]) -> list[str]:
    """Return the table of a package's networks, and what failed."""
    places = {name: place for place, name in enumerate(NAMES[source])}
    ordered = sorted(rows, key=lambda r: (places.get(r.name, len(places)), r.opset))
    good, bad = [r for r in ordered if r.ok], [r for r in ordered if not r.ok]
    facts = sorted({", ".join(f"{k} {v}" for k, v in r.versions.items()) for r in good})
    where = sorted({f"{r.cpu}, {r.date}" for r in good})
    lines = ["", f"## {source}", "", f"{len(good)} of {len(ordered)} compiled and within {TOLERANCE:g}. {'; '.join(where)}. {'; '.join(facts)}.", "", _COLUMNS]  # fmt: skip
    lines += map(_line, good)
    if bad:
        lines += ["", "Not so:", ""]
        lines += [f"- {r.name.partition('/')[2]} (opset {_opset(r)}): {_why(r)}" for r in bad]
    return lines


def _why(row: Row) -> str:
    if row.failure:
        return row.failure
    peer = f"; ONNX Runtime's own is {row.peer_exact:.1e}" if row.peer_exact is not None else ""
    return f"error {row.error:.1e}{peer}"


def document(rows: Mapping[tuple[str, int], Row]) -> str:
    """Return the page."""
    lines = [_HEAD.format(tolerance=TOLERANCE).rstrip()]
    for source in NAMES:
        mine = [row for row in rows.values() if row.name.partition("/")[0] == source]
        if mine:
            lines += _section(source, mine)
    return "\n".join([*lines, ""])
