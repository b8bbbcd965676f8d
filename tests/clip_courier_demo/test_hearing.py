"""The demo vendor's ears, and the times of what they hear."""

import hashlib
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from clip_courier import audio, masking
from clip_courier_demo import speech
from clip_courier_demo.hearing import BEEP, Truth, has_tone
from clip_courier_demo.stage import Stage
from clip_courier_demo.utterances import Secret, Utterance, times_of


@pytest.mark.parametrize("voice", ["natural", "disguised"])
def test_hear_knows_a_recording_again_and_hears_its_tones(session_stage: Stage, truth: Truth, voice: str) -> None:
    world = session_stage.folder / "world"
    rows = {row["pcm_sha256"]: row for row in pq.read_table(world / "demo" / "truth.parquet").to_pylist()}
    checked = 0
    for path in sorted(Path(world, "landing", "audio").rglob("*.*"))[::9]:
        was = audio.decode(path.read_bytes()) if path.stat().st_size > 2000 else None
        row = was and rows.get(hashlib.sha256(was.samples.astype("<i2").tobytes()).hexdigest())
        if was is None or row is None or len(row["words"]) < 4:
            continue
        first, last = row["words"][1], row["words"][2]
        spans = [{"start_ms": first["start_ms"], "end_ms": last["end_ms"]}]
        for silenced in ([], spans):
            how = {"silenced": silenced, "sound_key": str(path), "voice": voice}
            heard = truth.hear(masking.masked(was, how))
            # Also in one channel, at a rate that all have, and with silence at its end.
            common = masking.Shown(was.duration_ms + 3_000, 8_000, 1)
            assert truth.hear(masked := masking.masked(was, how, common)) == heard
            assert masked.duration_ms == pytest.approx(common.shown_duration_ms, abs=1)
            words = [word["word"] for word in row["words"]]
            # A word that is too short to tell may be heard on either side of the tone.
            if last["end_ms"] - last["start_ms"] > 100 and first["end_ms"] - first["start_ms"] > 100:
                expected = " ".join([words[0], BEEP, *words[3:]] if silenced else words)
                assert heard == expected
                checked += 1
    assert checked > 10


def test_hear_does_not_know_what_is_not_of_this_world(truth: Truth) -> None:
    silence = audio.Recording(masking._tone(1234, 16_000)[:, None], 16_000)
    assert truth.hear(silence) is None
    assert has_tone(silence, 40)


def test_speak_times_every_word() -> None:
    text = "Turn on the light in the kitchen, please."
    sound, times = speech.speak_timed(text, speech.Voice("en-us"))
    assert len(times) == len(text.split())
    assert times[0][0] == 0
    assert times[-1][1] == pytest.approx(len(sound) * 1000 / speech.RATE_HZ, abs=1)
    assert all(start < end == after for (start, end), (after, _) in pairwise(times))
    # What is said before a word does not depend on it; the synthesiser looks a little ahead.
    other, _ = speech.speak_timed(text.replace("please", "tonight"), speech.Voice("en-us"))
    same = times[-1][0] * speech.RATE_HZ // 1000 - speech.RATE_HZ // 5
    assert abs(int((sound[:same] != other[:same]).sum())) == 0


@pytest.mark.parametrize(
    ("written", "shared"),
    [("555 123 45 67", [3, 3, 2, 2]), ("+1-555-1234567", [10]), ("a b c d e f g h i j", [1] * 10)],
)
def test_times_of_a_number_are_those_of_its_digits(written: str, shared: list[int]) -> None:
    digits = "five five five one two three four five six seven"
    said = Utterance("Hello. Call me", "Hello. Call me") + Utterance(
        f"at {written}, please now.", f"at {digits}, please now.", (Secret("phones", written, digits),)
    )
    times = tuple((n * 100, n * 100 + 100) for n in range(len(said.say.split())))
    found = times_of(said, times)
    assert len(found) == len(said.text.split())
    assert [(end - start) // 100 for start, end in found] == [1, 1, 1, 1, *shared, 1, 1]
    assert [end for _, end in found[:-1]] == [start for start, _ in found[1:]]
