"""Divisors: sizes of blocks that leave no tail."""

from __future__ import annotations

__all__ = ["divisors", "greatest_divisor"]


def divisors(n: int) -> list[int]:
    """Return the divisors of a number of at least 1, in ascending order.

    Example:
        >>> divisors(12)
        [1, 2, 3, 4, 6, 12]
    """
    return [d for d in range(1, n + 1) if n % d == 0]


def greatest_divisor(n: int, most: int) -> int:
    """Return the greatest divisor of `n` up to `most`; 1 where that is less.

    Example:
        >>> greatest_divisor(12, 5), greatest_divisor(7, 0)
        (4, 1)
    """
    return max(d for d in divisors(n) if d <= max(1, most))
