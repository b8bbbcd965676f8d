"""Clip Courier's own.

`pass` judges the landing zone alone, from nothing; `night` is all that `validate` does of it, with Great Expectations
and Data Docs; `again` is the pass of a night on which one partition of all is new; `sample` is the part of `validate`
that judges the rows of a sample, but for the recordings.
"""

import json
import shutil
import sys
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa

from clip_courier import quality
from clip_courier.inspection import inspect
from clip_courier.landing import Landing
from clip_courier.model import CLIPS, NightFolder, Root, silent, write_parquet
from clip_courier.pseudonyms import Pseudonyms
from clip_courier.settings import Quality, load_settings
from clip_courier.tables import Tables
from sampling.world import DAYS, NIGHT

PSEUDONYMS = Pseudonyms("bench", b"k" * 32)
OLDEST = NIGHT - timedelta(days=DAYS + 1)
# All rows of the sample may be bad: what is measured is the judging.
QUALITY = Quality.model_validate({"max_rejected_share": 1.0})


def main() -> None:
    what, world, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    folder = Root(target, str(world)).night(NIGHT)
    if what == "make-sample":
        _make_sample(world, folder, int(sys.argv[4]))
        return
    if what == "again":
        next(iter(folder.root.inspected.iterdir())).unlink()
    elif what != "sample":
        shutil.rmtree(target, ignore_errors=True)
    if what == "night":
        write_parquet(_selected([]), folder.selected)
    if what in ("night", "sample"):
        told = quality.validate(folder, _given(world if what == "night" else target / "empty")).counts
        counts = {rule["reason"]: rule["rows"] for rule in told["landing_rules"] if rule["rows"]}
        said = {"counts": counts} if what == "night" else {"rows": told["rows"], "rejected": told["rejected"]}
    else:
        landing = Landing(str(world))
        inspected = inspect(folder, landing, OLDEST, QUALITY.over(), PSEUDONYMS, silent)
        said = {"counts": {r: inspected.of(r) for r in inspected.broken if inspected.of(r)}}
    print(json.dumps({"library": "clip-courier", **said}))


def _given(landing: Path) -> quality.Validation:
    if landing.name == "empty":
        # One partition without a row; and no recording is listened to.
        write_parquet(CLIPS.empty_table(), landing / "clips" / f"recorded_date={date(2026, 11, 1)}" / "a.parquet")
        quality._probe = (
            lambda rows, *_: pa.table(  # type: ignore[assignment]
                [rows["row"], *(pa.nulls(rows.num_rows, f.type) for f in list(quality._PROBED)[1:])],
                schema=quality._PROBED,
            )
        )
    policy = replace(load_settings({}).policy(), quality=QUALITY)
    return quality.Validation(Landing(str(landing)), policy, PSEUDONYMS, OLDEST)


def _make_sample(world: Path, folder: NightFolder, rows: int) -> None:
    """Rows of the world as `select` would write them."""
    shutil.rmtree(folder.root.path, ignore_errors=True)
    with Tables() as tables:
        tables.view("clips", sorted((world / "clips").glob("*/*.parquet")))
        statement = Path(__file__).with_name("sample.sql").read_text(encoding="utf-8")
        chosen = tables._connection.sql(statement, params={"rows": rows}).to_arrow_table()
    write_parquet(chosen, folder.selected)


def _selected(rows: list[object]) -> pa.Table:
    return pa.Table.from_pylist(rows, pa.schema([("row", pa.int64()), ("clip_key", pa.string())]))


if __name__ == "__main__":
    main()
