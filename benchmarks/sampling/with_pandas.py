"""The same sample in pandas, as a user would write it: whole columns, Arrow-backed, merges and as-of merges."""

import numpy as np
import pandas as pd
import pyarrow as pa
from sampling.task import Answer, Task, answered

from clip_courier.model import PURPOSE

_NEEDED = ["clip_id", "product", "activation", "locale", "country", "recorded_at", "duration_ms"]


def sample(task: Task) -> Answer:
    judged = _judged(task)
    funnel = judged["reason"].fillna("eligible").value_counts().to_dict()
    funnel["too_old"] = funnel.get("too_old", 0) + task.clips_outside()
    return Answer(
        funnel, pa.table({"clip_id": pa.array([], pa.string()), "inclusion_probability": pa.array([], pa.float64())})
    )


def _read(files: list[str], columns: list[str], **options: object) -> pd.DataFrame:
    return pd.concat(
        [pd.read_parquet(f, columns=columns, dtype_backend="pyarrow", **options) for f in files], ignore_index=True
    )


def _judged(task: Task) -> pd.DataFrame:
    """Every clip of the window with the first reason that keeps it out, or null."""
    clips = _read(task.clip_files(), [*_NEEDED, "participants"], partitioning=None)
    heard = clips["participants"].explode().struct.field("person_id").rename("person_id")
    clips["reason"] = _basic_reason(task, clips, heard)
    heard = heard[clips["reason"].isna().reindex(heard.index)].rename_axis("clip_no").reset_index().drop_duplicates()
    personal = _verdicts(task, heard.assign(recorded_at=clips["recorded_at"].reindex(heard["clip_no"]).array))
    clips["reason"] = clips["reason"].fillna(personal.reindex(clips.index))
    taken = _read(task.files("delivered"), ["clip_id", "is_recalled"]).set_index("clip_id")["is_recalled"]
    before = clips["clip_id"].map(taken).map({True: "recalled", False: "already_delivered"})
    clips["reason"] = clips["reason"].fillna(before)
    return clips


def _first_that_holds(index: pd.Index, reasons: dict[str, pd.Series]) -> pd.Series:
    conditions = [is_so.fillna(value=False).to_numpy(dtype=bool) for is_so in reasons.values()]
    return pd.Series(np.select(conditions, list(reasons), default=""), index=index).replace("", None)


def _basic_reason(task: Task, clips: pd.DataFrame, heard: pd.Series) -> pd.Series:
    plan = task.sampling
    # An empty list explodes to one null, as a null does.
    is_unknown = heard.isna().groupby(level=0).any()
    return _first_that_holds(
        clips.index,
        {
            "malformed": clips[_NEEDED].isna().any(axis=1),
            "unknown_participant": is_unknown,
            "accidental": clips["activation"] == "accidental",
            "future": clips["recorded_at"] > task.now,
            "too_old": clips["recorded_at"] < task.oldest,
            "too_short": clips["duration_ms"] < plan.min_duration_ms,
            "too_long": clips["duration_ms"] > plan.max_duration_ms,
        },
    )


def _verdicts(task: Task, heard: pd.DataFrame) -> pd.Series:
    """By clip_no: what the participants of a clip have against it."""
    events = _events(task)
    events = events[events["person_id"].isin(heard["person_id"].unique())]
    withdrawn = events[~events["is_grant"]].groupby("person_id")["occurred_at"].max().rename("withdrawn_at")
    persons = _read(task.files("persons"), ["person_id", "birth_year", "has_guardian_consent", "is_restricted"])
    latest = pd.merge_asof(
        heard.sort_values("recorded_at"),
        # On equal times a withdrawal comes last, and the last one counts.
        events.sort_values(["occurred_at", "is_grant"], ascending=[True, False]),
        left_on="recorded_at",
        right_on="occurred_at",
        by="person_id",
    )
    latest = latest.merge(withdrawn, on="person_id", how="left").merge(persons, on="person_id", how="left")
    is_young = (latest["recorded_at"].dt.year - latest["birth_year"] <= 18).fillna(
        value=task.sampling.birth_year_required
    )
    is_granted = latest["is_granted"].fillna(value=False)
    against = pd.DataFrame(
        {
            "restricted": latest["is_restricted"].fillna(value=False),
            "minor": is_young & ~latest["has_guardian_consent"].fillna(value=False),
            "not_consented": ~is_granted,
            "withdrawn": is_granted & (latest["withdrawn_at"] >= latest["occurred_at"]).fillna(value=False),
        }
    ).astype(bool)
    of_clip = against.groupby(latest["clip_no"]).any()
    return _first_that_holds(of_clip.index, dict(of_clip.items()))


def _events(task: Task) -> pd.DataFrame:
    """What was said about our purpose and is known: person_id, occurred_at, is_grant, and whether it grants anything."""
    columns = ["person_id", "decision", "notice_version", "occurred_at", "received_at"]
    events = _read(task.files("consent_events"), columns, filters=[("purpose", "==", PURPOSE)])
    events = events[events["received_at"] <= task.now]
    is_grant = events["decision"] == "granted"
    effective_from = events["notice_version"].map({v: n.effective_from for v, n in task.disclosing.items()})
    is_disclosed = (effective_from <= events["occurred_at"]).fillna(value=False)
    return events[["person_id", "occurred_at"]].assign(is_grant=is_grant, is_granted=is_grant & is_disclosed)


if __name__ == "__main__":
    answered(sample, f"pandas {pd.__version__}")
