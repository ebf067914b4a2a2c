"""The register tile: it fits the register file, and no other tile that fits has fewer cycles."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from convc.schedules.register_tile import Tile, best_tile, tile_cycles
from convc.target import Target

AVX2 = Target("llvm", "x86_64-linux-gnu", "x86-64-v3", (), 8, 16)
AVX512 = Target("llvm", "x86_64-linux-gnu", "x86-64-v4", (), 16, 32)

few = settings(deadline=None, max_examples=40, derandomize=True)
extents = st.integers(1, 40)


@few
@given(st.sampled_from([AVX2, AVX512]), extents, extents, st.integers(1, 40), st.integers(1, 4))
def test_no_other_tile_has_fewer_cycles(target, rows, cols, vectors, most):
    best = best_tile(target, rows, cols, vectors, max_vectors=most)
    assert best.fits(target)
    assert (best.rows <= rows, best.cols <= cols, best.vectors <= min(vectors, most)) == (True,) * 3
    cycles = tile_cycles(target, best, rows, cols, vectors, target.lanes)
    others = (
        Tile(r, c, v)
        for v in range(1, min(vectors, most) + 1)
        for r in range(1, min(rows, 31) + 1)
        for c in range(1, min(cols, 31) + 1)
        if r * c * v + v + 1 <= target.registers
    )
    assert (
        min(tile_cycles(target, other, rows, cols, vectors, target.lanes) for other in others)
        == cycles
    )


@few
@given(extents, extents, st.integers(1, 40))
def test_cycles_are_at_least_the_work(rows, cols, vectors):
    tile = best_tile(AVX512, rows, cols, vectors)
    assert tile_cycles(AVX512, tile, rows, cols, vectors, 16) >= rows * cols * vectors
