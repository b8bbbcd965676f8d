"""What comes back, measured: a million returned rows from the vendor's server to the analysts' file, against what one
would write with python-gnupg, pandas and jiwer; and ten million transcripts: erasing a person, building the file again,
asking it.

    .venv/bin/python benchmarks/returns.py [--rows N] [--facts N] [--only returns|facts] [--folder DIR]

Texts are of everyday words, twelve on average, with 14 % errors. CPU seconds are of this process and those that it
started; they are the steadier figure where others work on the same machine.
"""

import argparse
import hashlib
import io
import json
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import wordfreq

from clip_courier import facts, loading, warehouse
from clip_courier.courier import Courier
from clip_courier.ledger import DELIVERED, MANIFESTED, STEPS, WAITING, Batch, Ledger
from clip_courier.model import CLIPS, Root, batch_id_of, stamp, write_parquet
from clip_courier.pgp import OwnKey, open_keyring
from clip_courier.settings import credentials_from, load_settings
from clip_courier_demo.stage import Stage, set_stage

NIGHT = date(2026, 11, 20)
NOW = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
ROWS_A_BATCH = 50_000
WORDS_ON_AVERAGE, WRONG = 12, 0.14
BASE32 = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz234567", dtype="S1")
VENDORS = ("aurora", "borealis")
QUESTIONS = Path(__file__).resolve().parents[1] / "docs" / "questions.md"


@contextmanager
def measured(what: str, rows: int | None = None) -> Iterator[None]:
    """Print wall and CPU seconds of the block, and rows a second."""
    began, cpu = time.perf_counter(), _cpu()
    yield
    wall, used = time.perf_counter() - began, _cpu() - cpu
    rate = f"  {rows / wall:>12,.0f} rows/s" if rows else ""
    print(f"{what:<58} {wall:>8.2f} s wall  {used:>8.2f} s CPU{rate}", flush=True)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def refs(random: np.random.Generator, count: int) -> pa.Array:
    """Refs as pseudonyms are: 32 letters of base32."""
    letters = BASE32[random.integers(0, 32, (count, 32))]
    return pa.array(letters.view("S32").ravel().astype(str).tolist(), pa.string())


def spoken(random: np.random.Generator, count: int) -> tuple[list[str], list[str]]:
    """Pairs of what was said and what was understood."""
    words = np.array([word for word in wordfreq.top_n_list("en", 3000) if word.isalpha()])
    said, understood = [], []
    for length in random.integers(1, 2 * WORDS_ON_AVERAGE, count):
        right = words[(len(words) * random.random(length) ** 3).astype(int)]
        heard = np.where(random.random(length) < WRONG, words[random.integers(0, len(words), length)], right)
        said.append(" ".join(right))
        understood.append(" ".join(heard))
    return said, understood


# -- a million rows, from the vendor's server to the analysts' file -----------------------------------------------


def bench_returns(folder: Path, rows: int) -> None:
    stage = set_stage(folder / "stage", seed=7, clips=60, night=NIGHT, names=["aurora"], prefer="openssh")
    try:
        batches = _deliver(stage, rows)
        _return(stage, batches)
        variables = dict(stage.environ)
        courier = Courier(load_settings(variables), lambda conn_id: credentials_from(variables, conn_id), lambda: NOW)
        with measured("ours: collect (SFTP, verify, decrypt, parse, match)", rows):
            outcome = courier.collect("aurora")
        assert (outcome.counts["accepted"], outcome.counts["rejected"]) == (rows, 0), outcome.counts
        with measured("ours: load (mask, score, publish)", rows):
            counts = courier.load().counts
        assert counts["transcripts"] == rows, counts
        theirs = _as_one_would_write_it(stage, batches, folder / "naive.duckdb", rows)
        with duckdb.connect(str(stage.root / "warehouse" / "clip_courier.duckdb"), read_only=True) as connection:
            ours = connection.execute("SELECT sum(substitutions + deletions + insertions) FROM scores").fetchone()
        print(f"errors counted: ours {ours[0] if ours else None}, theirs {theirs}")
    finally:
        stage.server.stop()


def _deliver(stage: Stage, rows: int) -> list[str]:
    """Batches as `manifest` and `deliver` leave them on our side, without recordings."""
    courier_root = Root(stage.root, "")
    courier_root.prepare()
    ledger, random = Ledger(f"sqlite:///{courier_root.ledger}"), np.random.default_rng(1)
    ids = []
    for sequence, first in enumerate(range(0, rows, ROWS_A_BATCH), start=1):
        count = min(ROWS_A_BATCH, rows - first)
        batch_id = batch_id_of("aurora", NIGHT, sequence)
        said, understood = spoken(random, count)
        one = {"rank": 1, "confidence": 0.9, "engine": "e"}
        crosswalk = pa.table(
            {
                "clip_ref": refs(random, count),
                "clip_key": refs(random, count),
                "batch_id": [batch_id] * count,
                "stratum": ["translator × en-US"] * count,
                "product": ["translator"] * count,
                "locale": ["en-US"] * count,
                "recorded_at": pa.array([NOW - timedelta(days=1)] * count, pa.timestamp("us", tz="UTC")),
                "duration_ms": pa.array(random.integers(800, 9000, count), pa.int32()),
                "inclusion_probability": random.uniform(0.01, 1, count),
                "speaker_key": refs(random, count),
                "hypotheses": pa.array(
                    [[{**one, "text": text}] for text in understood], CLIPS.field("hypotheses").type
                ),
                "shown_hypotheses": pa.array(
                    [[{"rank": 1, "text": text}] for text in understood],
                    pa.list_(pa.struct([("rank", pa.int8()), ("text", pa.string())])),
                ),
                "said": said,
            }
        )
        write_parquet(crosswalk, courier_root.night(NIGHT).crosswalk(batch_id))
        ledger.add_batch(Batch(batch_id, "aurora", NIGHT.isoformat(), MANIFESTED, count, 1000 * count), NOW)
        times = {"delivered_at": stamp(NOW), "due_at": stamp(NOW + timedelta(days=3))}
        for came_from, to in pairwise([*(state for state in STEPS if state in WAITING), DELIVERED]):
            ledger.move(batch_id, came_from, to, NOW, **(times if to == DELIVERED else {}))
        ids.append(batch_id)
    known = [{"language": "en", "word": word} for word in wordfreq.top_n_list("en", 3000) if word.isalpha()]
    write_parquet(pa.Table.from_pylist(known), courier_root.night(NIGHT).vocabulary)
    return ids


def _return(stage: Stage, batches: list[str]) -> None:
    """What the vendor puts on its server: sealed JSON lines and their ready files."""
    vendor = stage.vendors["aurora"]
    with open_keyring(OwnKey(vendor.key.fingerprint, vendor.key.private_key), [vendor.our_public_key]) as keyring:
        for batch_id in batches:
            table = pq.read_table(Root(stage.root, "").night(NIGHT).crosswalk(batch_id), columns=["clip_ref", "said"])
            lines = [
                json.dumps(
                    {
                        "clip_ref": ref,
                        "status": "transcribed",
                        "text": text,
                        "chosen_rank": 1,
                        "annotator_ref": f"t{place % 9}",
                        "submitted_at": stamp(NOW),
                        "revision": 0,
                    }
                )
                for place, (ref, text) in enumerate(zip(*table.to_pydict().values(), strict=True))
            ]
            content = ("\n".join(lines) + "\n").encode()
            sealed = keyring.seal_bytes(content, recipient=vendor.our_fingerprint, at=NOW)
            (vendor.home / "returns" / f"{batch_id}.1.jsonl.pgp").write_bytes(sealed)
            ready = {"size_bytes": len(sealed), "sha256": hashlib.sha256(sealed).hexdigest()}
            (vendor.home / "returns" / f"{batch_id}.1.ready.json").write_text(json.dumps(ready), encoding="utf-8")


def _as_one_would_write_it(stage: Stage, batches: list[str], place: Path, rows: int) -> int | None:
    """python-gnupg, pandas, jiwer and DuckDB in one loop: no masks, no report, no ledger, files already fetched."""
    try:
        import jiwer
    except ImportError:
        print("jiwer is not installed here: the comparison is left out (uv pip install jiwer)")
        return None
    import gnupg
    import pandas as pd

    vendor, errors = stage.vendors["aurora"], 0
    with tempfile.TemporaryDirectory(dir="/tmp") as home, measured("python-gnupg + pandas + jiwer + DuckDB", rows):
        gpg = gnupg.GPG(gnupghome=home)
        gpg.import_keys(stage.our_key.private_key)
        gpg.import_keys(vendor.key.public_key)
        frames = []
        for batch_id in batches:
            opened = gpg.decrypt_file(str(vendor.home / "returns" / f"{batch_id}.1.jsonl.pgp"), always_trust=True)
            assert opened.ok
            assert opened.valid
            returned = pd.read_json(io.StringIO(str(opened)), lines=True)
            crosswalk = pd.read_parquet(Root(stage.root, "").night(NIGHT).crosswalk(batch_id))
            joined = returned.merge(crosswalk, on="clip_ref", how="inner")
            understood = [said[0]["text"] for said in joined["hypotheses"]]
            output = jiwer.process_words(joined["text"].tolist(), understood)
            counts = [
                [sum(chunk.type == kind for chunk in chunks) for kind in ("substitute", "delete", "insert")]
                for chunks in output.alignments
            ]
            joined[["substitutions", "deletions", "insertions"]] = counts
            errors += output.substitutions + output.deletions + output.insertions
            frames.append(joined[["clip_key", "batch_id", "text", "substitutions", "deletions", "insertions"]])
        everything = pd.concat(frames)
        assert len(everything) == rows
        with duckdb.connect(str(place)) as connection:
            connection.execute("CREATE TABLE transcripts AS SELECT * FROM everything")
    return errors


# -- ten million transcripts ------------------------------------------------------------------------------------


def bench_facts(folder: Path, rows: int) -> None:
    root = Root(folder / "root", "")
    random = np.random.default_rng(2)
    persons = refs(random, max(1, rows // 100))
    with measured("making facts (spool, settle: a load of everything)", rows):
        batches = []
        for night in range(1, 11):
            shared = (
                refs(random, rows // 20 // 20),
                persons.take(pa.array(random.integers(0, len(persons), rows // 400))),
            )
            batches += [_facts_of(root, random, persons, rows, night, vendor, shared) for vendor in VENDORS]
        facts.settle(root, batches)
    held = sum(path.stat().st_size for kind in facts.KINDS for path in facts.files(root, kind))
    print(f"facts hold {held / 1e6:,.0f} MB in {sum(len(facts.files(root, kind)) for kind in facts.KINDS)} files")
    relations: dict[str, Any] = {
        "ledger_batches": pa.Table.from_pylist([_batch(b, rows // 20) for b in batches], loading._LEDGER_BATCHES),
        "ledger_recalls": loading._LEDGER_RECALLS.empty_table(),
        "ledger_returns": loading._LEDGER_RETURNS.empty_table(),
        "ledger_rows": loading._LEDGER_ROWS.empty_table(),
        "refused": loading._REFUSED.empty_table(),
        "funnel": loading._FUNNEL.empty_table(),
        **{kind: facts.files(root, kind) for kind in facts.KINDS},
    }
    with measured("publishing the analysts' file", rows):
        counts = warehouse.publish(root.warehouse, relations, NOW)
    assert counts["transcripts"] == rows
    print(f"the analysts' file holds {root.warehouse.stat().st_size / 1e6:,.0f} MB")
    person = persons[7].as_py()
    keys = pa.concat_tables(
        pq.read_table(p, filters=[("speaker_key", "=", person)]) for p in facts.files(root, facts.KINDS[0])
    )
    keys = keys.select(["clip_key"]).append_column("bucket", facts.bucket_of(keys["speaker_key"]))
    with measured(f"erasing one person ({keys.num_rows} clips) from the facts"):
        assert facts.forget(root, {"one": keys}) >= 3 * keys.num_rows
    relations |= {kind: facts.files(root, kind) for kind in facts.KINDS}
    with measured("publishing the analysts' file without that person", rows):
        warehouse.publish(root.warehouse, relations, NOW)
    with duckdb.connect(str(root.warehouse), read_only=True) as connection:
        for question, query in re.findall(
            r"^\*\*(.+?)\*\*.*?```sql\n(.*?)```", QUESTIONS.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        ):
            connection.execute(query).fetchall()
            with measured(f"  {question[:54]}"):
                connection.execute(query).fetchall()


def _facts_of(
    root: Root,
    random: np.random.Generator,
    persons: pa.Array,
    rows: int,
    days: int,
    vendor: str,
    shared: tuple[pa.Array, pa.Array],
) -> str:
    """A twentieth of the rows as one batch, spooled as `load` does; the other vendor has one clip in twenty as well."""
    count, night = rows // 20, NIGHT - timedelta(days=days)
    batch_id, twice = batch_id_of(vendor, night, 1), len(shared[0])
    drawn = persons.take(pa.array((len(persons) * random.random(count - twice) ** 2).astype(int)))
    speakers = pa.concat_arrays([shared[1], drawn])
    keys, locales = refs(random, count - twice), pa.array(["en-US", "en-GB", "de-DE", "hi-IN", "fr-FR"])
    keys = pa.concat_arrays([shared[0], keys])
    locale = locales.take(pa.array(random.integers(0, 5, count)))
    some, _ = spoken(random, 20_000)
    texts = pa.array(some).take(pa.array(random.integers(0, len(some), count)))
    words = random.integers(1, 24, count).astype(np.int32)
    wrong = {
        name: (words * random.random(count) * 0.1).astype(np.int32)
        for name in ("substitutions", "deletions", "insertions")
    }
    same = {"clip_key": keys, "batch_id": pa.array([batch_id] * count), "vendor": pa.array([vendor] * count)}
    clips = {
        **same,
        "night": pa.array([night] * count),
        "stratum": pa.array([f"translator × {one}" for one in locale.to_pylist()]),
        "product": pa.array(["translator"] * count),
        "locale": locale,
        "recorded_week": pa.array([f"{night:%G-W%V}"] * count),
        "duration_ms": random.integers(800, 9000, count),
        "inclusion_probability": random.uniform(0.01, 1, count),
        "is_overlap": pa.array(np.arange(count) < twice),
        "is_withheld": pa.array(random.random(count) < 0.1),
        "speaker_key": speakers,
    }
    transcripts = {
        **same,
        "status": pa.array(["transcribed"] * count),
        "text": texts,
        "chosen_rank": pa.array(random.integers(1, 3, count)),
        "annotator_key": persons.take(pa.array(random.integers(0, 50, count))),
        "submitted_at": pa.array([NOW] * count, pa.timestamp("us", tz="UTC")),
        "revision": pa.array([0] * count),
    }
    scores = {
        **same,
        "rules": pa.array(["bench"] * count),
        "words": words,
        "characters": words * 5,
        **{name: wrong.get(name.removeprefix("character_")) for name in _numbers() if "hits" not in name},
        **{name: words - wrong["substitutions"] - wrong["deletions"] for name in _numbers() if "hits" in name},
    }
    from_none = random.random(count) < 0.4
    scores |= {f"chosen_{name}": pa.array(scores[name], pa.int32(), mask=from_none) for name in _numbers()}
    buckets = facts.bucket_of(pa.chunked_array([speakers]))
    made = {"delivered_clips": clips, "masked_transcripts": clips | transcripts, "scored": clips | scores}
    for kind, columns in made.items():
        schema = loading.FACTS[kind]
        full = {f.name: columns.get(f.name) if columns.get(f.name) is not None else pa.nulls(count) for f in schema}
        facts.spool(root, kind, pa.table(full).cast(schema), buckets, batch_id)
    if vendor == VENDORS[0]:
        _compare(
            root, random, {name: keys_of[:twice] for name, keys_of in {**same, "speaker_key": speakers}.items()}, words
        )
    return batch_id


def _compare(root: Root, random: np.random.Generator, clips: dict[str, pa.Array], words: Any) -> None:
    """What both vendors made of clips, one word in ten otherwise."""
    count = len(clips["clip_key"])
    words, said = words[:count], 2 * int(words[:count].sum())
    ends = pa.array(np.append(0, np.cumsum(2 * words)), pa.int32())
    columns = {
        **clips,
        "other_vendor": pa.array([VENDORS[1]] * count),
        "status": pa.array(["transcribed"] * count),
        "other_status": pa.array(["transcribed"] * count),
        "words": words,
        "other_words": words,
        "errors": (words * random.random(count) * 0.2).astype(np.int32),
        "slots": words,
        "said": pa.ListArray.from_arrays(ends, pa.array(random.integers(0, 3000, said), pa.uint64())),
    }
    schema = loading.FACTS["compared"]
    full = {f.name: columns[f.name] if f.name in columns else pa.nulls(count) for f in schema}
    buckets = facts.bucket_of(pa.chunked_array([clips["speaker_key"]]))
    facts.spool(root, "compared", pa.table(full).cast(schema), buckets, clips["batch_id"][0].as_py())


def _numbers() -> list[str]:
    kinds = ("substitutions", "deletions", "insertions", "hits")
    return [*kinds, *(f"character_{kind}" for kind in kinds)]


def _batch(batch_id: str, clips: int) -> dict[str, Any]:
    vendor, night, _ = batch_id.split("-")
    times = dict.fromkeys(("manifested_at", "delivered_at", "due_at"), NOW)
    about = {"batch_id": batch_id, "vendor": vendor, "night": datetime.strptime(night, "%Y%m%d").date()}  # noqa: DTZ007
    return {**about, "state": "LOADED", "clip_count": clips, "audio_ms": clips, "size_bytes": clips, **times}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--facts", type=int, default=10_000_000)
    parser.add_argument("--only", choices=("returns", "facts"))
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="bench-returns-"))
    try:
        if given.only != "facts":
            bench_returns(folder, given.rows)
        if given.only != "returns":
            bench_facts(folder, given.facts)
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        print(f"at the peak {peak / 1024:,.0f} MB in one process")
    finally:
        if given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
