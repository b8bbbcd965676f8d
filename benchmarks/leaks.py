"""What it costs to look for identifying values: speed and memory by how many they are, and the gate beside a sealing.

    python benchmarks/leaks.py [--values 10000 100000 1000000 5000000] [--mib 32]

Each contender runs in a process of its own, over the same bytes: a log that is full of other people's ids, prose, a
manifest in Parquet, and FLAC. MB/s are of what was looked through (ours unpacks), by CPU seconds and by the clock. The
contenders look for the values as they stand and for nothing else; ours for all forms of docs/leaks.md. Automata need
`make bench`'s .venv-bench.
"""

import argparse
import io
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "include"), str(HERE.parent / ".venv-bench")]

from clip_courier import audio  # noqa: E402
from clip_courier.leaks import LeakScan, search  # noqa: E402
from clip_courier.wanted import Wanted, Watch  # noqa: E402

MB = 1_000_000
KINDS = ("person", "clip", "call", "consent", "sn", "sha256", "mail", "name", "uri", "phone")
OTHERS = 99  # seed of the people that nobody looks for
LINES = 200_000


def cpu_s(who: int = resource.RUSAGE_SELF) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def peak_mib() -> int:
    """Of this process alone: what rusage says begins with the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


def identifying(count: int, seed: int) -> dict[str, list[str]]:
    """So many values of ten kinds."""
    each = -(-count // len(KINDS))
    random = np.random.default_rng(seed)
    digits = random.bytes(each * 8 * 9).hex()
    letters = "".join(np.array(list("abcdefghijklmnopqrstuvwxyz"))[random.integers(0, 26, each * 28)].tolist())
    numbers = random.integers(10**8, 10**9, each).tolist()
    values: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for n in range(each):
        hexes, word = digits[n * 144 : n * 144 + 144], letters[n * 28 : n * 28 + 28]
        for place, kind in enumerate(("person", "clip", "call", "consent", "sn")):
            values[kind].append(f"{kind}-{hexes[place * 16 : place * 16 + 16]}")
        values["sha256"].append(hexes[80:144])
        values["mail"].append(f"{word[:6]}.{word[6:14]}@post.example")
        values["name"].append(f"{word[14:20].title()} {word[20:28].title()}")
        values["uri"].append(f"translator/de-DE/{word[:8]}-{hexes[100:112]}.wav")
        values["phone"].append(f"+49-{numbers[n]:010}")
    return values


def haystacks(folder: Path, mib: int) -> None:
    """Files to look through; nobody who is looked for is in them."""
    size, other = mib << 20, identifying(LINES, OTHERS)
    lines = [
        f"2026-11-24T02:00:{n % 60:02d}.123Z INFO [courier.task] {other[KINDS[n % 10]][n // 10]} is done in {n} ms\n"
        for n in range(LINES)
    ]
    text = "".join(lines).encode()
    (folder / "ids.log").write_bytes((text * (size // len(text) + 1))[:size])
    prose = (HERE.parent / "README.md").read_bytes() + (HERE.parent / "docs" / "decisions.md").read_bytes()
    (folder / "prose.txt").write_bytes((prose * (size // len(prose) + 1))[:size])
    rows = size // 400
    random = np.random.default_rng(4)
    ref = pa.array([f"{n:026x}" for n in random.integers(1 << 60, size=rows)])
    said = pa.array([" ".join(lines[n % LINES][30:].split()[:9]) for n in range(rows)])
    table = pa.table({"clip_ref": ref, "sha256": pa.array([h * 3 for h in ref.to_pylist()]), "said": said})
    pq.write_table(table, folder / "manifest.parquet", compression="zstd")
    noise = np.random.default_rng(1).normal(0, 1, size)
    sound = np.convolve(noise, np.hanning(24), "same")
    sound = (sound / np.abs(sound).max() * 20_000).astype(np.int16)[:, None]
    (folder / "sound.flac").write_bytes(audio.to_flac(audio.Recording(sound, 16_000)))


def watched(count: int) -> Watch:
    values, wanted = identifying(count, 5), Wanted()
    for kind in KINDS:
        wanted.add_values(kind, values.pop(kind))
    # The peak from here on: the values come from Parquet elsewhere, and never as objects.
    Path("/proc/self/clear_refs").write_text("5")
    return wanted.watch()


# -- the contenders, each in a process of its own ----------------------------------------------------------------------


def ours(count: int) -> Callable[[Path], int]:
    watch = watched(count)

    def scan(path: Path) -> int:
        return search([watch], lambda unpacking: unpacking.file(path, path.name)).scanned_bytes

    return scan


def _plain(count: int) -> list[bytes]:
    return [value.lower().encode() for values in identifying(count, 5).values() for value in values]


def ahocorasick_rs(count: int) -> Callable[[Path], int]:
    from ahocorasick_rs import BytesAhoCorasick

    automaton = BytesAhoCorasick(_plain(count))

    def scan(path: Path) -> int:
        automaton.find_matches_as_indexes(path.read_bytes().lower())
        return path.stat().st_size

    return scan


def hyperscan(count: int) -> Callable[[Path], int]:
    import hyperscan as hs

    plain = _plain(count)
    database = hs.Database(mode=hs.HS_MODE_BLOCK)
    flags = [hs.HS_FLAG_CASELESS] * len(plain)
    database.compile(expressions=plain, ids=list(range(len(plain))), elements=len(plain), flags=flags, literal=True)

    def scan(path: Path) -> int:
        found: list[int] = []
        database.scan(path.read_bytes(), match_event_handler=lambda which, *_: found.append(which))
        return path.stat().st_size

    return scan


def python_in(count: int) -> Callable[[Path], int]:
    plain = _plain(count)

    def scan(path: Path) -> int:
        text = path.read_bytes().lower()[:MB]  # all of it would take hours
        sum(value in text for value in plain[:1000])
        return int(len(text) * 1000 / len(plain))

    return scan


CONTENDERS = {"ours": ours, "ahocorasick_rs": ahocorasick_rs, "hyperscan": hyperscan, "python": python_in}
PROGRAMS = ("grep", "rg")


def run_one(name: str, count: int, folder: Path) -> None:
    """Prints one line of JSON: MB/s by file, seconds to get ready, MiB at the peak."""
    began = cpu_s()
    scan = CONTENDERS[name](count)
    told: dict[str, float] = {"ready_s": round(cpu_s() - began, 1)}
    for path in sorted(folder.iterdir()):
        began, started = cpu_s(), time.monotonic()
        size = scan(path) / MB
        told[path.name] = round(size / (cpu_s() - began), 4 if name == "python" else 1)
        told[f"{path.name}, by the clock"] = round(size / (time.monotonic() - started), 4)
    print(json.dumps(told | {"peak_mib": peak_mib()}))


def grep(program: list[str], count: int, folder: Path, asked_s: int) -> dict[str, float | str]:
    """A program that reads the values from a file."""
    told: dict[str, float | str] = {}
    with tempfile.NamedTemporaryFile(suffix=".values") as file:
        Path(file.name).write_bytes(b"\n".join(_plain(count)))
        for path in sorted(folder.iterdir()):
            began = cpu_s(resource.RUSAGE_CHILDREN)
            command = [*program, "-f", file.name, str(path)]
            try:
                subprocess.run(command, stdout=subprocess.DEVNULL, check=False, timeout=asked_s)
            except subprocess.TimeoutExpired:
                told[path.name] = f"not done in {asked_s} s"
                continue
            used = cpu_s(resource.RUSAGE_CHILDREN) - began
            told[path.name] = round(path.stat().st_size / MB / used, 2)
    return told


def compare(counts: list[int], mib: int, names: list[str], asked_s: int) -> None:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        haystacks(folder, mib)
        for path in sorted(folder.iterdir()):
            print(f"  {path.name}: {path.stat().st_size / MB:.0f} MB")
        for count in counts:
            for name in [name for name in names if name in CONTENDERS]:
                command = [sys.executable, __file__, "--one", name, str(count), text]
                try:
                    done = subprocess.run(command, capture_output=True, text=True, timeout=asked_s, check=False)
                    print(f"{count:>9} {name:<15} {done.stdout.strip() or done.stderr.strip()[-200:]}", flush=True)
                except subprocess.TimeoutExpired:
                    print(f"{count:>9} {name:<15} not done in {asked_s} s", flush=True)
            for program in ([name, "-iF", "-a", "-c"] for name in names if name in PROGRAMS):
                if shutil.which(program[0]):
                    print(
                        f"{count:>9} {program[0]:<15} {json.dumps(grep(program, count, folder, asked_s))}", flush=True
                    )


# -- the gate ----------------------------------------------------------------------------------------------------------


def gate(mib: int, clips: int, count: int) -> None:
    """The same recordings decoded, encoded, signed and encrypted by gpg with and without the gate, in CPU seconds."""
    from clip_courier.pgp import OwnKey, open_keyring
    from clip_courier_demo.keys import make_key

    frames = (mib << 20) // clips // 2
    noise = np.random.default_rng(1).normal(0, 1, frames + clips * 16)
    sound = np.convolve(noise, np.hanning(24), "same")
    sound = (sound / np.abs(sound).max() * 20_000).astype(np.int16)
    own, theirs = make_key("ours"), make_key("theirs")
    began = cpu_s()
    watch = watched(count)
    print(f"  {watch.values} values, ready in {cpu_s() - began:.2f} CPU s")
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    for name in ("without", "with", "without", "with"):
        began, ended = sum(map(cpu_s, both)), time.monotonic()

        def write(sink: io.BufferedWriter, name: str = name) -> None:
            scan = LeakScan(watch)
            for n in range(clips):
                flac = audio.to_flac(audio.Recording(sound[n * 16 : n * 16 + frames, None], 16_000))
                if name == "with":
                    scan.take_content(flac, f"audio/{n:032d}.flac")
                sink.write(flac)
            scan.check("batch: ")

        with tempfile.TemporaryDirectory() as folder:
            mine = OwnKey(own.fingerprint, own.private_key)
            with open_keyring(mine, [theirs.public_key]) as keyring:
                keyring.seal(write, Path(folder, "out.pgp"), recipient=theirs.fingerprint, at=datetime.now(UTC))
        used = sum(map(cpu_s, both)) - began
        print(f"  {name:<8} the gate: {used:.2f} CPU s, {time.monotonic() - ended:.1f} s, {peak_mib()} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 5_000_000])
    parser.add_argument("--mib", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=300, help="what a contender may take")
    parser.add_argument("--only", nargs="+", default=[*CONTENDERS, *PROGRAMS])
    parser.add_argument("--gate", action="store_true", help="only the gate")
    parser.add_argument("--one", nargs=3)
    asked = parser.parse_args()
    if asked.one:
        run_one(asked.one[0], int(asked.one[1]), Path(asked.one[2]))
        return
    if not asked.gate:
        print("MB/s by CPU seconds, seconds to get ready, MiB at the peak")
        compare(asked.values, asked.mib, asked.only, asked.seconds)
    print("sealing 512 MiB of 2,000 recordings")
    gate(512, 2_000, 20_000)


if __name__ == "__main__":
    main()
