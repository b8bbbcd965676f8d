"""Scoring, measured: word and character errors of a million pairs, against jiwer and, where it is installed, sclite.

    .venv/bin/python benchmarks/scoring.py [--pairs N] [--write]

Texts are of everyday words, twelve on average, with 14 % errors. CPU seconds are of this process and those that it
started; they are the steadier figure where others work on the same machine. `--write` has sclite count the pairs of
tests/scored_pairs.py anew.
"""

import argparse
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import jiwer
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clip_courier.scorers import scorers
from clip_courier.scoring import Errors, character_errors, word_errors

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import scored_pairs

ROWS_AT_ONCE = 8192
# The others are measured on fewer pairs: their time grows with the number.
JIWER_PAIRS, SCLITE_PAIRS = 100_000, 20_000
Pairs = Sequence[scored_pairs.Pair]


def measured(what: str, pairs: int, work: Callable[[], object]) -> float:
    """Print wall and CPU seconds, and pairs a CPU second; returns the last."""
    began, before = time.perf_counter(), _cpu()
    work()
    wall, cpu = time.perf_counter() - began, _cpu() - before
    print(
        f"{what:<46} {pairs:>9,} pairs {wall:>8.2f} s wall {cpu:>8.2f} s CPU {pairs / cpu:>10,.0f} a CPU s", flush=True
    )
    return pairs / cpu


def _cpu() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


def bench(pairs: Pairs) -> None:
    said, heard = [s for s, _ in pairs], [h for _, h in pairs]
    few = min(JIWER_PAIRS, len(pairs))
    ours = measured("ours: words", len(pairs), lambda: _in_parts(said, heard, word_errors))
    theirs = measured("jiwer: words", few, lambda: jiwer.process_words(said[:few], heard[:few]))
    print(f"  {ours / theirs:.1f} times as many")
    ours = measured("ours: characters", len(pairs), lambda: _in_parts(said, heard, character_errors))
    theirs = measured("jiwer: characters", few, lambda: jiwer.process_characters(said[:few], heard[:few]))
    print(f"  {ours / theirs:.1f} times as many")
    measured("ours: words and characters", len(pairs), lambda: _both(said, heard))
    table = _table(said, heard)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for what, rows in (("one process", 0), ("as load does it", len(pairs))):
        measured(f"ours: normalised, both, {what}", len(pairs), lambda rows=rows: _scored(table, rows))  # type: ignore[misc]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    print(f"  memory of this process grew by {grown / 1024:,.0f} MB beside the texts")
    if shutil.which("sclite"):
        some = pairs[:SCLITE_PAIRS]
        for unit, flags, errors_of in (("words", (), word_errors), ("characters", ("-c",), character_errors)):
            counted: list[tuple[int, ...]] = []
            measured(f"sclite: {unit}", len(some), lambda f=flags, c=counted: c.extend(sclite(some, *f)))  # type: ignore[misc]
            equal = sum(map(tuple.__eq__, counted, _counts(errors_of(*map(list, zip(*some, strict=True))))))
            print(f"  the same substitutions, deletions and insertions on {equal:,} of {len(some):,}")
    else:
        print("sclite is not installed here: the comparison is left out")


def _parts(said: list[str], heard: list[str]) -> Iterator[tuple[list[str], list[str]]]:
    for start in range(0, len(said), ROWS_AT_ONCE):
        yield said[start : start + ROWS_AT_ONCE], heard[start : start + ROWS_AT_ONCE]


def _in_parts(said: list[str], heard: list[str], errors_of: Callable[..., Errors]) -> int:
    return sum(int(errors_of(*part).substitutions.sum()) for part in _parts(said, heard))


def _both(said: list[str], heard: list[str]) -> None:
    for errors_of in (word_errors, character_errors):
        _in_parts(said, heard, errors_of)


def _table(said: list[str], heard: list[str]) -> pa.Table:
    columns = {"text": said, "hypothesis": heard, "locale": ["en-GB"] * len(said)}
    return pa.table({**columns, "chosen_hypothesis": pa.nulls(len(said), pa.string())})


def _scored(table: pa.Table, rows: int) -> None:
    with scorers(rows) as counting:
        parts = counting.score(table.to_batches(max_chunksize=ROWS_AT_ONCE))
        assert sum(part.num_rows for part in parts) == table.num_rows


def _counts(errors: Errors) -> list[tuple[int, ...]]:
    return list(map(tuple, np.stack([errors.substitutions, errors.deletions, errors.insertions], axis=1).tolist()))


def sclite(pairs: Pairs, *flags: str) -> list[tuple[int, ...]]:
    """Substitutions, deletions and insertions of each pair, as sclite reports them."""
    with tempfile.TemporaryDirectory() as folder:
        for side, name in enumerate(("said.trn", "heard.trn")):
            lines = (f"{pair[side]} (one_{n:07d})\n" for n, pair in enumerate(pairs))
            Path(folder, name).write_text("".join(lines), encoding="utf-8")
        files = ["-r", f"{folder}/said.trn", "trn", "-h", f"{folder}/heard.trn", "trn"]
        how = ["-s", "-e", "utf-8", *flags, "-i", "spu_id", "-o", "pra", "-O", folder, "-f", "0", "-n", "counted"]
        subprocess.run(["sclite", *files, *how], check=True, stdout=subprocess.DEVNULL)
        report = Path(folder, "counted.pra").read_text(encoding="utf-8")
    found = re.findall(r"^id: \(one[_-](\d+)\).*?^Scores: .*?(\d+) (\d+) (\d+) (\d+)$", report, re.M | re.S)
    by_number = {int(number): (int(s), int(d), int(i)) for number, _, s, d, i in found}
    return [by_number[n] for n in range(len(pairs))]


def write_counts() -> None:
    pairs = scored_pairs.pairs()
    columns = {}
    for unit, flags in (("word", ()), ("character", ("-c",))):
        counted = np.array(sclite(pairs, *flags), np.uint8)
        for place, kind in enumerate(("substitutions", "deletions", "insertions")):
            columns[f"{unit}_{kind}"] = counted[:, place]
    table = pa.table(columns).replace_schema_metadata({"pairs_sha256": scored_pairs.digest(pairs)})
    pq.write_table(table, scored_pairs.COUNTS, compression="zstd", compression_level=19)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if given.write:
        write_counts()
    else:
        # Ten times the same texts, each scored for itself: making them takes longer than counting.
        some = scored_pairs.recognised("en", max(1, given.pairs // 10), Random("bench"))
        bench(some * 10)
    return 0


if __name__ == "__main__":
    sys.exit(main())
