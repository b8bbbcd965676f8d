"""The sampling plan as a night follows it: the dry run, the caps over several nights, overlap, what is withheld."""

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from clip_courier.courier import Courier
from clip_courier.errors import SettingsInvalid
from clip_courier.holdings import Holdings
from clip_courier.ledger import Ledger
from clip_courier.model import Root
from clip_courier.sampling_plan import REACH, planned
from clip_courier.settings import INCLUDE, Hours, Sampling
from clip_courier_demo.stage import Stage
from conftest import NIGHT, NOW
from snapshots import landing_copy, returned

MakeCourier = Callable[..., Courier]
DAY = timedelta(days=1)


def policy(folder: Path, **sampling: Any) -> str:
    """A folder of policies with another sampling plan."""
    shutil.copytree(INCLUDE / "policy", folder / "policy")
    path = folder / "policy" / "sampling.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text("utf-8")), **sampling}), "utf-8")
    return str(folder / "policy")


def files_under(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def selected_rows(stage: Stage, night: Any = NIGHT) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(
        stage.root / "crosswalk" / night.isoformat() / "selected.parquet"
    ).to_pylist()
    return rows


def test_plan_tells_what_select_would_choose_and_writes_nothing(stage: Stage, courier: Courier) -> None:
    before = files_under(stage.root)
    told = courier.plan(NIGHT)
    assert files_under(stage.root) == before
    chosen = courier.select(NIGHT)
    assert told.counts == chosen.counts
    assert told.is_new is False
    strata = told.counts["plan"]
    assert isinstance(strata, list)
    assert sum(one["eligible"] for one in strata) == chosen.counts["eligible"]
    assert sum(one["chosen"] for one in strata) == chosen.counts["selected"]
    by_stratum = Counter(row["stratum"] for row in selected_rows(stage) if row["copies"] == 1)
    named = [one for one in strata if not one["stratum"].startswith("(")]
    assert all(by_stratum[one["stratum"]] <= one["chosen"] for one in named)
    # A line a stratum, for people.
    assert all(any(one["stratum"] in line and one["limit"] in line for line in told.lines) for one in strata)
    # What is printed for machines is what stands in the night's folder, too.
    funnel = stage.root / "nights" / NIGHT.isoformat() / "funnel.json"
    assert json.loads(funnel.read_text("utf-8"))["plan"] == strata


def test_plan_names_nobody(stage: Stage, courier: Courier, canaries: list[str]) -> None:
    told = courier.plan(NIGHT)
    text = json.dumps(told.counts) + "\n".join(told.lines)
    assert not [canary for canary in canaries if canary in text]


def test_plan_names_no_stratum_that_few_persons_share(stage: Stage, make_courier: MakeCourier, tmp_path: Path) -> None:
    """A product or a locale may hold anything, also a name: it stands in the plan only when enough persons have it."""
    landing = landing_copy(stage, tmp_path / "landing")
    first, *_ = sorted(landing.glob("clips/recorded_date=2026-11-*/*.parquet"))
    rows = pq.read_table(first, partitioning=None)
    names = pa.array(["Zoe Quillfeather's own"] * rows.num_rows, rows.schema.field("product").type)
    pq.write_table(rows.set_column(rows.schema.get_field_index("product"), "product", names), first)
    told = make_courier(stage, CLIP_COURIER_LANDING=str(landing)).plan(NIGHT)
    assert "Quillfeather" not in json.dumps(told.counts) + "\n".join(told.lines)
    strata = told.counts["plan"]
    assert isinstance(strata, list)
    assert strata[-1]["stratum"] == "(strata of fewer than 5 persons)"
    assert sum(one["eligible"] for one in strata) == told.counts["eligible"]
    assert sum(one["chosen"] for one in strata) == told.counts["selected"]


def test_the_warehouse_has_the_plan_of_a_night(stage: Stage, make_courier: MakeCourier, truth: dict[str, str]) -> None:
    courier = returned(stage, make_courier, truth)
    courier.load()
    counts = json.loads((stage.root / "nights" / NIGHT.isoformat() / "funnel.json").read_text("utf-8"))
    with duckdb.connect(str(stage.root / "warehouse" / "clip_courier.duckdb"), read_only=True) as warehouse:
        rows = warehouse.execute(
            "SELECT stratum, step, reason, clips, hours FROM nights WHERE stratum IS NOT NULL"
        ).fetchall()
    found: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for stratum, step, reason, clips, hours in rows:
        found[stratum][step] = (reason, clips, hours)
    assert found == {
        one["stratum"]: {
            "stratum_eligible": (None, one["eligible"], one["eligible_hours"]),
            "stratum_wanted": (None, None, one["wanted_hours"]),
            "stratum_budget": (one["limit"], None, one["budget_hours"]),
            "stratum_chosen": (None, one["chosen"], one["chosen_hours"]),
        }
        for one in counts["plan"]
    }


def test_no_person_is_heard_for_longer_than_the_plan_allows_over_nights_and_vendors(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path
) -> None:
    seconds = 5
    plan = policy(tmp_path, exposure_seconds=seconds, exposure_days=4, max_duration_ms=5_000)
    heard: Counter[str] = Counter()
    taken = []
    for nth in range(3):
        night = NIGHT + nth * DAY
        courier = make_courier(stage, now=NOW + nth * DAY, CLIP_COURIER_POLICY=plan)
        courier.select(night)
        courier.validate(night)
        courier.manifest(night)
        for path in (stage.root / "crosswalk" / night.isoformat()).glob("*.crosswalk.parquet"):
            for row in pq.read_table(path, columns=["person_ids", "duration_ms"]).to_pylist():
                taken.append(row)
                for person in row["person_ids"]:
                    heard[person] += row["duration_ms"]
    assert len(taken) > 30
    assert max(heard.values()) <= seconds * 1000
    assert courier.plan(night + DAY).counts["overheard"], "by now somebody was heard enough"
    ledger = Ledger(f"sqlite:///{stage.root / 'ledger.sqlite'}")
    beyond = Holdings(Root(stage.root, ""), ledger, NIGHT + 30 * DAY, NOW)
    assert beyond.exposure(3).num_rows == 0, "what is older than the plan's days is forgiven"
    assert {**heard} == dict(zip(*beyond.exposure(60).to_pydict().values(), strict=True))


def test_vendors_never_have_a_larger_share_of_all_clips_than_the_plan_allows(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path
) -> None:
    plan = policy(tmp_path, max_share=0.1)
    with_vendors = 0
    for nth in range(2):
        night = NIGHT + nth * DAY
        courier = make_courier(stage, now=NOW + nth * DAY, CLIP_COURIER_POLICY=plan)
        counts = courier.select(night).counts
        courier.validate(night)
        courier.manifest(night)
        with_vendors += len(list(selected_rows(stage, night)))
        assert with_vendors <= 0.1 * counts["clips"] + 2, "an id that stands twice is one clip in two rows"
        assert nth or {one["limit"] for one in counts["plan"]} == {"share"}
    assert with_vendors > 10


def test_overlap_goes_to_two_vendors_and_what_is_withheld_shows_no_hypothesis(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path
) -> None:
    plan = policy(tmp_path, overlap_share=1.0, withheld_share=0.5)
    courier = make_courier(stage, CLIP_COURIER_POLICY=plan)
    courier.select(NIGHT)
    courier.validate(NIGHT)
    courier.manifest(NIGHT)
    private = stage.root / "crosswalk" / NIGHT.isoformat()
    rows = [row for path in private.glob("*.crosswalk.parquet") for row in pq.read_table(path).to_pylist()]
    vendors_of = defaultdict(set)
    for row in rows:
        vendors_of[row["clip_id"]].add(row["batch_id"].split("-")[0])
    two = {clip_id for clip_id, vendors in vendors_of.items() if len(vendors) == 2}
    assert two == {row["clip_id"] for row in rows if (row["country"], row["locale"]) == ("GB", "en-GB")}
    assert len(two) >= 2
    assert {row["is_withheld"] for row in rows} == {True, False}
    for row in rows:
        assert (row["shown_hypotheses"] is None) == (row["is_withheld"] or row["hypotheses"] is None)
    for path in (stage.root / "nights" / NIGHT.isoformat()).rglob("manifest.parquet"):
        shown = {row["clip_ref"]: row["hypotheses"] for row in pq.read_table(path).to_pylist()}
        assert all(
            (shown[row["clip_ref"]] is None) == (row["shown_hypotheses"] is None)
            for row in rows
            if row["clip_ref"] in shown
        )
    # The other night takes none of them, overlap or not.
    again = make_courier(stage, now=NOW + DAY, CLIP_COURIER_POLICY=plan)
    again.select(NIGHT + DAY)
    assert not {row["clip_id"] for row in selected_rows(stage, NIGHT + DAY)} & set(vendors_of)


def reach(**strata: tuple[int, int]) -> pa.Table:
    """Strata of (clips, length in ms), none of which competes with another."""
    rows = [
        {"stratum": name, "billed_ms": ms, "weight": 1.0, "rivals": 1, "clips": n, "duration_ms": n * ms}
        for name, (n, ms) in sorted(strata.items())
    ]
    return pa.Table.from_pylist(rows, REACH)


def hours_of(plan: Sampling, spread: dict[str, float] | None = None, **strata: tuple[int, int]) -> dict[str, float]:
    found = planned(reach(**strata), lambda _: {}, spread or {}, 10**9, plan)
    return {one.name: one.budget_ms / 3_600_000 for one in found}


def test_hours_are_shared_out_as_the_plan_says() -> None:
    strata = {"a": (36_000, 10_000), "b": (9_000, 10_000), "c": (36_000, 2_500)}  # 100, 25 and 25 hours
    plan = Sampling(hours_per_night=15, hours_per_stratum=Hours(ceiling=100))
    assert hours_of(plan, **strata) == pytest.approx({"a": 10, "b": 2.5, "c": 2.5}, abs=1e-3)
    root = plan.model_copy(update={"allocation": "sqrt"})
    assert hours_of(root, **strata) == pytest.approx({"a": 7.5, "b": 3.75, "c": 3.75}, abs=1e-3)
    # Clips ∝ N S / √length: of b and c, alike in hours, c has four times the clips, so it gets twice the hours.
    neyman = plan.model_copy(update={"allocation": "neyman"})
    hours = hours_of(neyman, {"a": 1.0, "b": 1.0, "c": 1.0}, **strata)
    assert hours["c"] == pytest.approx(2 * hours["b"], rel=1e-3)
    assert hours["a"] == pytest.approx(4 * hours["b"], rel=1e-3)
    thrice = hours_of(neyman, {"a": 1.0, "b": 3.0, "c": 1.0}, **strata)
    assert thrice["b"] == pytest.approx(1.5 * thrice["c"], rel=1e-3)
    assert hours_of(neyman, {"b": 1.0}, **strata) == hours_of(neyman, {}, **strata), "unknown ones count as the middle"


def test_floors_and_ceilings_come_before_the_shares() -> None:
    strata = {"a": (36_000, 10_000), "b": (9_000, 10_000), "c": (360, 10_000)}  # 100, 25 and 1 hours
    plan = Sampling(
        hours_per_night=12, hours_per_stratum=Hours(floor=2, ceiling=8), hours_of_stratum={"b": Hours(ceiling=1)}
    )
    # a at its ceiling, b at its own, c whole because there is no more of it.
    assert hours_of(plan, **strata) == pytest.approx({"a": 8, "b": 1, "c": 1}, abs=1e-3)
    limits = {one.name: one.limit for one in planned(reach(**strata), lambda _: {}, {}, 10**9, plan)}
    assert limits == {"a": "ceiling", "b": "ceiling", "c": "supply"}
    small = plan.model_copy(update={"hours_per_night": 5.0, "hours_of_stratum": {}})
    assert hours_of(small, **strata) == pytest.approx({"a": 2, "b": 2, "c": 1}, abs=1e-3)
    with pytest.raises(SettingsInvalid, match=r"floors need 5\.00 hours, hours_per_night is 4"):
        hours_of(plan.model_copy(update={"hours_per_night": 4.0, "hours_of_stratum": {}}), **strata)
