"""The same sample in pandas, as a user would write it: whole columns, Arrow-backed, merges and as-of merges."""

import hashlib
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa

from clip_courier.model import PURPOSE
from sampling.task import Answer, Task, answered

_NEEDED = ["clip_id", "product", "activation", "locale", "country", "recorded_at", "duration_ms"]


def sample(task: Task) -> Answer:
    judged, heard = _judged(task)
    funnel = judged["reason"].fillna("eligible").value_counts().to_dict()
    funnel["too_old"] = funnel.get("too_old", 0) + task.clips_outside()
    clips = judged.loc[judged["reason"].isna(), ["clip_id", "duration_ms"]]
    clips = clips.assign(stratum=judged["product"] + " × " + judged["locale"])
    heard = heard[heard["clip_no"].isin(clips.index)]
    chosen = _drawn(task, _thinned(task, clips, heard), task.most_clips(funnel))
    return Answer(funnel, pa.Table.from_pandas(chosen, preserve_index=False))


def _read(files: list[str], columns: list[str], **options: object) -> pd.DataFrame:
    return pd.concat(
        [pd.read_parquet(f, columns=columns, dtype_backend="pyarrow", **options) for f in files], ignore_index=True
    )


def _judged(task: Task) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every clip of the window with the first reason that keeps it out, or null; and who is audible in which."""
    clips = _read(task.clip_files(), [*_NEEDED, "participants"], partitioning=None)
    heard = clips["participants"].explode().struct.field("person_id").rename("person_id")
    clips["reason"] = _basic_reason(task, clips, heard)
    heard = heard[clips["reason"].isna().reindex(heard.index)].rename_axis("clip_no").reset_index().drop_duplicates()
    personal = _verdicts(task, heard.assign(recorded_at=clips["recorded_at"].reindex(heard["clip_no"]).array))
    clips["reason"] = clips["reason"].fillna(personal.reindex(clips.index))
    taken = _read(task.delivered_files(), ["clip_id", "is_recalled"]).set_index("clip_id")["is_recalled"]
    before = clips["clip_id"].map(taken).map({True: "recalled", False: "already_delivered"})
    clips["reason"] = clips["reason"].fillna(before)
    return clips, heard


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
    """What is known to be said about our purpose: person_id, occurred_at, is_grant, is_granted (whether it counts)."""
    columns = ["person_id", "decision", "notice_version", "occurred_at", "received_at"]
    events = _read(task.files("consent_events"), columns, filters=[("purpose", "==", PURPOSE)])
    events = events[events["received_at"] <= task.now]
    is_grant = events["decision"] == "granted"
    effective_from = events["notice_version"].map({v: n.effective_from for v, n in task.disclosing.items()})
    is_disclosed = (effective_from <= events["occurred_at"]).fillna(value=False)
    return events[["person_id", "occurred_at"]].assign(is_grant=is_grant, is_granted=is_grant & is_disclosed)


def _lot(key: str, clip_ids: pd.Series) -> np.ndarray:
    """The number that the product gives a clip: MD5, read as a little-endian number, of which 64 bits are enough."""
    digests = b"".join(hashlib.md5((key + clip_id).encode()).digest() for clip_id in clip_ids)  # noqa: S324
    return np.frombuffer(digests, dtype="<u8")[1::2]


def _thinned(task: Task, clips: pd.DataFrame, heard: pd.DataFrame) -> pd.DataFrame:
    """Phase 1: of each clip its rivals, whether it survives, and a cell (null where it has no rivals)."""
    cap = task.sampling.clips_per_person
    clips["billed_ms"] = (clips["duration_ms"] + 499) // 500 * 500
    clips["weight"] = 1.0
    heard = heard.assign(place=heard.groupby("clip_no").cumcount())
    heard = heard[heard.groupby("person_id")["clip_no"].transform("size") > cap]
    cells = heard.merge(clips, left_on="clip_no", right_index=True)
    cells = cells.sort_values(["person_id", "stratum", "duration_ms", "clip_id"])
    of_person = cells.groupby("person_id", sort=True)
    cells["cell"] = of_person.ngroup() * cap + of_person.cumcount() * cap // of_person["clip_no"].transform("size")
    cells["lot"] = _lot(task.key("person"), cells["clip_id"])
    of_cell = cells.groupby("cell")["lot"]
    cells["clips"], cells["is_lowest"] = of_cell.transform("size"), cells["lot"] == of_cell.transform("min")
    rivals = cells.groupby("clip_no").agg(
        rivals=("clips", "sum"), is_kept=("is_lowest", "all"), low=("cell", "min"), high=("cell", "max")
    )
    # That of whoever is listed first.
    rivals["cell"] = cells.sort_values("place").groupby("clip_no")["cell"].first()
    # Clips that are rivals in both cells count once. More than two participants there are not in these worlds.
    shared = rivals.groupby(["low", "high"])["rivals"].transform("size")
    rivals["rivals"] -= shared.where(rivals["low"] != rivals["high"], 0)
    clips = clips.join(rivals[["rivals", "is_kept", "cell"]])
    clips["rivals"] = clips["rivals"].fillna(1).astype("int64")
    clips["is_kept"] = clips["is_kept"].fillna(value=True).astype(bool)
    return clips


def _drawn(task: Task, clips: pd.DataFrame, most_clips: int) -> pd.DataFrame:
    """Phase 2: clip_id, inclusion_probability of the chosen."""
    group = ["stratum", "billed_ms", "weight", "rivals"]
    reach = clips.groupby(group, sort=True, as_index=False).agg(
        clips=("clip_id", "size"), kept=("is_kept", "sum"), duration_ms=("duration_ms", "sum")
    )
    rivalling = clips[clips["cell"].notna()]
    hit, budget = task.drawn_of_groups(
        pa.Table.from_pandas(reach, preserve_index=False), lambda level: _variance(rivalling, level), most_clips
    )
    taken = clips[clips["is_kept"]].merge(hit.to_pandas(types_mapper=pd.ArrowDtype), on=group)
    taken["lot"] = _lot(task.key("stratum"), taken["clip_id"])
    taken = taken.sort_values(["group_no", "lot", "duration_ms"])
    taken = taken[taken.groupby("group_no").cumcount() < taken["hits"]]
    taken = taken.sort_values(["clip_id", "stratum", "duration_ms", "group_no"]).drop_duplicates("clip_id")
    taken = taken.merge(budget.to_pandas(types_mapper=pd.ArrowDtype), on="stratum").sort_values(["lot", "clip_id"])
    taken = taken[taken.groupby("stratum")["duration_ms"].cumsum() <= taken["budget_ms"]].head(most_clips)
    return taken[["clip_id", "probability"]].rename(columns={"probability": "inclusion_probability"})


def _variance(clips: pd.DataFrame, level: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """How far the length and the clips of each stratum vary with the outcome of the thinning; as in variance.sql."""
    rivals, billed = clips["rivals"].to_numpy(), clips["billed_ms"].to_numpy()
    q = np.minimum(1.0, clips["stratum"].map(level).to_numpy() * clips["weight"].to_numpy() * rivals)
    parts = pd.DataFrame(
        {
            "stratum": clips["stratum"],
            "cell": clips["cell"],
            "billed_2": (q * billed) ** 2 / rivals,
            "billed_1": q * billed / rivals,
            "clips_2": q**2 / rivals,
            "clips_1": q / rivals,
        }
    )
    of_cell = parts.groupby(["stratum", "cell"], as_index=False).sum()
    for name in ("billed", "clips"):
        of_cell[name] = (of_cell[f"{name}_2"] - of_cell[f"{name}_1"] ** 2).clip(lower=0)
    sums = of_cell.groupby("stratum")[["billed", "clips"]].sum()
    return {stratum: (billed, clips) for stratum, billed, clips in sums.itertuples()}


if __name__ == "__main__":
    answered(sample, f"pandas {pd.__version__}")
