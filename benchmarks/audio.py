"""Sound, measured: recordings masked, disguised and encoded a CPU second; and what a disguise does to a voice.

    .venv/bin/python benchmarks/audio.py [--clips N] [--speech FOLDER]

How well a disguised voice is understood is told by a recogniser that is none of ours (pocketsphinx, its English model
and language model as they come), how well it is known again by the distance of cepstral features (Davis and Mermelstein
1980) between recordings: the equal error rate, at which as many strangers are taken for the speaker as the speaker for
a stranger; 50 % is chance. The voices are those of the demo's synthesiser; --speech names a folder with recordings of
real people, each `NAME.wav` beside `NAME.txt`. CPU seconds are of this process and of those that decode for it.
"""

import argparse
import io
import resource
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import scipy.fft
import soundfile as sf

from clip_courier import audio, ffmpeg, masking
from clip_courier.audio import Recording
from clip_courier.normalisation import normalise
from clip_courier.scoring import word_errors
from clip_courier.silences import Said, silences
from clip_courier_demo import speech, utterances

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / ".venv-bench"))
import pocketsphinx

RATE = 16_000
COEFFICIENTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
VOICES = [
    speech.Voice("en-us", variant, words_per_minute, pitch)
    for variant in speech.VARIANTS
    for words_per_minute, pitch in ((160, 35), (180, 50), (170, 65))
]
Floats = npt.NDArray[np.float64]


def cpu() -> float:
    """Of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measured(what: str, recordings: Sequence[Recording], work: Callable[[], object]) -> None:
    """Print clips a CPU second, and how many times as fast as they are spoken."""
    before = cpu()
    work()
    spent = cpu() - before
    seconds = sum(len(one.samples) / one.sample_rate_hz for one in recordings)
    print(f"  {what:<52} {len(recordings) / spent:>8,.0f} clips {seconds / spent:>8,.0f} × real time", flush=True)


def said(number: int, sentences: int = 2) -> str:
    return utterances.everyday(np.random.default_rng([7, number]), "en", sentences).text


def spoken(text: str, voice: speech.Voice) -> Recording:
    return Recording(speech.resample(speech.speak(text, voice), RATE)[:, None], RATE)


def row(number: int, voice: str, shown_ms: int, *spans: tuple[int, int]) -> dict[str, object]:
    silenced = [{"start_ms": start, "end_ms": end} for start, end in spans]
    shown = {"shown_duration_ms": shown_ms, "shown_sample_rate_hz": RATE, "shown_channels": 1}
    return {"audio_sha256": None, "silenced": silenced, "sound_key": f"{number:032}", "voice": voice, **shown}


def bench_speed(clips: int) -> None:
    some = [spoken(said(n), VOICES[n % len(VOICES)]) for n in range(min(clips, 100))]
    raw = []
    for one in some:
        memory = io.BytesIO()
        sf.write(memory, one.samples, one.sample_rate_hz, format="WAV", subtype="PCM_16")
        raw.append(memory.getvalue())
    many = [some[n % len(some)] for n in range(clips)]
    length = sum(len(one.samples) for one in many) / RATE / clips
    print(f"{clips:,} recordings of {length:.1f} s on average, 16 kHz, one channel; of one CPU second:")
    files = [raw[n % len(raw)] for n in range(clips)]
    measured("decode WAV", many, lambda: [audio.decode(file) for file in files])
    aac = [as_aac(one) for one in some]
    packed = [aac[n % len(aac)] for n in range(clips)]
    measured("decode AAC in MP4, each in a process of its own", many, lambda: by_ffmpeg(packed))
    measured("  the same by PyAV alone, in this process", many, lambda: [by_pyav(file) for file in packed])
    measured("encode FLAC, with its gate", many, lambda: [audio.to_flac(one) for one in many])
    natural = [row(n, masking.NATURAL, one.duration_ms, (500, 1500)) for n, one in enumerate(many)]
    measured(
        "a tone of one second, and grain", many, lambda: [masking.masked(*p) for p in zip(many, natural, strict=True)]
    )
    measured("all of it, as it leaves", many, lambda: [masking.leaving(*p) for p in zip(files, natural, strict=True)])
    veiled = [row(n, masking.DISGUISED, one.duration_ms, (500, 1500)) for n, one in enumerate(many)]
    few = slice(0, max(1, clips // 10))
    measured(
        "all of it, with a disguise",
        many[few],
        lambda: [masking.leaving(*p) for p in zip(files[few], veiled[few], strict=True)],
    )
    measured("finding what to silence, of three hypotheses", many, lambda: [find(n) for n in range(clips)])
    long = Recording(np.tile(some[0].samples, (60, 1)), RATE)
    tracemalloc.start()
    masking.disguised(long.samples, RATE, 0.7)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    print(f"  a disguise of {len(long.samples) / RATE:.0f} s in one piece takes {peak:.0f} MiB")


def as_aac(one: Recording) -> bytes:
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=one.sample_rate_hz, layout="mono")
        frame = av.AudioFrame.from_ndarray(one.samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = one.sample_rate_hz, 0
        file.mux([*stream.encode(frame), *stream.encode(None)])
    return memory.getvalue()


def by_ffmpeg(files: Sequence[bytes]) -> None:
    for file in files:
        audio.decode(file)
    # Its processor time is ours when it has ended.
    ffmpeg._stop_all()
    ffmpeg._idle.clear()


def by_pyav(file: bytes) -> npt.NDArray[np.int16]:
    with av.open(io.BytesIO(file)) as container:
        to_int16 = av.AudioResampler(format="s16")
        parts = [part.to_ndarray() for frame in container.decode(audio=0) for part in to_int16.resample(frame)]
        return np.concatenate(parts, axis=1).T


def find(number: int) -> object:
    words = said(number).split()
    timed = [{"word": w, "start_ms": 300 * n, "end_ms": 300 * n + 250} for n, w in enumerate(words)]
    is_masked = [n % 7 == number % 7 for n in range(len(words))]
    other = [w if n % 5 else w[::-1] for n, w in enumerate(words)]
    texts = [Said(words, is_masked), Said(other, is_masked), Said(words[1:], is_masked[1:])]
    return silences(texts, timed, is_masked, duration_ms=60_000, margin_ms=100)


def disguised(one: Recording, coefficient: float) -> Recording:
    if coefficient == 1.0:
        return one
    return Recording(masking.disguised(one.samples, one.sample_rate_hz, coefficient), one.sample_rate_hz)


def bench_understanding(name: str, pairs: Sequence[tuple[Recording, str]], *, is_any_text: bool) -> None:
    """`is_any_text`: by the recogniser's own language model; else any row of words out of these texts may be said."""
    print(f"word error rate of pocketsphinx on {len(pairs)} recordings, {name}:")
    decoder = pocketsphinx.Decoder(samprate=RATE, loglevel="FATAL")
    if not is_any_text:
        known = sorted({word for _, text in pairs for word in utterances.tokens(text)})
        decoder.add_jsgf_string("words", f"#JSGF V1.0; grammar g; public <said> = ({' | '.join(known)})+;")
        decoder.activate_search("words")
    for coefficient in (*COEFFICIENTS, None):
        heard = []
        for number, (one, _) in enumerate(pairs):
            by = masking.coefficient(f"{number:032}") if coefficient is None else coefficient
            decoder.start_utt()
            decoder.process_raw(disguised(one, by).samples.tobytes(), full_utt=True)
            decoder.end_utt()
            found = decoder.hyp()
            heard.append(found.hypstr if found else "")
        english = ["en"] * len(pairs)
        errors = word_errors(normalise([text for _, text in pairs], english), normalise(heard, english))
        wrong = errors.substitutions.sum() + errors.deletions.sum() + errors.insertions.sum()
        label = "as drawn from 0.5 to 0.9" if coefficient is None else "as it is" if coefficient == 1 else coefficient
        print(f"  coefficient {label!s:<26} {100 * wrong / errors.lengths.sum():>6.1f} %", flush=True)


def cepstra(one: Recording) -> Floats:
    """Mean and spread of 19 mel-frequency cepstral coefficients over the louder half of the frames."""
    rate, samples = one.sample_rate_hz, one.samples[:, 0].astype(float)
    frames = np.lib.stride_tricks.sliding_window_view(samples, rate // 40)[:: rate // 100] * np.hamming(rate // 40)
    power = np.abs(np.fft.rfft(frames, 512)) ** 2
    edges = 700 * (np.exp(np.linspace(0, np.log1p(rate / 2 / 700), 42)) - 1)
    at = np.fft.rfftfreq(512, 1 / rate)
    rising = (at - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - at) / np.diff(edges)[1:, None]
    bands = np.log(power @ np.maximum(0, np.minimum(rising, falling)).T + 1e-3)
    found = scipy.fft.dct(bands, norm="ortho")[power.sum(axis=1) > np.median(power.sum(axis=1)), 1:20]
    return np.concatenate([found.mean(axis=0), found.std(axis=0)])


def equal_error_rate(enrolled: Floats, trial: Floats, speakers: npt.NDArray[np.int64]) -> float:
    """Every recording against every other one; both arrays are (recordings, features)."""
    spread = np.concatenate([enrolled, trial]).std(axis=0)
    distance = np.linalg.norm((enrolled[:, None] - trial[None]) / spread, axis=2)
    return _where_errors_are_equal(distance, speakers)


def bench_likeness() -> None:
    each = 6
    speakers = np.repeat(np.arange(len(VOICES)), each)
    natural = [spoken(said(n), VOICES[speaker]) for n, speaker in enumerate(speakers.tolist())]
    veiled = [disguised(one, masking.coefficient(f"{n:032}")) for n, one in enumerate(natural)]
    again = [disguised(one, masking.coefficient(f"other {n:032}")) for n, one in enumerate(natural)]
    plain, first, second = (np.stack([cepstra(one) for one in some]) for some in (natural, veiled, again))
    print(f"equal error rate of telling {len(VOICES)} synthetic voices apart, {each} recordings each; 50 % is chance:")
    print(f"  natural against natural                {100 * equal_error_rate(plain, plain, speakers):>6.1f} %")
    print(f"  disguised against natural              {100 * equal_error_rate(plain, first, speakers):>6.1f} %")
    print(f"  disguised against disguised            {100 * equal_error_rate(first, first, speakers):>6.1f} %")
    undone = [attacked(one) for one in veiled]
    tried = np.stack([[cepstra(one) for one in some] for some in undone], axis=1)
    print(f"  natural against every way to undo it   {100 * best_of(plain, tried, speakers):>6.1f} %")
    nearest = np.linalg.norm((plain - first) / plain.std(axis=0), axis=1)
    versions = np.linalg.norm((first - second) / plain.std(axis=0), axis=1)
    print(
        f"  mean distance to its own original {nearest.mean():.1f}, between two vendors' copies {versions.mean():.1f}"
    )


def attacked(one: Recording) -> list[Recording]:
    """Who knows the method tries every coefficient backwards."""
    return [disguised(one, 1 / by) for by in np.linspace(0.5, 0.9, 9)]


def best_of(enrolled: Floats, tried: Floats, speakers: npt.NDArray[np.int64]) -> float:
    """Of every trial the way that comes nearest to the enrolled one; `tried` is (ways, recordings, features)."""
    spread = enrolled.std(axis=0)
    distance = np.min(np.linalg.norm((enrolled[None, :, None] - tried[:, None]) / spread, axis=3), axis=0)
    return _where_errors_are_equal(distance, speakers)


def _where_errors_are_equal(distance: Floats, speakers: npt.NDArray[np.int64]) -> float:
    """The share of errors at the level at which as many strangers are taken as speakers are missed."""
    is_other = ~np.eye(len(speakers), dtype=bool)
    is_same = speakers[:, None] == speakers[None]
    same, strange = np.sort(distance[is_same & is_other]), np.sort(distance[~is_same])
    levels = np.concatenate([same, strange])
    missed = 1 - np.searchsorted(same, levels, "right") / len(same)
    taken = np.searchsorted(strange, levels, "right") / len(strange)
    best = np.argmin(np.abs(missed - taken))
    return float(missed[best] + taken[best]) / 2


def read(folder: Path) -> list[tuple[Recording, str]]:
    texts = sorted(folder.glob("*.txt"))
    return [(audio.decode(t.with_suffix(".wav").read_bytes()), t.read_text(encoding="utf-8")) for t in texts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2_000)
    parser.add_argument("--speech", type=Path)
    arguments = parser.parse_args()
    bench_speed(arguments.clips)
    bench_likeness()
    synthetic = [(said(n, 1), VOICES[n % len(VOICES)]) for n in range(10)]
    bench_understanding(
        "synthetic voices, a closed vocabulary", [(spoken(t, v), t) for t, v in synthetic], is_any_text=False
    )
    if arguments.speech:
        bench_understanding("real voices, any text", read(arguments.speech), is_any_text=True)


if __name__ == "__main__":
    main()
