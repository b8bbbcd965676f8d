"""Error rates of everything that was spoken, from the sample that was heard, with their uncertainty.

The estimate is a ratio of weighted totals (Hájek 1971), each clip with the inverse of its inclusion probability. Clips
of one person go together, so its variance is that of a ratio linearised over persons (Särndal, Swensson and Wretman
1992, §5.5 to §5.7). With few persons, or few that weigh much, that variance is too small and the normal quantile too
short: each person's residual is enlarged by what it pulled the estimate towards itself, and the quantile is Student's
with the degrees of freedom of the variance (Bell and McCaffrey 2002; Imbens and Kolesár 2016, with independent errors
as the working model). Intervals of rates are made on the logarithm, because rates of persons are skewed and never
negative.

A conversation belongs to each of its persons. Sums over persons alone would count two clips of one couple twice, so
those over couples are taken off and those over three added (Aronow, Samii and Assenova 2015): two clips count together
when they share anybody. Without conversations that is the sum over persons.

There is no correction for a finite population: what is estimated is the recogniser on such speech, not on these clips.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import stdtrit

_Numbers = npt.NDArray[np.float64]

# One row a cell and a set of persons whose clips it sums: sql/sums.sql. `w`, `x` and `y` are weight, numerator and
# denominator; `persons` is the size of the set.
SUMS: Final = pa.schema(
    [
        ("measure", pa.string()),
        ("cell", pa.string()),
        ("together", pa.string()),
        ("persons", pa.int64()),
        ("clips", pa.int64()),
        ("audio_ms", pa.float64()),
        *((name, pa.float64()) for name in ("w", "wx", "wy", "wxx", "wxy", "wyy")),
    ]
)
ESTIMATED: Final = pa.schema(
    [
        ("measure", pa.string()),
        ("cell", pa.string()),
        *((name, pa.float64()) for name in ("estimate", "ci_low", "ci_high", "margin")),
        ("clips", pa.int64()),
        ("speakers", pa.int64()),
        *((name, pa.float64()) for name in ("effective_clips", "hours", "hours_needed")),
    ]
)
_CONFIDENCE: Final = 0.95
# Of a rate: one point on either side.
_WANTED_MARGIN: Final = 0.01
_MS_PER_HOUR: Final = 3_600_000
# What is lost to rounding when a residual that is nothing is computed, relative to the estimate.
_NOTHING: Final = 1e-12


class _Cells:
    """Sums by cell, a cell a position: the ratio, its variance and the degrees of freedom of that variance."""

    def __init__(self, cell: npt.NDArray[np.int64], cells: int, sums: pa.Table) -> None:
        self._cell, self._cells = cell, cells
        self.column = {name: sums[name].to_numpy().astype(np.float64) for name in sums.column_names[3:]}
        # Of sets of persons that a clip is in, those of even size take off what those of odd size count too often.
        self.sign = np.where(self.column["persons"] % 2 == 1, 1.0, -1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            numerator, denominator = self.total("wx"), self.total("wy")
            self.estimate = np.where(denominator > 0, numerator / denominator, np.nan)
            share = self.column["wy"] / denominator[cell]
            self.residual = (self.column["wx"] - self.estimate[cell] * self.column["wy"]) / denominator[cell]
            # A person that is the whole cell leaves nothing to compare it with.
            self.enlarged = np.where(share < 1, 1 / (1 - share), np.nan)
            variance = self.sum(self.sign * self.residual**2 * self.enlarged)
            pull = share**2 * self.enlarged
            spread = self.sum(self.sign * pull) ** 2 + self.sum(self.sign * share**2) - self.sum(self.sign * pull**2)
            self.speakers = self.sum(self.column["persons"] == 1)
            known = (self.speakers > 1) & (variance > (_NOTHING * self.estimate) ** 2)
            self.variance = np.where(known, variance, np.nan)
            self.degrees = np.clip(1 / spread, 1, np.maximum(self.speakers - 1, 1))

    def sum(self, values: npt.NDArray[np.generic]) -> _Numbers:
        return np.asarray(np.bincount(self._cell, values, self._cells), np.float64)

    def total(self, name: str) -> _Numbers:
        """Each clip once, in however many sets it is."""
        return self.sum(self.sign * self.column[name])


def ratios(sums: pa.Table) -> pa.Table:
    """Of every measure and cell the ratio with its interval, from rows of SUMS; returns rows of ESTIMATED.

    `margin` is half a symmetric interval. `effective_clips` is how many clips of as many persons, drawn with equal
    chances, would tell as much. `hours_needed` is how much more audio of the same kind brings the margin to one point.
    No interval can be told with one person, or where all err alike.
    """
    keys = sums.group_by(["measure", "cell"], use_threads=False).aggregate([])
    numbered = keys.append_column("number", pa.array(np.arange(keys.num_rows)))
    placed = sums.select(["measure", "cell"]).append_column("row", pa.array(np.arange(sums.num_rows)))
    number = placed.join(numbered, ["measure", "cell"]).sort_by("row")["number"].to_numpy()
    cells = _Cells(number, keys.num_rows, sums)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        margin = _quantile(cells.degrees) * np.sqrt(cells.variance)
        stretch = np.exp(margin / cells.estimate)
        # Nobody's clips hold an error: as if each person had said one word (Clopper and Pearson 1934).
        flawless = (cells.estimate == 0) & (cells.speakers > 1)
        highest = 1 - ((1 - _CONFIDENCE) / 2) ** (1 / cells.speakers)
        low = np.where(flawless, 0, cells.estimate / stretch)
        high = np.where(flawless, highest, cells.estimate * stretch)
        hours = cells.total("audio_ms") / _MS_PER_HOUR
        needed = hours * np.maximum((margin / _WANTED_MARGIN) ** 2 - 1, 0)
        clips, effective = cells.total("clips"), _effective(cells)
    columns = (cells.estimate, low, high, margin, clips, cells.speakers, effective, hours, needed)
    arrays = [
        pa.array(np.where(np.isfinite(column), column, 0), kind, mask=~np.isfinite(column))
        for column, kind in zip(columns, ESTIMATED.types[2:], strict=True)
    ]
    return pa.Table.from_arrays([keys["measure"], keys["cell"], *arrays], schema=ESTIMATED)


def differences(sums: pa.Table, measure: str, other: str) -> pa.Table:
    """Of every cell that has both, the one measure less the other; the columns cell, estimate, ci_low, ci_high.

    A person may be in both, and then the two do not vary on their own: their common part is taken off.
    The degrees of freedom are those of Welch (1947).
    """
    both = [sums.filter(pc.equal(sums["measure"], name)) for name in (measure, other)]
    names = pa.array(sorted(set(both[0]["cell"].to_pylist()) & set(both[1]["cell"].to_pylist())), pa.string())
    both = [part.filter(pc.is_in(part["cell"], names)) for part in both]
    parts = [_Cells(pc.index_in(part["cell"], names).to_numpy(), len(names), part) for part in both]
    first, second = (
        part.select(["cell", "together"]).append_column(f"u{n}", pa.array(cells.residual * np.sqrt(cells.enlarged)))
        for n, (part, cells) in enumerate(zip(both, parts, strict=True))
    )
    first = first.append_column("sign", pa.array(parts[0].sign))
    shared = first.join(second, ["cell", "together"], join_type="inner")
    products = shared["sign"].to_numpy() * shared["u0"].to_numpy() * shared["u1"].to_numpy()
    common = np.bincount(pc.index_in(shared["cell"], names).to_numpy(), products, len(names))
    one, two = parts
    with np.errstate(divide="ignore", invalid="ignore"):
        separate = one.variance + two.variance
        degrees = separate**2 / (one.variance**2 / one.degrees + two.variance**2 / two.degrees)
        margin = _quantile(degrees) * np.sqrt(separate - 2 * common)
    estimate = one.estimate - two.estimate
    columns = {"estimate": estimate, "ci_low": estimate - margin, "ci_high": estimate + margin}
    told = {name: pa.array(np.nan_to_num(c), pa.float64(), mask=~np.isfinite(c)) for name, c in columns.items()}
    return pa.table({"cell": names, **told})


def _quantile(degrees: _Numbers) -> _Numbers:
    return np.asarray(stdtrit(degrees, (1 + _CONFIDENCE) / 2))


def _effective(cells: _Cells) -> _Numbers:
    """Clips by the ratio of the variance that as many drawn at random would have to the variance that these have."""
    clips, weight = cells.total("clips"), cells.total("w")
    squares = cells.total("wxx") - 2 * cells.estimate * cells.total("wxy") + cells.estimate**2 * cells.total("wyy")
    at_random = (squares / weight) / (cells.total("wy") / weight) ** 2 / (clips - 1)
    return np.asarray(clips * at_random / cells.variance)
