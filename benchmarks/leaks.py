"""What it costs to look for identifying values: speed and memory by how many they are, and the gate beside a sealing.

    python benchmarks/leaks.py [--values 10000 100000 1000000 5000000] [--mib 32]

Each contender runs in a process of its own, over the same bytes: a log that is full of other people's ids, prose, a
log in which every seventh line is escaped, encoded or of another language, a manifest in Parquet, and FLAC. MB/s are of
what was looked through (ours unpacks), by the clock and by CPU seconds. The contenders look for the values as they
stand and for nothing else, and only in text; ours for all forms of docs/leaks.md. To ours a tenth more of values are
given: names of one word and names beyond ASCII. Automata need `make bench`'s .venv-bench.
"""

import argparse
import base64
import io
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "include"), str(HERE.parent / ".venv-bench")]

from clip_courier import audio  # noqa: E402
from clip_courier.forms import condensed, view_of  # noqa: E402
from clip_courier.leaks import LeakScan, search  # noqa: E402
from clip_courier.needles import PIECE_BYTES  # noqa: E402
from clip_courier.wanted import Wanted, Watch  # noqa: E402

MB = 1_000_000
KINDS = ("person", "clip", "call", "consent", "sn", "sha256", "mail", "name", "uri", "phone")
SAID = (
    "Příliš žluťoučký kůň úpěl ďábelské ódy",
    "Falsches Üben von Xylophonmusik quält jeden größeren Zwerg",
    "今日はとても良い天気ですね",
    "Съешь ещё этих мягких французских булок",
    "the quick brown fox jumps over the lazy dog",
)
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
        f"2026-11-24T02:00:{n % 60:02d}.123Z INFO [courier.task] {other[KINDS[n % 10]][n // 10]} is done in {n} ms"
        for n in range(LINES)
    ]
    _write(folder / "ids.log", lines, size)
    _write(folder / "mixed.log", [_otherwise(n, line, other) for n, line in enumerate(lines[: LINES // 10])], size)
    # Whole lines of what we write ourselves.
    prose = [HERE.parent / "README.md", *sorted((HERE.parent / "docs").glob("*.md"))]
    _write(folder / "prose.txt", [line for path in prose for line in path.read_text("utf-8").splitlines()], size)
    rows = size // 400
    random = np.random.default_rng(4)
    ref = pa.array([random.bytes(16).hex() for _ in range(rows)])
    digest = pa.array([random.bytes(32).hex() for _ in range(rows)])
    said = pa.array([" ".join(lines[n % LINES][30:].split()[:9]) for n in range(rows)])
    table = pa.table({"clip_ref": ref, "audio_sha256": digest, "said": said})
    pq.write_table(table, folder / "manifest.parquet", compression="zstd")
    noise = np.random.default_rng(1).normal(0, 1, size)
    sound = np.convolve(noise, np.hanning(24), "same")
    sound = (sound / np.abs(sound).max() * 20_000).astype(np.int16)[:, None]
    (folder / "sound.flac").write_bytes(audio.to_flac(audio.Recording(sound, 16_000)))


def _write(path: Path, lines: list[str], size: int) -> None:
    text = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes((text * (size // len(text) + 1))[:size])


def _otherwise(n: int, line: str, other: dict[str, list[str]]) -> str:
    """Every line of seven in another way."""
    if n % 7:
        return line
    value, said = other[KINDS[n % 10]][n // 10], SAID[n % 5]
    match n // 7 % 5:
        case 0:
            return json.dumps({"at": n, "text": said, "id": value})
        case 1:
            return f"GET /clips?q={quote(said)}&id={quote(value)} HTTP/1.1"
        case 2:
            return f"blob {base64.b64encode(np.random.default_rng(n).bytes(300)).decode()}"
        case 3:
            return f"<td>{value}</td><td>&quot;{said}&quot; &amp; more</td>"
        case _:
            return f"{n} {said} \u00b7 {value}"


def watched(count: int) -> Watch:
    values, wanted = identifying(count, 5), Wanted()
    # Names of one word, and names beyond ASCII.
    names = values["name"][: count // 20]
    wanted.add_values("first name", [name.split()[1] for name in names])
    wanted.add_values("other name", [name.replace("a", "\u017e").replace("e", "\u00e9") + "\u0159" for name in names])
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


def ours_alone(count: int) -> Callable[[Path], int]:
    """The filter without the undoing, in one thread: what an automaton would do instead of it."""
    needles = watched(count).needles

    def scan(path: Path) -> int:
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                list(needles.in_canonical_form(view_of(piece)))
        return path.stat().st_size

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


def hyperscan_anchors(count: int) -> Callable[[Path], int]:
    """Of each value the eight letters and digits that fewest others share; what is found is compared."""
    import hyperscan as hs

    values = [value for value in map(condensed, _plain(count)) if len(value) >= 8]
    places = [(value[:8], value[len(value) // 2 - 4 :][:8], value[-8:]) for value in values]
    shared = Counter(anchor for anchors in places for anchor in set(anchors))
    wholes: dict[bytes, list[bytes]] = {}
    for value, anchors in zip(values, places, strict=True):
        wholes.setdefault(min(anchors, key=shared.__getitem__), []).append(value)
    chosen = list(wholes)
    database = hs.Database(mode=hs.HS_MODE_BLOCK)
    database.compile(expressions=chosen, ids=list(range(len(chosen))), elements=len(chosen), literal=True)

    def scan(path: Path) -> int:
        text, found = condensed(path.read_bytes()), [0]

        def compare(which: int, _: int, end: int, *__: object) -> None:
            near = text[max(0, end - 200) : end + 200]
            found[0] += any(value in near for value in wholes[chosen[which]])

        database.scan(text, match_event_handler=compare)
        return path.stat().st_size

    return scan


def python_in(count: int) -> Callable[[Path], int]:
    plain = _plain(count)

    def scan(path: Path) -> int:
        text = path.read_bytes().lower()[:MB]  # all of it would take hours
        sum(value in text for value in plain[:1000])
        return int(len(text) * 1000 / len(plain))

    return scan


CONTENDERS = {
    "ours": ours,
    "ours_alone": ours_alone,
    "ahocorasick_rs": ahocorasick_rs,
    "hyperscan": hyperscan,
    "hyperscan_anchors": hyperscan_anchors,
    "python": python_in,
}
PROGRAMS = ("grep", "rg")


def run_one(name: str, count: int, folder: Path) -> None:
    """Prints a row of figures as JSON."""
    began = cpu_s()
    scan = CONTENDERS[name](count)
    row = {"ready": f"{cpu_s() - began:.1f}"}
    for path in _files(folder, name):
        scan(path) if name == "ours" else None  # so that what is loaded at the first use is loaded
        began, started = cpu_s(), time.monotonic()
        size = scan(path) / MB
        row[path.name] = _rate(size, time.monotonic() - started, cpu_s() - began)
    print(json.dumps(row | {"MiB": str(peak_mib())}))


def _files(folder: Path, name: str) -> list[Path]:
    """The others do not unpack."""
    return sorted(path for path in folder.iterdir() if name == "ours" or path.suffix in (".log", ".txt"))


def _rate(size: float, clock_s: float, used_s: float) -> str:
    digits = 0 if size > clock_s * 10 else 3
    return f"{size / clock_s:.{digits}f} ({size / used_s:.{digits}f})"


def run_program(command: list[str], count: int, folder: Path, asked_s: int) -> dict[str, str]:
    """A program that reads the values from a file."""
    row = {}
    with tempfile.NamedTemporaryFile(suffix=".values") as file:
        Path(file.name).write_bytes(b"\n".join(_plain(count)))
        for path in _files(folder, command[0]):
            began, started = cpu_s(resource.RUSAGE_CHILDREN), time.monotonic()
            try:
                asked = [*command, "-f", file.name, str(path)]
                subprocess.run(asked, stdout=subprocess.DEVNULL, check=False, timeout=asked_s)
            except subprocess.TimeoutExpired:
                return row | {path.name: f"not in {asked_s} s"}
            used_s = cpu_s(resource.RUSAGE_CHILDREN) - began
            row[path.name] = _rate(path.stat().st_size / MB, time.monotonic() - started, used_s)
    return row


def run_apart(name: str, count: int, folder: Path, asked_s: int) -> dict[str, str]:
    if name in PROGRAMS:
        return run_program([name, "-iF", "-a", "-c"], count, folder, asked_s)
    command = [sys.executable, __file__, "--one", name, str(count), str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=asked_s, check=False)
    except subprocess.TimeoutExpired:
        return {"ready": f"not done in {asked_s} s"}
    return json.loads(done.stdout) if done.returncode == 0 else {"ready": done.stderr.strip().splitlines()[-1][:60]}


def compare(counts: list[int], mib: int, names: list[str], asked_s: int) -> None:
    """One table, of one run: MB/s by the clock and, in brackets, by CPU seconds."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        haystacks(folder, mib)
        columns = ["ready", "MiB", *(path.name for path in sorted(folder.iterdir()))]
        print(f"| values | | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 2)}")
        for count in counts:
            for name in names:
                if name in CONTENDERS or shutil.which(name):
                    row = run_apart(name, count, folder, asked_s)
                    cells = " | ".join(row.get(column, "") for column in columns)
                    print(f"| {count:,} | {name} | {cells} |", flush=True)


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
        compare(asked.values, asked.mib, asked.only, asked.seconds)
    print("sealing 512 MiB of 2,000 recordings")
    gate(512, 2_000, 20_000)


if __name__ == "__main__":
    main()
