"""Disclosure control, measured: pseudonyms a CPU second, and k-anonymity of ten million rows.

    .venv/bin/python benchmarks/disclosure.py [--rows N] [--ids N] [--repeat N]

Pseudonyms are made of the same ids in three ways: ours, Python's `hmac.new` for each id, and keyed BLAKE2b; those two
without the frame, the vendor, the epoch and the kind that ours binds in. k-anonymity is of six columns and counted in
distinct persons, which the library does not do by itself: it is given the distinct pairs of columns and person
(`drop_duplicates`), and, as it is meant to be used, the rows. `ladder` is all that a night does: it finds each clip its
group. Each runs in a process of its own with its reading of the file. `make bench` installs what the library needs.
"""

import argparse
import hashlib
import hmac
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
PACKAGES = PROJECT / ".venv-anonymity"
sys.path[:0] = [str(HERE), str(PROJECT / "include")]

from sampling.measure import Cost, Failed, measured  # noqa: E402 - beside this file

K, BOUNDS, PADDED = 5, [2_000, 5_000, 10_000, 20_000], [10_000, 30_000]
COLUMNS = ["locale", "product", "week", "bucket", "sample_rate_hz", "channels"]
# Two years of 60 locales and 5 products; persons speak one locale, the talkative more.
_WORLD = """
COPY (
    SELECT
        'ref-' || lpad(i::VARCHAR, 12, '0') AS clip_ref,
        ['person-' || person::VARCHAR] AS person_ids,
        'l' || (person % 60)::VARCHAR || '-XX' AS locale,
        'product-' || (hash(i, 1) % 5)::VARCHAR AS product,
        TIMESTAMPTZ '2026-11-19 00:00:00+00' - to_seconds((hash(i, 2) % (28 * 86400))::INTEGER) AS recorded_at,
        strftime((recorded_at AT TIME ZONE 'UTC'), '%G-W%V') AS week,
        (500 + hash(i, 3) % 29000)::INTEGER AS duration_ms,
        len(list_filter([2000, 5000, 10000, 20000], lambda b: b <= duration_ms))::INTEGER AS bucket,
        [8000, 16000, 22050, 48000][1 + (person % 4)]::INTEGER AS sample_rate_hz,
        (1 + (hash(i, 4) % 20 = 0)::INTEGER)::TINYINT AS channels
    FROM (
        SELECT i, floor(power((hash(i, 5) % 1000003) / 1000003.0, 3) * $persons)::BIGINT AS person
        FROM range($rows) t(i)
    )
) TO '$path' (FORMAT parquet, COMPRESSION zstd)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--ids", type=int, default=300_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        print(json.dumps(PARTS[asked.part[0]](Path(asked.part[1]))))
        return 0
    pseudonyms(asked.ids, asked.repeat)
    with tempfile.TemporaryDirectory(prefix="courier-bench-") as folder:
        anonymity(asked.rows, Path(folder) / "rows.parquet")
    return 0


# -- pseudonyms ------------------------------------------------------------------------------------------------


def pseudonyms(count: int, repeat: int) -> None:
    """Print ids a CPU second of each way, and how many times as many ours makes."""
    from clip_courier.pseudonyms import Pseudonyms

    ids, key = [f"clip-{n:016x}" for n in range(count)], bytes(range(32))

    def naive() -> list[str]:
        return [hmac.new(key, one.encode(), hashlib.sha256).hexdigest()[:40] for one in ids]

    def blake2b() -> list[str]:
        keyed, made = hashlib.blake2b(key=key, digest_size=20), []
        for one in ids:
            mac = keyed.copy()
            mac.update(one.encode())
            made.append(mac.hexdigest())
        return made

    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: Pseudonyms("epoch", key).refs("aurora", "clip", ids),
        "hmac.new for each id": naive,
        "keyed BLAKE2b": blake2b,
    }
    # In turn, so that what else the machine does falls on all of them.
    rates = [{name: _rate(work, count) for name, work in ways.items()} for _ in range(repeat)]
    found = {name: median(rate[name] for rate in rates) for name in ways}
    for name, rate in found.items():
        print(f"{name:<24} {rate:>10,.0f} ids a CPU s {found['ours'] / rate:>6.2f} (ours / this)", flush=True)


def _rate(work: Callable[[], object], count: int) -> float:
    began = time.process_time()
    work()
    return count / (time.process_time() - began)


# -- k-anonymity -----------------------------------------------------------------------------------------------


def anonymity(rows: int, path: Path) -> None:
    """Print what each contender costs and finds."""
    import duckdb

    persons = str(max(rows // 10, 100))
    world = _WORLD.replace("$persons", persons).replace("$rows", str(rows)).replace("$path", str(path))
    with duckdb.connect() as database:
        database.sql(world)
    costs: dict[str, Cost] = {}
    for name in PARTS:
        paths = [str(PROJECT / "include"), *([str(PACKAGES)] if name.startswith("pycanon") else [])]
        try:
            cost, told = measured(
                [sys.executable, str(Path(__file__).resolve()), "--part", name, str(path)],
                {**os.environ, "PYTHONPATH": os.pathsep.join(reversed(paths))},
            )
        except Failed as failed:
            print(f"{name:<24} failed: {str(failed).splitlines()[-1]}", flush=True)
            continue
        costs[name] = cost
        ratio = cost.cpu_s / costs["ours"].cpu_s
        print(
            f"{name:<24} {rows:>11,} rows {cost.wall_s:>8.1f} s wall {cost.cpu_s:>8.1f} s CPU {ratio:>6.2f} x ours"
            f" {cost.peak_mib:>8,.0f} MiB  {json.loads(told)}",
            flush=True,
        )


def _ours(path: Path) -> object:
    import pyarrow.parquet as pq

    from clip_courier.groups import BEFORE, Limits, smallest

    table = pq.read_table(path, columns=["person_ids", *COLUMNS[:3], "duration_ms", *COLUMNS[4:]])
    table = table.rename_columns([name if name == "person_ids" else f"shown_{name}" for name in table.column_names])
    return {"k": smallest(table, BEFORE.empty_table(), Limits(K, BOUNDS, PADDED)).persons}


def _ladder(path: Path) -> object:
    import pyarrow.parquet as pq

    from clip_courier.groups import BEFORE, Limits, group, rung_counts

    table = pq.read_table(
        path, columns=["clip_ref", "person_ids", *COLUMNS[:2], "recorded_at", "duration_ms", *COLUMNS[4:]]
    )
    table = table.rename_columns(["sound_ms" if name == "duration_ms" else name for name in table.column_names])
    found = group(table, BEFORE.empty_table(), Limits(K, BOUNDS, PADDED))
    return {"left_out": found["rung"].null_count, **rung_counts(found["rung"])}


def _pycanon_rows(path: Path) -> object:
    import pandas as pd
    from pycanon import anonymity as canon

    return {"k": int(canon.k_anonymity(pd.read_parquet(path, columns=COLUMNS), COLUMNS))}


def _pycanon_persons(path: Path) -> object:
    import pandas as pd
    from pycanon import anonymity as canon

    rows = pd.read_parquet(path, columns=[*COLUMNS, "person_ids"])
    rows["person"] = rows.pop("person_ids").str[0]
    return {"k": int(canon.k_anonymity(rows.drop_duplicates(), COLUMNS))}


PARTS: dict[str, Callable[[Path], object]] = {
    "ours": _ours,
    "ladder": _ladder,
    "pycanon_persons": _pycanon_persons,
    "pycanon_rows": _pycanon_rows,
}


if __name__ == "__main__":
    sys.exit(main())
