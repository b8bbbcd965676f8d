"""The same sample in PySpark on this machine (`local[2]`), as a user would write it: frames, no Python functions."""

import pyspark
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as f
from sampling.task import Answer, Task, answered

from clip_courier.model import PURPOSE

_NEEDED = ["clip_id", "product", "activation", "locale", "country", "recorded_at", "duration_ms"]


def session() -> SparkSession:
    return (
        SparkSession.builder.master("local[2]")
        .config("spark.driver.memory", "6g")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.session.timeZone", "UTC")
        # Of a hundred thousand to a few million rows a part on a core each is enough; the default is 200.
        .config("spark.sql.shuffle.partitions", "8")
        .getOrCreate()
    )


def sample(task: Task) -> Answer:
    spark = session()
    spark.sparkContext.setLogLevel("ERROR")
    judged = _judged(spark, task).persist()
    funnel = {row["reason"] or "eligible": row["count"] for row in judged.groupBy("reason").count().collect()}
    funnel["too_old"] = funnel.get("too_old", 0) + task.clips_outside()
    chosen = judged.limit(0).select("clip_id", f.lit(0.0).alias("inclusion_probability")).toArrow()
    spark.stop()
    return Answer(funnel, chosen)


def _first_that_holds(reasons: dict[str, Column]) -> Column:
    return f.coalesce(*(f.when(is_so, f.lit(reason)) for reason, is_so in reasons.items()))


def _judged(spark: SparkSession, task: Task) -> DataFrame:
    """Every clip of the window with the first reason that keeps it out, or none."""
    clips = _clips(spark, task).persist()
    heard = clips.where(f.col("basic_reason").isNull()).select(
        "clip_no", "recorded_at", f.explode("person_ids").alias("person_id")
    )
    taken = spark.read.parquet(str(task.world / "delivered"))
    return (
        clips.join(_verdicts(spark, task, heard), "clip_no", "left")
        .join(taken, "clip_id", "left")
        .withColumn(
            "reason",
            f.coalesce(
                "basic_reason",
                "personal_reason",
                f.when(f.col("is_recalled"), "recalled").when(~f.col("is_recalled"), "already_delivered"),
            ),
        )
    )


def _clips(spark: SparkSession, task: Task) -> DataFrame:
    plan = task.sampling
    people = f.array_distinct(f.col("participants.person_id"))
    return (
        spark.read.parquet(*task.clip_files())
        .select(*_NEEDED, people.alias("person_ids"))
        .withColumn("clip_no", f.monotonically_increasing_id())
        .withColumn("stratum", f.concat_ws(" × ", "product", "locale"))
        .withColumn(
            "basic_reason",
            _first_that_holds(
                {
                    "malformed": f.greatest(*(f.col(c).isNull() for c in _NEEDED)),
                    "unknown_participant": f.coalesce(f.size("person_ids") < 1, f.lit(True))
                    | f.exists("person_ids", lambda p: p.isNull()),
                    "accidental": f.col("activation") == "accidental",
                    "future": f.col("recorded_at") > f.lit(task.now),
                    "too_old": f.col("recorded_at") < f.lit(task.oldest),
                    "too_short": f.col("duration_ms") < plan.min_duration_ms,
                    "too_long": f.col("duration_ms") > plan.max_duration_ms,
                }
            ),
        )
    )


def _verdicts(spark: SparkSession, task: Task, heard: DataFrame) -> DataFrame:
    """clip_no, personal_reason: what the participants of a clip have against it."""
    listeners = heard.select("person_id").distinct()
    persons = spark.read.parquet(str(task.world / "persons")).join(listeners, "person_id", "left_semi")
    events = _events(spark, task).join(listeners, "person_id", "left_semi")
    withdrawn = events.where(~f.col("is_grant")).groupBy("person_id").agg(f.max("occurred_at").alias("withdrawn_at"))
    # There is no as-of join: of the events up to the recording the latest; on equal times FALSE, a withdrawal, is kept.
    said = f.when(
        f.col("occurred_at") <= f.col("recorded_at"),
        f.struct("occurred_at", (~f.col("is_grant")).alias("is_withdrawal"), "is_granted"),
    )
    latest = (
        heard.join(events, "person_id", "left")
        .groupBy("clip_no", "person_id", "recorded_at")
        .agg(f.max(said).alias("last"))
        .select(
            "clip_no",
            "person_id",
            "recorded_at",
            "last.occurred_at",
            f.coalesce("last.is_granted", f.lit(False)).alias("is_granted"),
        )
        .join(withdrawn, "person_id", "left")
        .join(persons, "person_id", "left")
    )
    is_young = f.coalesce(f.year("recorded_at") - f.col("birth_year") <= 18, f.lit(task.sampling.birth_year_required))
    is_withdrawn = f.col("is_granted") & f.coalesce(f.col("withdrawn_at") >= f.col("occurred_at"), f.lit(False))
    return (
        latest.groupBy("clip_no")
        .agg(
            f.bool_or(f.coalesce("is_restricted", f.lit(False))).alias("restricted"),
            f.bool_or(is_young & ~f.coalesce("has_guardian_consent", f.lit(False))).alias("minor"),
            f.bool_or(~f.col("is_granted")).alias("not_consented"),
            f.bool_or(is_withdrawn).alias("withdrawn"),
        )
        .select(
            "clip_no",
            _first_that_holds(
                {reason: f.col(reason) for reason in ("restricted", "minor", "not_consented", "withdrawn")}
            ).alias("personal_reason"),
        )
    )


def _events(spark: SparkSession, task: Task) -> DataFrame:
    """What was said about our purpose and is known: person_id, occurred_at, is_grant, and whether it grants anything."""
    notices = spark.createDataFrame(
        [(version, notice.effective_from) for version, notice in task.disclosing.items()],
        "notice_version string, effective_from timestamp",
    )
    is_grant = f.col("decision") == "granted"
    return (
        spark.read.parquet(str(task.world / "consent_events"))
        .where((f.col("purpose") == PURPOSE) & (f.col("received_at") <= f.lit(task.now)))
        .join(f.broadcast(notices), "notice_version", "left")
        .select(
            "person_id",
            "occurred_at",
            is_grant.alias("is_grant"),
            (is_grant & f.coalesce(f.col("effective_from") <= f.col("occurred_at"), f.lit(False))).alias("is_granted"),
        )
    )


if __name__ == "__main__":
    answered(sample, f"pyspark {pyspark.__version__}")
