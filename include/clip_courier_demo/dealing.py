"""Shares made exact: counts and shuffled codes in given proportions, so that rare cases exist in small worlds too."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def quota(shares: Sequence[float], total: int, *, at_least: int = 1) -> Ints:
    """How many of `total` fall to each share, by largest remainder; the first takes what the others leave.

    Every share above zero gets `at_least`, unless the total is too small to afford it three times over.
    """
    exact = np.array([0.0, *shares[1:]]) * total
    counts = exact.astype(np.int64)
    rest = round(exact.sum()) - counts.sum()
    counts[np.argsort(counts - exact, kind="stable")[:rest]] += 1
    if total >= 3 * at_least * len(shares):
        counts = np.where(exact > 0, np.maximum(counts, at_least), counts)
    counts[0] = max(0, total - counts[1:].sum())
    return counts


def deal(random: np.random.Generator, shares: Sequence[float], total: int, *, firsts: int = 0) -> Ints:
    """`total` codes 0, 1, ... in the proportions of `shares`, shuffled, but the first `firsts` of them are 0."""
    counts = quota(shares, total)
    codes = np.repeat(np.arange(len(shares), dtype=np.int64), counts)[:total]
    return np.concatenate([codes[:firsts], random.permutation(codes[firsts:])])
