"""The same sample in PySpark on this machine (`local[2]`), as a user would write it: frames, no Python functions."""

from collections.abc import Mapping

import pyspark
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as f

from clip_courier.model import PURPOSE
from sampling.task import Answer, Task, answered

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
    eligible = judged.where(f.col("reason").isNull()).select(
        "clip_no", "clip_id", "stratum", "duration_ms", "person_ids"
    )
    chosen = _drawn(spark, task, _thinned(task, eligible).persist(), task.most_clips(funnel)).toArrow()
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
    taken = spark.read.parquet(*task.delivered_files()).select("clip_id", "is_recalled")
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
    """What is known to be said about our purpose: person_id, occurred_at, is_grant, is_granted (whether it counts)."""
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


def _lot(key: str) -> Column:
    """The number that the product gives a clip, in hex: MD5 read as a little-endian number, so its bytes reversed."""
    digest = f.md5(f.concat(f.lit(key), "clip_id").cast("binary"))
    return f.regexp_replace(f.reverse(digest), "(.)(.)", "$2$1")


def _thinned(task: Task, clips: DataFrame) -> DataFrame:
    """Phase 1: of each clip its rivals, whether it survives, and a cell (null where it has no rivals)."""
    cap = task.sampling.clips_per_person
    of_person, of_cell = Window.partitionBy("person_id"), Window.partitionBy("person_id", "number")
    ranked = of_person.orderBy("stratum", "duration_ms", "clip_id")
    cell = f.struct("person_id", "number")
    cells = (
        clips.select(
            "clip_no", "clip_id", "stratum", "duration_ms", f.posexplode("person_ids").alias("place", "person_id")
        )
        .withColumn("clips", f.count("*").over(of_person))
        .where(f.col("clips") > cap)
        .withColumn("number", f.floor((f.row_number().over(ranked) - 1) * cap / f.col("clips")))
        .withColumn("lot", _lot(task.key("person")))
        .withColumn("in_cell", f.count("*").over(of_cell))
        .withColumn("is_lowest", f.col("lot") == f.min("lot").over(of_cell))
    )
    rivals = (
        cells.groupBy("clip_no")
        .agg(
            f.sum("in_cell").alias("in_cells"),
            f.bool_and("is_lowest").alias("is_kept"),
            # That of whoever is listed first.
            f.min_by(cell, "place").alias("cell"),
            f.array_sort(f.collect_set(cell)).alias("pair"),
        )
        # Clips that are rivals in both cells count once. More than two participants there are not in these worlds.
        .withColumn("shared", f.count("*").over(Window.partitionBy("pair")))
        .withColumn("rivals", f.col("in_cells") - f.when(f.size("pair") > 1, f.col("shared")).otherwise(0))
        .select("clip_no", "is_kept", "cell", "rivals")
    )
    return clips.join(rivals, "clip_no", "left").select(
        "clip_id",
        "stratum",
        "duration_ms",
        "cell",
        (f.ceil(f.col("duration_ms") / 500) * 500).alias("billed_ms"),
        f.lit(1.0).alias("weight"),
        f.coalesce("rivals", f.lit(1)).alias("rivals"),
        f.coalesce("is_kept", f.lit(True)).alias("is_kept"),
    )


def _drawn(spark: SparkSession, task: Task, clips: DataFrame, most_clips: int) -> DataFrame:
    """Phase 2: clip_id, inclusion_probability of the chosen."""
    group = ["stratum", "billed_ms", "weight", "rivals"]
    reach = clips.groupBy(*group).agg(
        f.count("*").alias("clips"), f.count_if("is_kept").alias("kept"), f.sum("duration_ms").alias("duration_ms")
    )
    ordered = reach.toArrow().sort_by([(name, "ascending") for name in group])
    rivalling = clips.where(f.col("cell").isNotNull())
    hit, budget = task.drawn_of_groups(ordered, lambda level: _variance(spark, rivalling, level), most_clips)
    lowest = Window.partitionBy("group_no").orderBy("lot", "duration_ms")
    copies = Window.partitionBy("clip_id").orderBy("stratum", "duration_ms", "group_no")
    heard = Window.partitionBy("stratum").orderBy("lot", "clip_id").rowsBetween(Window.unboundedPreceding, 0)
    return (
        clips.drop("cell")
        .where("is_kept")
        .join(f.broadcast(spark.createDataFrame(hit)), group)
        .join(f.broadcast(spark.createDataFrame(budget)), "stratum")
        .withColumn("lot", _lot(task.key("stratum")))
        .withColumn("place", f.row_number().over(lowest))
        .where(f.col("place") <= f.col("hits"))
        .withColumn("copy", f.row_number().over(copies))
        .where(f.col("copy") == 1)
        .withColumn("heard_ms", f.sum("duration_ms").over(heard))
        .where(f.col("heard_ms") <= f.col("budget_ms"))
        .orderBy("lot", "clip_id")
        .limit(most_clips)
        .select("clip_id", f.col("probability").alias("inclusion_probability"))
    )


def _variance(spark: SparkSession, clips: DataFrame, level: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """How far the length and the clips of each stratum vary with the outcome of the thinning; as in variance.sql."""
    levels = spark.createDataFrame(list(level.items()), "stratum string, level double")
    q, rivals, billed = f.col("q"), f.col("rivals"), f.col("billed_ms")
    rows = (
        clips.join(f.broadcast(levels), "stratum")
        .withColumn("q", f.least(f.lit(1.0), f.col("level") * f.col("weight") * rivals))
        .groupBy("stratum", "cell")
        .agg(
            f.sum(q * billed * q * billed / rivals).alias("billed_square"),
            f.sum(q * billed / rivals).alias("billed_mean"),
            f.sum(q * q / rivals).alias("clips_square"),
            f.sum(q / rivals).alias("clips_mean"),
        )
        .groupBy("stratum")
        .agg(*(f.sum(_above_zero(f"{name}_square", f"{name}_mean")).alias(name) for name in ("billed", "clips")))
    )
    return {row["stratum"]: (row["billed"], row["clips"]) for row in rows.collect()}


def _above_zero(square: str, mean: str) -> Column:
    return f.greatest(f.col(square) - f.col(mean) * f.col(mean), f.lit(0.0))


if __name__ == "__main__":
    answered(sample, f"pyspark {pyspark.__version__}")
