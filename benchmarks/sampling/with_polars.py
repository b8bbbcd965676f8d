"""The same sample in Polars, as a user who knows it well would write it: lazy scans, streaming, as-of joins."""

import polars as pl
from sampling.task import Answer, Task, answered

from clip_courier.model import PURPOSE


def sample(task: Task) -> Answer:
    judged = _judged(task).cache()
    counted = judged.group_by("reason").len()
    eligible = judged.filter(pl.col("reason").is_null()).select(
        "clip_no", "clip_id", "stratum", "duration_ms", "person_ids"
    )
    found, clips = pl.collect_all([counted, eligible], engine="streaming")
    funnel = {reason or "eligible": n for reason, n in found.iter_rows()}
    funnel["too_old"] = funnel.get("too_old", 0) + task.clips_outside()
    return Answer(funnel, clips.head(0).with_columns(inclusion_probability=pl.lit(0.0)).to_arrow())


def _judged(task: Task) -> pl.LazyFrame:
    """Every clip of the window with the first reason that keeps it out, or none."""
    clips = _clips(task)
    heard = (
        clips.filter(pl.col("reason").is_null())
        .select("clip_no", "recorded_at", person_id="person_ids")
        .explode("person_id", empty_as_null=True)
    )
    taken = pl.scan_parquet(task.files("delivered"))
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
            person_ids=pl.col("person_ids").list.unique(),
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
    """What was said about our purpose and is known: person_id, occurred_at, is_grant, and whether it grants anything."""
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


if __name__ == "__main__":
    answered(sample, f"polars {pl.__version__}")
