"""The arithmetic of the sampling plan, over groups and strata, never over clips. docs/sampling.md has the whole design.

A group is what the design cannot tell apart: clips of one stratum, billed length, weight and number of rivals. A clip
with N rivals (itself among them) survives the thinning within person with probability 1 / N, and is then taken with
probability q, so that its inclusion probability is q / N whatever the key: q depends on plan and population alone.

Whole numbers all through (lengths in ms, probabilities in units of 1 / ONE), so that no order of summation matters.

Sources: systematic sampling of a list with unequal probabilities, Madow (1949), Ann. Math. Statist. 20, 333; keyed
hashes as permanent random numbers, Ohlsson (1995); optimum allocation, Neyman (1934), J. R. Statist. Soc. 97, 558.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clip_courier.errors import SettingsInvalid
from clip_courier.settings import Sampling

# Probabilities are multiples of 2⁻³⁰.
ONE: Final = 1 << 30
# Lengths are billed in steps: clips of one step are interchangeable, which lets a group be larger than one clip.
BILLED_STEP_MS: Final = 500
# How many standard deviations of the thinning's outcome are kept free under a hard limit. What still overflows is cut;
# by the normal loss function that lowers a probability by less than 0.01 × deviation / limit.
_DEVIATIONS: Final = 2
_MS_PER_HOUR: Final = 3_600_000

# Clips that other nights have taken, with whether they were recalled.
TAKEN: Final = pa.schema([("clip_id", pa.string()), ("is_recalled", pa.bool_())])
# What vendors heard of a person within the plan's days, of other nights.
EXPOSURE: Final = pa.schema([("person_id", pa.string()), ("heard_ms", pa.int64())])

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# The eligible clips by group; in the order of a systematic sample: stratum, billed_ms, weight, rivals.
REACH: Final = pa.schema(
    [
        ("stratum", pa.string()),
        ("billed_ms", pa.int64()),
        ("weight", pa.float64()),
        ("rivals", pa.int64()),
        ("clips", pa.int64()),
        ("duration_ms", pa.int64()),
    ]
)
HIT: Final = pa.schema(
    [
        *(REACH.field(name) for name in ("stratum", "billed_ms", "weight", "rivals")),
        pa.field("group_no", pa.int64()),
        pa.field("hits", pa.int64()),
        pa.field("probability", pa.float64()),
        pa.field("reach", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Stratum:
    """What a stratum gets, and why not more. Lengths in ms of audio.

    `limit`: `supply` (all there is), `persons` (all that the caps for persons leave), `ceiling`, `floor`, `night` (its
    part of the night's hours) or `share` (of all clips). `level` is what a clip of weight 1 is included with at most.
    """

    name: str
    eligible: int
    eligible_ms: int
    wanted_ms: int
    budget_ms: int
    limit: str
    level: float


# Told the levels, answers with the variances (ms², clips²) of what is expected once the thinning's outcome is known.
Variance = Callable[[Mapping[str, float]], Mapping[str, tuple[float, float]]]


def planned(
    reach: pa.Table, variance: Variance, spread: Mapping[str, float], most_clips: int, plan: Sampling
) -> list[Stratum]:
    """The strata in the order of their names, each with the level that keeps it within its budget.

    `reach` has the columns of REACH. `spread` is the standard deviation of past scores by stratum, for `neyman`; a
    stratum without scores counts as the middle one. `most_clips` is the most that may be taken of all strata.

    Raises:
        SettingsInvalid: the floors need more than the night has.
    """
    if reach.num_rows == 0:
        return []
    groups = _Groups(reach)
    survive = groups.expected_ms(np.full(len(groups.names), inf))
    # Only where everything may fit is it of interest how far everything varies.
    small = [n for n, ms in zip(groups.names, survive, strict=True) if ms <= plan.hours(n).ceiling * _MS_PER_HOUR]
    supply = survive + groups.margin(variance(dict.fromkeys(small, inf)))
    strata = _allocated(groups, supply, spread, plan)
    level = _kept_within(groups, strata, supply, variance)
    fewer = _few_enough(groups, level, variance, most_clips)
    return [
        replace(one, level=float(fewer[i]), limit="share" if fewer[i] < level[i] else one.limit)
        for i, one in enumerate(strata)
    ]


class _Groups:
    """The columns of REACH as arrays, and sums of them by stratum."""

    def __init__(self, reach: pa.Table) -> None:
        name = reach["stratum"].to_numpy(zero_copy_only=False)
        self.starts = np.flatnonzero(np.concatenate(([True], name[1:] != name[:-1])))
        self.names: list[str] = name[self.starts].tolist()
        self.number = np.repeat(np.arange(len(self.names)), np.diff([*self.starts, len(name)]))
        self.clips, self.rivals = reach["clips"].to_numpy(), reach["rivals"].to_numpy()
        self.billed, self.length = reach["billed_ms"].to_numpy(), reach["duration_ms"].to_numpy()
        self.weight: Floats = reach["weight"].to_numpy()

    def sums(self, of_group: Floats | Ints) -> Floats:
        return np.add.reduceat(of_group, self.starts).astype(np.float64)

    def included(self, level: Floats) -> Floats:
        """The inclusion probability of a clip of each group."""
        chance: Floats = np.minimum(1 / self.rivals, level[self.number] * self.weight)
        return chance

    def expected_ms(self, level: Floats) -> Floats:
        return self.sums(self.clips * self.billed * self.included(level))

    def expected_clips(self, level: Floats) -> Floats:
        return self.sums(self.clips * self.included(level))

    def longest(self) -> Floats:
        return np.maximum.reduceat(self.billed, self.starts).astype(np.float64)

    def margin(self, variance: Mapping[str, tuple[float, float]]) -> Floats:
        return np.array([_DEVIATIONS * sqrt(variance.get(name, (0.0, 0.0))[0]) for name in self.names])

    def levels(self, cost: Floats | Ints, target: Floats) -> Floats:
        """Per stratum the level at which the expected cost is the target; infinite where all does not reach it."""
        ends = [*self.starts[1:], len(self.clips)]
        return np.array(
            [
                _level((self.clips * cost)[a:b], self.rivals[a:b], self.weight[a:b], most)
                for a, b, most in zip(self.starts, ends, target, strict=True)
            ]
        )


def _level(cost: Floats, rivals: Ints, weight: Floats, target: float) -> float:
    """τ with Σ cost × min(1 / rivals, τ × weight) = target."""
    full_at = 1 / (rivals * weight)
    order = np.argsort(full_at, kind="stable")
    full = np.concatenate(([0.0], np.cumsum((cost / rivals)[order])))
    if full[-1] <= target:
        return inf
    others = np.cumsum((cost * weight)[order][::-1])[::-1]
    # With the first k full the others reach the target at at[k]; right is the first k that this fills no further.
    at = np.maximum(target - full[:-1], 0) / others
    return float(at[np.argmax(at <= full_at[order])])


def _allocated(groups: _Groups, supply: Floats, spread: Mapping[str, float], plan: Sampling) -> list[Stratum]:
    """The night's hours shared out among the strata."""
    eligible, eligible_ms = groups.sums(groups.clips), groups.sums(groups.length)
    is_thinned = np.maximum.reduceat(groups.rivals, groups.starts) > 1
    hours = [plan.hours(name) for name in groups.names]
    ceiling = np.array([one.ceiling * _MS_PER_HOUR for one in hours])
    most = np.minimum(ceiling, np.ceil(supply))
    floor = np.minimum(np.array([one.floor * _MS_PER_HOUR for one in hours]), most)
    total = plan.hours_per_night * _MS_PER_HOUR
    if floor.sum() > total:
        needed = floor.sum() / _MS_PER_HOUR
        raise SettingsInvalid(
            f"sampling.yaml: floors need {needed:.2f} hours, hours_per_night is {plan.hours_per_night}"
        )
    size = _sizes(groups, eligible, eligible_ms, spread, plan)
    wanted = size / size.sum() * total
    budget = _filled(size, floor, most, total)
    return [
        Stratum(
            name=name,
            eligible=int(eligible[i]),
            eligible_ms=int(eligible_ms[i]),
            wanted_ms=int(wanted[i]),
            # The sharing out ends a breath below the total.
            budget_ms=int(budget[i] + 1e-3),
            limit=_limit(budget[i], supply[i], ceiling[i], floor[i], is_thinned=bool(is_thinned[i])),
            level=inf,
        )
        for i, name in enumerate(groups.names)
    ]


def _limit(budget: float, supply: float, ceiling: float, floor: float, *, is_thinned: bool) -> str:
    if budget >= supply:
        return "persons" if is_thinned else "supply"
    if budget >= ceiling:
        return "ceiling"
    return "floor" if budget <= floor else "night"


def _sizes(
    groups: _Groups, eligible: Floats, eligible_ms: Floats, spread: Mapping[str, float], plan: Sampling
) -> Floats:
    """The measure that hours are shared out by."""
    if plan.allocation == "proportional":
        return eligible_ms
    if plan.allocation == "sqrt":
        return np.sqrt(eligible_ms)
    known = sorted(spread[name] for name in groups.names if name in spread)
    middle = known[len(known) // 2] if known else 1.0
    deviation = np.array([spread.get(name, middle) for name in groups.names])
    # Neyman's optimum where a clip costs its length: clips ∝ N S / √length, so hours ∝ N S √length.
    size = np.sqrt(eligible * eligible_ms) * deviation
    return size if size.sum() > 0 else eligible_ms


def _filled(size: Floats, floor: Floats, most: Floats, total: float) -> Floats:
    """min(most, max(floor, λ size)) with the largest λ whose sum stays within the total."""
    if most.sum() <= total:
        return most
    low, high = 0.0, float((most / np.maximum(size, 1e-9)).max())
    for _ in range(100):
        middle = (low + high) / 2
        if np.clip(size * middle, floor, most).sum() <= total:
            low = middle
        else:
            high = middle
    return np.clip(size * low, floor, most)


def _kept_within(groups: _Groups, strata: list[Stratum], supply: Floats, variance: Variance) -> Floats:
    """The levels at which no stratum exceeds its budget.

    A systematic sample of a list in order of length takes at most the longest clip more than it is expected to, and the
    thinning's outcome varies. Both are kept free.
    """
    budget = np.array([one.budget_ms for one in strata], dtype=np.float64)
    is_all = budget >= np.floor(supply)
    target = np.where(is_all, inf, np.maximum(budget - groups.longest(), 0))
    level = groups.levels(groups.billed, target)
    partly = {n: tau for n, tau, whole in zip(groups.names, level.tolist(), is_all, strict=True) if not whole}
    margin = groups.margin(variance(partly))
    return groups.levels(groups.billed, np.where(is_all, inf, np.maximum(target - margin, 0)))


def _few_enough(groups: _Groups, level: Floats, variance: Variance, most_clips: int) -> Floats:
    """The levels at which no more clips than `most_clips` are taken of all strata."""
    of_stratum = groups.expected_clips(level)
    # By itself the number varies by less than if every clip were drawn by itself.
    if of_stratum.sum() + _DEVIATIONS * sqrt(of_stratum.sum()) <= most_clips:
        return level
    found = variance(dict(zip(groups.names, level.tolist(), strict=True)))
    room = most_clips - _DEVIATIONS * sqrt(sum(clips for _, clips in found.values()))
    if of_stratum.sum() <= room:
        return level
    target = of_stratum * (max(room, 0) / of_stratum.sum())
    return np.minimum(level, groups.levels(np.ones(len(groups.clips)), target))


def hits(groups: pa.Table, strata: Sequence[Stratum], start: float) -> pa.Table:
    """How many survivors of each group are taken, and with which inclusion probability.

    A systematic sample (Madow 1949): the groups are laid end to end in their order, each as long as the sum of its
    survivors' q, and hit at every whole number plus `start`, which is uniform in [0, 1).

    Args:
        groups: the columns of REACH and `kept`, in the order of REACH.

    Returns:
        stratum, billed_ms, weight, rivals, group_no, hits, probability, and the `reach` of a draw: below this 128-bit
        number the lots of at least `hits` survivors lie, but for once in a million groups.
    """
    if groups.num_rows == 0:
        return pa.Table.from_batches([], HIT)
    level = np.array([one.level for one in strata])
    arrays = _Groups(groups)
    q = np.floor(np.minimum(1, level[arrays.number] * arrays.weight * arrays.rivals) * ONE).astype(np.int64)
    # What is too little for a unit still has a chance, unless its stratum has none.
    q = np.where((q == 0) & (level[arrays.number] > 0), 1, q)
    ends = np.cumsum(groups["kept"].to_numpy() * q)
    at = int(start * ONE)
    reached = (ends + at) // ONE
    found = np.diff(reached, prepend=at // ONE)
    return pa.table(
        {
            **{name: groups[name] for name in ("stratum", "billed_ms", "weight", "rivals")},
            "group_no": pa.array(np.arange(groups.num_rows)),
            "hits": pa.array(found),
            "probability": pa.array(q / (ONE * arrays.rivals)),
            "reach": pa.array(_reach(found, groups["kept"].to_numpy())),
        },
        HIT,
    )


def _reach(found: Ints, kept: Ints) -> Floats:
    """So many survivors are expected below it that five standard deviations fewer are still enough."""
    expected = found + 5 * np.sqrt(found) + 10
    reach: Floats = 2.0**128 * np.minimum(1, expected / np.maximum(kept, 1))
    return reach
