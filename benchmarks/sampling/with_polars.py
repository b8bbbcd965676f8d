"""The same sample in Polars, as a user who knows it well would write it: lazy scans, streaming, as-of joins."""

from collections.abc import Mapping

import polars as pl
import polars_hash as plh
import pyarrow as pa

from clip_courier.model import PURPOSE
from sampling.task import Answer, Task, answered


def sample(task: Task) -> Answer:
    judged = _judged(task).cache()
    counted = judged.group_by("reason").len()
    wanted = ["clip_no", "clip_id", "stratum", "duration_ms", "person_ids"]
    eligible = judged.filter(pl.col("reason").is_null()).select(wanted)
    found, clips = pl.collect_all([counted, eligible], engine="streaming")
    funnel = {reason or "eligible": n for reason, n in found.iter_rows()}
    funnel["too_old"] = funnel.get("too_old", 0) + task.clips_outside()
    return Answer(funnel, _drawn(task, _thinned(task, clips), task.most_clips(funnel)).to_arrow())


def _judged(task: Task) -> pl.LazyFrame:
    """Every clip of the window with the first reason that keeps it out, or none."""
    clips = _clips(task)
    heard = (
        clips.filter(pl.col("reason").is_null())
        .select("clip_no", "recorded_at", person_id="person_ids")
        .explode("person_id", empty_as_null=True)
    )
    taken = pl.scan_parquet(task.delivered_files()).select("clip_id", "is_recalled")
    personal = pl.col("personal_reason").is_not_null()
    return (
        clips.join(_verdicts(task, heard), on="clip_no", how="left")
        .join(taken, on="clip_id", how="left")
        .with_columns(
            reason=pl.when(pl.col("reason").is_not_null() | ~(personal | pl.col("is_recalled").is_not_null()))
            .then("reason")
            .when(personal)
            .then("personal_reason")
            .when("is_recalled")
            .then(pl.lit("recalled"))
            .otherwise(pl.lit("already_delivered"))
        )
    )


def _clips(task: Task) -> pl.LazyFrame:
    plan = task.sampling
    needed = ["clip_id", "product", "activation", "locale", "country", "recorded_at", "duration_ms"]
    people = pl.col("participants")
    return (
        pl.scan_parquet(task.clip_files(), hive_partitioning=False)
        .select(*needed, person_ids=people.list.eval(pl.element().struct.field("person_id")))
        .with_row_index("clip_no")
        .with_columns(
            person_ids=pl.col("person_ids").list.unique(maintain_order=True),
            stratum=pl.concat_str("product", pl.lit(" × "), "locale"),
            reason=pl.when(pl.any_horizontal(pl.col(needed).is_null()))
            .then(pl.lit("malformed"))
            .when((pl.col("person_ids").list.len().fill_null(0) == 0) | pl.col("person_ids").list.contains(None))
            .then(pl.lit("unknown_participant"))
            .when(pl.col("activation") == "accidental")
            .then(pl.lit("accidental"))
            .when(pl.col("recorded_at") > task.now)
            .then(pl.lit("future"))
            .when(pl.col("recorded_at") < task.oldest)
            .then(pl.lit("too_old"))
            .when(pl.col("duration_ms") < plan.min_duration_ms)
            .then(pl.lit("too_short"))
            .when(pl.col("duration_ms") > plan.max_duration_ms)
            .then(pl.lit("too_long")),
        )
    )


def _verdicts(task: Task, heard: pl.LazyFrame) -> pl.LazyFrame:
    """clip_no, personal_reason: what the participants of a clip have against it."""
    listeners = heard.select("person_id").unique()
    persons = pl.scan_parquet(task.files("persons")).join(listeners, on="person_id", how="semi")
    events = _events(task).join(listeners, on="person_id", how="semi")
    withdrawn = events.filter(~pl.col("is_grant")).group_by("person_id").agg(withdrawn_at=pl.col("occurred_at").max())
    known_year = pl.col("birth_year").is_not_null()
    return (
        heard.sort("recorded_at")
        .join_asof(
            events.sort("occurred_at", "is_grant", descending=[False, True]),
            left_on="recorded_at",
            right_on="occurred_at",
            by="person_id",
            coalesce=False,
            check_sortedness=False,
        )
        .join(withdrawn, on="person_id", how="left")
        .join(persons, on="person_id", how="left")
        .with_columns(
            is_granted=pl.col("is_granted").fill_null(False),
            is_restricted=pl.col("is_restricted").fill_null(False),
            is_minor=~pl.col("has_guardian_consent").fill_null(False)
            & pl.when(known_year)
            .then(pl.col("recorded_at").dt.year() - pl.col("birth_year") <= 18)
            .otherwise(task.sampling.birth_year_required),
            is_withdrawn=(pl.col("withdrawn_at") >= pl.col("occurred_at")).fill_null(False),
        )
        .group_by("clip_no")
        .agg(
            pl.col("is_restricted", "is_minor").any(),
            pl.col("is_granted").all(),
            is_withdrawn=(pl.col("is_granted") & pl.col("is_withdrawn")).any(),
        )
        .select(
            "clip_no",
            personal_reason=pl.when("is_restricted")
            .then(pl.lit("restricted"))
            .when("is_minor")
            .then(pl.lit("minor"))
            .when(~pl.col("is_granted"))
            .then(pl.lit("not_consented"))
            .when("is_withdrawn")
            .then(pl.lit("withdrawn")),
        )
    )


def _events(task: Task) -> pl.LazyFrame:
    """What is known to be said about our purpose: person_id, occurred_at, is_grant, is_granted (whether it counts)."""
    notices = pl.LazyFrame(
        {
            "notice_version": list(task.disclosing),
            "effective_from": [n.effective_from for n in task.disclosing.values()],
        },
        schema={"notice_version": pl.String, "effective_from": pl.Datetime("us", "UTC")},
    )
    return (
        pl.scan_parquet(task.files("consent_events"))
        .filter(pl.col("purpose") == PURPOSE, pl.col("received_at") <= task.now)
        .join(notices, on="notice_version", how="left")
        .select(
            "person_id",
            "occurred_at",
            is_grant=pl.col("decision") == "granted",
            is_granted=(pl.col("decision") == "granted")
            & (pl.col("effective_from") <= pl.col("occurred_at")).fill_null(False),
        )
    )


def _lot(key: str) -> pl.Expr:
    """The number that the product gives a clip: MD5, read as a little-endian number, of which 64 bits are enough."""
    digest = plh.concat_str(pl.lit(key), pl.col("clip_id")).nchash.md5()
    return digest.str.slice(16).str.decode("hex").bin.reinterpret(dtype=pl.UInt64, endianness="little")


def _thinned(task: Task, clips: pl.DataFrame) -> pl.DataFrame:
    """Phase 1: of each clip its rivals, whether it survives, and a cell (null where it has no rivals)."""
    cap = task.sampling.clips_per_person
    clips = clips.with_columns(billed_ms=((pl.col("duration_ms") + 499) // 500 * 500).cast(pl.Int64))
    cells = (
        clips.lazy()
        .select("clip_no", "clip_id", "stratum", "duration_ms", person_id="person_ids")
        .with_columns(place=pl.int_ranges(pl.col("person_id").list.len()))
        .explode("person_id", "place", empty_as_null=True)
        .filter(pl.len().over("person_id") > cap)
        .sort("person_id", "stratum", "duration_ms", "clip_id")
        .with_columns(person_no=pl.col("person_id").rle_id())
        .with_columns(rank=pl.int_range(pl.len()).over("person_no"), clips=pl.len().over("person_no"))
        .select(
            "clip_no",
            "place",
            cell=pl.col("person_no") * cap + pl.col("rank") * cap // pl.col("clips"),
            lot=_lot(task.key("person")),
        )
        .with_columns(clips=pl.len().over("cell"), is_lowest=pl.col("lot") == pl.col("lot").min().over("cell"))
    )
    rivals = (
        cells.group_by("clip_no")
        .agg(
            pl.col("clips").sum(),
            is_kept=pl.col("is_lowest").all(),
            # That of whoever is listed first.
            cell=pl.col("cell").sort_by("place").first(),
            pair=pl.col("cell").sort().unique(maintain_order=True),
        )
        # Clips that are rivals in both cells count once. More than two participants there are not in these worlds.
        .with_columns(shared=pl.when(pl.col("pair").list.len() > 1).then(pl.len().over("pair")).otherwise(0))
        .select("clip_no", "is_kept", "cell", rivals=(pl.col("clips") - pl.col("shared")).cast(pl.Int64))
        .collect()
    )
    return clips.join(rivals, on="clip_no", how="left").with_columns(
        pl.col("is_kept").fill_null(True), pl.col("rivals").fill_null(1), weight=pl.lit(1.0)
    )


def _drawn(task: Task, clips: pl.DataFrame, most_clips: int) -> pl.DataFrame:
    """Phase 2: clip_id, inclusion_probability of the chosen."""
    group = ["stratum", "billed_ms", "weight", "rivals"]
    reach = (
        clips.group_by(group)
        .agg(
            clips=pl.len().cast(pl.Int64),
            kept=pl.col("is_kept").sum().cast(pl.Int64),
            duration_ms=pl.col("duration_ms").sum().cast(pl.Int64),
        )
        .sort(group)
    )
    rivalling = clips.filter(pl.col("cell").is_not_null())
    hit, budget = task.drawn_of_groups(_strings(reach), lambda level: _variance(rivalling, level), most_clips)
    return (
        clips.lazy()
        .filter("is_kept")
        .join(pl.from_arrow(hit).lazy(), on=group)
        .join(pl.from_arrow(budget).lazy(), on="stratum")
        .with_columns(lot=_lot(task.key("stratum")))
        .sort("group_no", "lot", "duration_ms")
        .filter(pl.int_range(pl.len()).over("group_no") < pl.col("hits"))
        .sort("clip_id", "stratum", "duration_ms", "group_no")
        .unique("clip_id", keep="first", maintain_order=True)
        .sort("lot", "clip_id")
        .filter(pl.col("duration_ms").cast(pl.Int64).cum_sum().over("stratum") <= pl.col("budget_ms"))
        .head(most_clips)
        .select("clip_id", inclusion_probability="probability")
        .collect()
    )


def _strings(frame: pl.DataFrame) -> pa.Table:
    """Arrow's plain strings, which numpy reads; Polars has views."""
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _variance(clips: pl.DataFrame, level: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """How far the length and the clips of each stratum vary with the outcome of the thinning; as in variance.sql."""
    rivals, q = pl.col("rivals"), pl.min_horizontal(1.0, pl.col("level") * pl.col("weight") * pl.col("rivals"))
    levels = pl.LazyFrame(
        {"stratum": list(level), "level": list(level.values())}, {"stratum": pl.String, "level": pl.Float64}
    )
    rows = (
        clips.lazy()
        .join(levels, on="stratum")
        .with_columns(q=q)
        .select(
            "stratum",
            "cell",
            billed_2=(pl.col("q") * pl.col("billed_ms")) ** 2 / rivals,
            billed_1=pl.col("q") * pl.col("billed_ms") / rivals,
            clips_2=pl.col("q") ** 2 / rivals,
            clips_1=pl.col("q") / rivals,
        )
        .group_by("stratum", "cell")
        .sum()
        .group_by("stratum")
        .agg(*((pl.col(f"{c}_2") - pl.col(f"{c}_1").pow(2)).clip(0).sum().alias(c) for c in ("billed", "clips")))
        .collect()
    )
    return {stratum: (billed, clips) for stratum, billed, clips in rows.iter_rows()}


if __name__ == "__main__":
    answered(sample, f"polars {pl.__version__}")
