"""Error rates of everything that was spoken, from the sample that was heard, with their uncertainty.

The estimate is a ratio of weighted totals (Hájek 1971), each clip with the inverse of its inclusion probability. Clips
of one person go together, so its variance is the jackknife's over persons: the squares of how far the ratio moves when
one of them is left out (Särndal, Swensson and Wretman 1992, §11.5; MacKinnon, Nielsen and Webb 2023). With few persons,
or few that weigh much, the normal quantile is too short for it: the quantile is Student's with the degrees of freedom
of the variance (Bell and McCaffrey 2002; Imbens and Kolesár 2016, with independent errors as the working model).
Intervals of rates are made on the logarithm, because rates of persons are skewed and never negative.

A conversation belongs to each of its persons. Sums over persons alone would count two clips of one couple twice, so
those over couples are taken off and those over three added (Aronow, Samii and Assenova 2015): two clips count together
when they share anybody. Without conversations that is the sum over persons.

There is no correction for a finite population: what is estimated is the recogniser on such speech, not on these clips.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import stdtrit

_Numbers = npt.NDArray[np.float64]

# One row a cell, and a row each for two arms that are compared: sql/parts.sql. Of numerator x and denominator y, each
# with its weight w: the ratio; its variance over persons; sums of the squares of each person's share of y, of what
# persons pull the ratio towards themselves and of its squares; persons, clips and audio; and moments of x and y.
PARTS: Final = pa.schema(
    [
        ("cell", pa.string()),
        ("arm", pa.string()),
        *((name, pa.float64()) for name in ("ratio", "variance", "shares", "pulls", "squared_pulls")),
        ("speakers", pa.int64()),
        ("clips", pa.int64()),
        *((name, pa.float64()) for name in ("audio_ms", "w", "wy", "wxx", "wxy", "wyy")),
    ]
)
ESTIMATED: Final = pa.schema(
    [
        ("cell", pa.string()),
        *((name, pa.float64()) for name in ("estimate", "ci_low", "ci_high", "margin")),
        ("clips", pa.int64()),
        ("speakers", pa.int64()),
        *((name, pa.float64()) for name in ("effective_clips", "hours", "hours_needed")),
    ]
)
DIFFERENCES: Final = pa.schema(
    [("cell", pa.string()), *((name, pa.float64()) for name in ("estimate", "ci_low", "ci_high"))]
)
_CONFIDENCE: Final = 0.95
# Of a rate: one point on either side.
_WANTED_MARGIN: Final = 0.01
_MS_PER_HOUR: Final = 3_600_000
# What is lost to rounding when a residual that is nothing is computed, relative to the estimate.
_NOTHING: Final = 1e-12


class _Parts:
    """The columns of PARTS as numbers, unknown ones NaN; the variance only where it can be told."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows
        known = (self["speakers"] > 1) & (self["variance"] > (_NOTHING * self["ratio"]) ** 2)
        self.variance = np.where(known, self["variance"], np.nan)
        degrees = 1 / (self["pulls"] ** 2 + self["shares"] - self["squared_pulls"])
        self.degrees = np.clip(degrees, 1, np.maximum(self["speakers"] - 1, 1))

    def __getitem__(self, name: str) -> _Numbers:
        return np.asarray(self._rows[name].cast(pa.float64()).to_numpy(), np.float64)

    def effective_clips(self) -> _Numbers:
        """Clips, by the variance that as many drawn at random would have over the variance that these have."""
        squares = self["wxx"] - 2 * self["ratio"] * self["wxy"] + self["ratio"] ** 2 * self["wyy"]
        at_random = (squares / self["w"]) / (self["wy"] / self["w"]) ** 2 / (self["clips"] - 1)
        return np.asarray(self["clips"] * at_random / self.variance)


def ratios(rows: pa.Table) -> pa.Table:
    """Of every row of PARTS the ratio with its interval; returns rows of ESTIMATED in the same order.

    `margin` is half a symmetric interval. `effective_clips` is how many clips of as many persons, drawn with equal
    chances, would tell as much. `hours_needed` is how much more audio of the same kind brings the margin to one point.
    No interval can be told with one person, or where all err alike.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        parts = _Parts(rows)
        estimate, speakers = parts["ratio"], parts["speakers"]
        margin = _quantile(parts.degrees) * np.sqrt(parts.variance)
        stretch = np.exp(margin / estimate)
        # Nobody's clips hold an error: as if each person had said one word (Clopper and Pearson 1934).
        flawless = (estimate == 0) & (speakers > 1)
        low = np.where(flawless, 0, estimate / stretch)
        high = np.where(flawless, 1 - ((1 - _CONFIDENCE) / 2) ** (1 / speakers), estimate * stretch)
        hours = parts["audio_ms"] / _MS_PER_HOUR
        needed = hours * np.maximum((margin / _WANTED_MARGIN) ** 2 - 1, 0)
        effective = parts.effective_clips()
    columns = (estimate, low, high, margin, parts["clips"], speakers, effective, hours, needed)
    return _table(rows["cell"], columns, ESTIMATED)


def differences(rows: pa.Table, common: pa.Table, arm: str, other: str) -> pa.Table:
    """Of every cell that has both arms in rows of PARTS, the ratio of the one less that of the other: DIFFERENCES.

    A person may be in both, and then the two do not vary on their own: their covariance (`common`: cell, covariance) is
    taken off. The degrees of freedom are those of Welch (1947).
    """
    one, two = (rows.filter(pc.equal(rows["arm"], name)) for name in (arm, other))
    cells = one["cell"].filter(pc.is_in(one["cell"], two["cell"].combine_chunks())).combine_chunks()
    first, second = (_Parts(part.take(pc.index_in(cells, part["cell"].combine_chunks()))) for part in (one, two))
    covariances = common["covariance"].take(pc.index_in(cells, common["cell"].combine_chunks()))
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = first.variance + second.variance
        degrees = apart**2 / (first.variance**2 / first.degrees + second.variance**2 / second.degrees)
        shared = np.asarray(covariances.fill_null(0).to_numpy(), np.float64)
        margin = _quantile(degrees) * np.sqrt(apart - 2 * shared)
    estimate = first["ratio"] - second["ratio"]
    return _table(cells, (estimate, estimate - margin, estimate + margin), DIFFERENCES)


def _quantile(degrees: _Numbers) -> _Numbers:
    return np.asarray(stdtrit(degrees, (1 + _CONFIDENCE) / 2))


def _table(cells: pa.Array, columns: Sequence[_Numbers], schema: pa.Schema) -> pa.Table:
    arrays = [
        pa.array(np.where(np.isfinite(column), column, 0), kind, mask=~np.isfinite(column))
        for column, kind in zip(columns, schema.types[1:], strict=True)
    ]
    return pa.Table.from_arrays([cells, *arrays], schema=schema)
