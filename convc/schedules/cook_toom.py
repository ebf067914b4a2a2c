"""Exact transform matrices of Winograd's minimal filtering F(m, r), from one Cook-Toom generator in rational numbers.

    y = A_T [ (G g) . (B_T d) ]        m outputs of an r-tap filter g over alpha = m + r - 1 data points d

With alpha - 1 finite points a_j and infinity:

    A_T[i][j] = a_j^i                  G[j][k] = a_j^k / prod_{l != j} (a_j - a_l)
    B_T[j]    = coefficients of prod_{l != j} (x - a_l);   at infinity of prod_l (x - a_l)

A row of B_T times any s, with its row of G divided by s, computes the same; s is a power of two here, so nothing is rounded.

SOURCE  Lavin and Gray, arXiv:1509.09308 (the form); Barabasz et al., arXiv:1803.10986 (points decide the error)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Final, TypeAlias

__all__ = ["POINTS", "Factored", "Matrix", "Transform", "cook_toom", "factored"]

Matrix: TypeAlias = tuple[tuple[Fraction, ...], ...]

_F = Fraction

# Finite points by how many are needed; errors of float32 F(m, 3) at C = 256, normal data, relative to the result's rms, measured.
# Points in pairs +-a keep the even/odd factoring. Error of direct float32 in the same measurement: 2.9e-7 rms, 1.5e-6 greatest.
POINTS: Final[dict[int, tuple[Fraction, ...]]] = {
    1: (_F(0),),
    2: (_F(1), _F(-1)),
    3: (_F(0), _F(1), _F(-1)),  # F(2, 3): 1.8e-7 rms, 6.4e-7 greatest
    4: (_F(0), _F(1), _F(-1), _F(1, 2)),  # F(3, 3): 6.2e-7, 3.7e-6
    5: (_F(0), _F(2, 3), _F(-2, 3), _F(3, 2), _F(-3, 2)),  # F(4, 3): 5.3e-7, 2.8e-6 (Lavin's: 1.15e-6, 9.8e-6)
    6: (_F(2, 5), _F(-2, 5), _F(4, 5), _F(-4, 5), _F(5, 3), _F(-5, 3)),  # F(5, 3): 1.25e-6, 8.8e-6
    7: (_F(0), _F(1, 2), _F(-1, 2), _F(1), _F(-1), _F(2), _F(-2)),  # F(6, 3): 2.3e-6, 2.2e-5
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Transform:
    """The three matrices of F(m, r), and the finite points they come from."""

    m: int
    r: int
    points: tuple[Fraction, ...]
    A_T: Matrix
    G: Matrix
    B_T: Matrix

    @property
    def alpha(self) -> int:
        return self.m + self.r - 1


def _product(roots: Sequence[Fraction]) -> list[Fraction]:
    """Return the coefficients of prod (x - root), lowest power first."""
    coefficients = [_F(1)]
    for root in roots:
        shifted = [_F(0), *coefficients]
        scaled = [*(root * c for c in coefficients), _F(0)]
        coefficients = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients


def _balance(row_g: Sequence[Fraction], row_b: Sequence[Fraction]) -> Fraction:
    """Return the power of two that brings the greatest entries of both rows closest together."""
    ratio = max(map(abs, row_g)) / max(map(abs, row_b))
    return _F(2) ** round(math.log2(ratio) / 2)


@cache
def cook_toom(m: int, r: int) -> Transform:
    """Return the matrices of F(m, r).

    Raises:
        KeyError: if there are no points for m + r - 2.

    Example:
        >>> [[str(v) for v in row] for row in cook_toom(2, 3).A_T]
        [['1', '1', '1', '0'], ['0', '1', '-1', '1']]
    """
    alpha = m + r - 1
    points = POINTS[alpha - 1] if alpha > 1 else ()
    A_T = [[a**i for a in points] + [_F(i == m - 1)] for i in range(m)]
    G, B_T = [], []
    for j, a in enumerate(points):
        others = [p for i, p in enumerate(points) if i != j]
        scale = math.prod((a - p for p in others), start=_F(1))
        row_g, row_b = [a**k / scale for k in range(r)], [*_product(others), _F(0)]
        s = _balance(row_g, row_b)
        G.append([g / s for g in row_g])
        B_T.append([b * s for b in row_b])
    G.append([_F(k == r - 1) for k in range(r)])
    B_T.append(_product(points))
    frozen = [tuple(map(tuple, matrix)) for matrix in (A_T, G, B_T)]
    return Transform(m, r, points, *frozen)


@dataclass(frozen=True, slots=True)
class Factored:
    """A matrix as `outer @ inner`, with fewer operations than itself: the even and odd parts of +-a pairs are shared."""

    outer: Matrix
    inner: Matrix


def _pairs(points: Sequence[Fraction]) -> list[tuple[int, int]]:
    """Return the positions (of +a, of -a)."""
    return [(i, points.index(-a)) for i, a in enumerate(points) if a > 0 and -a in points]


@cache
def factored(transform: Transform) -> tuple[Factored, Factored]:
    """Return (B_T, A_T) factored.

    B_T rows of +a and -a have the same even coefficients and opposite odd ones (up to a common sign): inner rows hold the even
    and odd parts, outer rows add and subtract them. A_T columns of +a and -a: inner rows add and subtract the two products,
    outer rows use the sum for even powers and the difference for odd ones.
    """
    n = transform.alpha
    inner_b = [list(row) for row in transform.B_T]
    outer_b = _identity(n)
    inner_a = _identity(n)
    outer_a = [list(row) for row in transform.A_T]
    for p, q in _pairs(transform.points):
        plus, minus = transform.B_T[p], transform.B_T[q]
        inner_b[p] = [(a + b) / 2 for a, b in zip(plus, minus, strict=True)]
        inner_b[q] = [(a - b) / 2 for a, b in zip(plus, minus, strict=True)]
        outer_b[p][q] = _F(1)
        outer_b[q][p], outer_b[q][q] = _F(1), _F(-1)
        inner_a[p][q] = _F(1)
        inner_a[q][p], inner_a[q][q] = _F(1), _F(-1)
        for row in outer_a:
            row[p], row[q] = (row[p] + row[q]) / 2, (row[p] - row[q]) / 2
    rows = [tuple(map(tuple, matrix)) for matrix in (outer_b, inner_b, outer_a, inner_a)]
    return Factored(rows[0], rows[1]), Factored(rows[2], rows[3])


def _identity(n: int) -> list[list[Fraction]]:
    return [[_F(i == j) for j in range(n)] for i in range(n)]
