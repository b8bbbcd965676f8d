"""A recording as it leaves: a tone where nothing may be heard, the rest as it was, another file for every vendor."""

import hashlib
import os
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_courier import audio, masking
from clip_courier.audio import Recording
from clip_courier.errors import AudioUnusable
from clip_courier.masking import DISGUISED, NATURAL, TONE_HZ, Shown, coefficient, disguised, masked

Samples = npt.NDArray[np.int16]
RATES = [4_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000]
EXAMPLES = int(os.environ.get("MASKING_EXAMPLES", "60"))


def noise(seed: int, frames: int, channels: int = 1, peak: int = 20_000) -> Samples:
    return np.random.default_rng(seed).integers(-peak, peak, (frames, channels)).astype(np.int16)


def voice(rate: int, seconds: float = 1.0, channels: int = 1, formants: tuple[float, ...] = (700, 1800)) -> Samples:
    """Pulses through resonances: what LPC takes speech to be."""
    pulses = np.zeros(int(rate * seconds))
    pulses[:: rate // 120] = 1
    pulses += np.random.default_rng(1).normal(0, 0.01, len(pulses))
    for hz in formants:
        radius, angle = np.exp(-np.pi * 80 / rate), 2 * np.pi * hz / rate
        pulses = scipy.signal.lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], pulses)
    sound = np.rint(pulses / np.abs(pulses).max() * 20_000).astype(np.int16)
    return np.repeat(sound[:, None], channels, axis=1)


def row(*spans: tuple[int, int], key: str = "k" * 32, voice: str = NATURAL, **shown: int) -> dict[str, Any]:
    silenced = [{"start_ms": start, "end_ms": end} for start, end in spans]
    return {"silenced": silenced, "sound_key": key, "voice": voice, "audio_sha256": None, **shown}


def share_of_tone(sound: Samples, rate: int) -> npt.NDArray[np.float64]:
    """Of the energy of each channel."""
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound))[:, None], axis=0)) ** 2
    is_near = np.abs(np.fft.rfftfreq(len(sound), 1 / rate) - min(TONE_HZ, rate / 4)) < 60
    share: npt.NDArray[np.float64] = power[is_near].sum(axis=0) / power.sum(axis=0)
    return share


# -- what may not be heard -------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("rate", RATES)
def test_a_silenced_span_is_a_tone_in_every_channel(rate: int, channels: int) -> None:
    samples = noise(rate, rate, channels)
    heard = masked(Recording(samples, rate), row((300, 700))).samples
    start, end = rate * 300 // 1000, rate * 700 // 1000
    inside, was = heard[start:end], samples[start:end]
    assert (share_of_tone(inside, rate) > 0.99).all()
    assert (share_of_tone(was, rate) < 0.2).all()
    for channel in range(channels):
        assert abs(np.corrcoef(inside[:, channel], was[:, channel])[0, 1]) < 5 / np.sqrt(end - start)
    # The edges too: nothing but the tone's own swelling.
    for edge in (inside[: rate // 200], inside[-rate // 200 :]):
        assert np.abs(edge).max() < 1036
    assert 29.9 < 20 * np.log10(32_768 / np.abs(inside).max()) < 31


@pytest.mark.parametrize("voice", [NATURAL, DISGUISED])
def test_what_leaves_is_the_same_whatever_was_said_in_the_span(voice: str) -> None:
    """The strongest form of it: no bit of what leaves depends on what is silenced."""
    one, other = noise(1, 16_000, 2), noise(1, 16_000, 2)
    other[4_800:11_200] = noise(2, 6_400, 2)
    assert not np.array_equal(one, other)
    left = [audio.to_flac(masked(Recording(samples, 16_000), row((300, 700), voice=voice))) for samples in (one, other)]
    assert left[0] == left[1]


SPANS = st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 600)), max_size=4)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(st.sampled_from(RATES), st.integers(1, 3), SPANS, st.integers(0, 99), st.integers(1, 32_767))
def test_outside_of_the_spans_every_sample_is_as_it_was(
    rate: int, channels: int, spans: list[tuple[int, int]], seed: int, peak: int
) -> None:
    samples = noise(seed, rate, channels, peak)
    heard = masked(Recording(samples, rate), row(*((start, start + ms) for start, ms in spans))).samples
    assert heard.shape == samples.shape
    assert heard.dtype == np.int16
    at_ms = np.arange(rate) * 1000 / rate
    is_silent = np.zeros(rate, bool)
    for start, ms in spans:
        is_silent |= (at_ms > start - 1) & (at_ms < start + ms + 1)
    outside = np.abs(heard[~is_silent].astype(int) - samples[~is_silent])
    assert outside.max(initial=0) <= 1
    assert np.count_nonzero(outside) < 512
    assert np.abs(heard[is_silent].astype(int)).max(initial=0) <= max(1037, peak + 1)


def test_no_sample_that_the_span_touches_is_kept() -> None:
    samples = np.full((22_050, 1), 20_000, np.int16)
    heard = masked(Recording(samples, 22_050), row((333, 334), (999, 5000))).samples[:, 0]
    kept = np.flatnonzero(heard > 19_000)
    assert {*range(22_050)} - {*kept.tolist()} == {*range(7342, 7365), *range(22_027, 22_050)}


@pytest.mark.parametrize("lacks", ["silenced", "sound_key", "voice"])
def test_a_row_that_does_not_say_what_to_silence_is_not_sent(lacks: str) -> None:
    for changed in ({**row(), lacks: None}, {n: v for n, v in row().items() if n != lacks}):
        with pytest.raises(AudioUnusable) as refused:
            masked(Recording(noise(1, 8_000), 8_000), changed)
        assert refused.value.reason == "mask_without_timing"


# -- what is shown of it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_a_lower_rate_keeps_every_word_at_its_time_and_what_can_be_heard(rate: int) -> None:
    at = np.arange(rate) / rate
    low, high = (np.rint(8_000 * np.sin(2 * np.pi * hz * at)).astype(np.int16)[:, None] for hz in (3_000, 10_000))
    click = np.zeros((rate, 1), np.int16)
    click[round(rate * 0.4)] = 30_000
    shown = Shown(1000, 16_000, 1)
    for samples, kept in ((low, 1.0), (high, 0.0)):
        heard = masked(Recording(samples, rate), row(), shown)
        assert (heard.sample_rate_hz, len(heard.samples)) == (16_000, 16_000)
        middle = heard.samples[1000:-1000].astype(float)
        # Of what lay above the new rate nothing is left, beneath it all: 60 dB apart.
        assert np.sqrt(np.mean(middle**2)) == pytest.approx(kept * 8_000 / np.sqrt(2), abs=8)
    heard = masked(Recording(click, rate), row(), shown).samples[:, 0]
    assert abs(int(heard.argmax()) - 6_400) <= 1


def test_one_channel_has_what_all_of_them_had() -> None:
    samples = noise(5, 4_000, 2, peak=9_000)
    heard = masked(Recording(samples, 8_000), row(), Shown(500, 8_000, 1)).samples
    assert heard.shape == (4_000, 1)
    assert np.abs(heard - samples.mean(axis=1, keepdims=True)).max() <= 1.5
    loud = np.full((800, 2), [[32_767, 32_767]], np.int16)
    assert masked(Recording(loud, 8_000), row(), Shown(100, 8_000, 1)).samples.min() >= 32_766


@pytest.mark.parametrize("rate", RATES)
def test_a_longer_end_is_silence_and_nothing_before_it_moves(rate: int) -> None:
    samples = noise(6, rate)
    heard = masked(Recording(samples, rate), row(), Shown(9_999, rate, 1))
    assert heard.duration_ms == 9_999
    assert np.abs(heard.samples[:rate].astype(int) - samples).max() <= 1
    assert not heard.samples[rate:].any()
    # And no other file than before because of it: the same row gives the same bytes.
    raw, shown = audio.to_flac(Recording(samples, rate)), Shown(9_999, rate, 1)._asdict()
    assert masking.leaving(raw, row(**shown)) == audio.to_flac(heard)


@pytest.mark.parametrize("voice", [NATURAL, DISGUISED])
def test_what_was_said_in_a_span_is_in_nothing_that_was_made_of_it(voice: str) -> None:
    said = [noise(7, 44_100, 2), noise(7, 44_100, 2)]
    said[1][13_230:30_870] = noise(8, 17_640, 2)
    shown = Shown(2_999, 16_000, 1)
    heard = [masked(Recording(one, 44_100), row((300, 700), voice=voice), shown) for one in said]
    assert np.array_equal(heard[0].samples, heard[1].samples)
    # The tone is where it was, though the filter rounds its edges.
    assert share_of_tone(heard[0].samples[5_000:11_000], 16_000).min() > 0.9


@pytest.mark.parametrize(
    "shown", [(999, 8_000, 1), (1_000, 16_000, 1), (1_000, 8_000, 2), (1_000, 8_000, 0), (1_000, 0, 1), (0, 0, 0)]
)
def test_nothing_is_shown_that_was_not_recorded(shown: tuple[int, int, int]) -> None:
    """Neither cut short, nor with a higher rate or more channels; nor where a row does not say what it shows."""
    raw = audio.to_flac(Recording(noise(9, 8_000), 8_000))
    for how in (row(**Shown(*shown)._asdict()), row()):
        with pytest.raises(AudioUnusable) as refused:
            masking.leaving(raw, how)
        assert refused.value.reason == "audio_changed"


# -- another file ----------------------------------------------------------------------------------------------

SOUNDS = {
    "noise": noise(1, 8_000),
    "stereo": noise(2, 8_000, 2),
    "nothing": np.zeros((8_000, 1), np.int16),
    "loudest": np.full((8_000, 1), 32_767, np.int16),
    "softest": np.full((8_000, 1), -32_768, np.int16),
    "short": noise(3, 300),
    "one": noise(4, 1),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_what_leaves_has_another_hash_than_landing_has_for_every_key(name: str) -> None:
    samples = SOUNDS[name]
    flac = audio.to_flac(Recording(samples, 8_000))
    keys = [f"key-{n:028d}" for n in range(50)]
    shown = Shown(Recording(samples, 8_000).duration_ms, 8_000, samples.shape[1])._asdict()
    left = [masking.leaving(flac, row(key=key, **shown)) for key in keys]
    assert flac not in left
    assert len({hashlib.sha256(one).digest() for one in left}) == (50 if name != "one" else len({*left}))
    assert left == [masking.leaving(flac, row(key=key, **shown)) for key in keys]
    for one in left[:5]:
        heard = audio.decode(one)
        moved = np.abs(heard.samples.astype(int) - samples)
        assert 1 <= np.count_nonzero(moved) < 600
        assert moved.max() == 1
        assert (heard.sample_rate_hz, heard.channels, len(heard.samples)) == (8_000, samples.shape[1], len(samples))


def test_which_samples_are_moved_says_nothing_without_the_key() -> None:
    """Places and directions of two keys agree as often as chance has it."""
    samples = SOUNDS["noise"]
    moved = [masked(Recording(samples, 8_000), row(key=f"{n}")).samples.astype(int) - samples for n in range(100)]
    ups = sum(int(np.count_nonzero(one > 0)) for one in moved)
    downs = sum(int(np.count_nonzero(one < 0)) for one in moved)
    assert abs(ups - downs) < 5 * np.sqrt(ups + downs)
    shared = [np.count_nonzero((a != 0) & (b != 0)) for a, b in pairwise(moved)]
    # 258 blocks of 31 samples: one of 31 meets by chance.
    assert 4 < np.mean(shared) < 13


# -- the disguise ----------------------------------------------------------------------------------------------


def published(frame: npt.NDArray[np.float64], order: int, mcadams: float) -> npt.NDArray[np.float64]:
    """One frame as the paper's own program treats it, with scipy, before it is made as loud as it was."""
    lags = np.correlate(frame, frame, "full")[len(frame) - 1 :][: order + 1]
    lags[0] = lags[0] * (1 + 1e-9) + 1e-9
    model = np.concatenate(([1], np.linalg.solve(scipy.linalg.toeplitz(lags[:-1]), -lags[1:])))
    poles = scipy.signal.tf2zpk([1], model)[1]
    turned = np.where(
        np.isreal(poles),
        poles,
        np.abs(poles) * np.exp(1j * np.sign(poles.imag) * np.minimum(np.abs(np.angle(poles)) ** mcadams, np.pi)),
    )
    residual = scipy.signal.lfilter(model, 1, frame)
    return np.asarray(scipy.signal.lfilter([1], np.real(np.poly(turned)), residual))


@pytest.mark.parametrize("mcadams", [0.5, 0.7, 0.9])
def test_frames_are_moved_as_the_paper_moves_them(mcadams: float) -> None:
    samples = voice(16_000)[:, 0].astype(float)
    window = np.sqrt(np.hanning(321)[:-1])
    frames = np.stack([samples[start : start + 320] * window for start in range(0, 12_000, 160)])
    moved = masking._moved(frames, 20, 1.0, mcadams)
    for frame, ours in zip(frames, moved, strict=True):
        theirs = published(frame, 20, mcadams)
        theirs *= np.sqrt((frame**2).sum() / (theirs**2).sum())
        assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-3 * np.abs(theirs).max())


@pytest.mark.parametrize("rate", RATES)
def test_a_coefficient_of_one_leaves_the_sound_as_it_is(rate: int) -> None:
    samples = voice(rate, channels=2)
    assert np.abs(disguised(samples, rate, 1.0).astype(int) - samples).max() <= 1


def peak_near(samples: Samples, rate: int, hz: float) -> float:
    """Of the spectrum's envelope, by LPC over the whole."""
    model = masking._linear_prediction(samples[:, 0][None, :].astype(float), rate // 1000 + 4)[0]
    at, response = scipy.signal.freqz([1], model, worN=8192, fs=rate)
    is_near = np.abs(at - hz) < 250
    return float(at[is_near][np.argmax(np.abs(response[is_near]))])


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050])
@pytest.mark.parametrize("mcadams", [0.7, 0.9])
def test_formants_move_by_the_coefficient_at_every_sample_rate(rate: int, mcadams: float) -> None:
    samples = voice(rate, formants=(1000,))
    moved = disguised(samples, rate, mcadams)
    pivot = 16_000 / (2 * np.pi)
    expected = pivot * (1000 / pivot) ** mcadams
    assert peak_near(samples, rate, 1000) == pytest.approx(1000, abs=60)
    assert peak_near(moved, rate, expected) == pytest.approx(expected, abs=120)
    assert moved.std() == pytest.approx(samples.std(), rel=0.25)


def test_disguise_is_the_same_however_many_frames_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = voice(16_000, 1.3, 2)
    whole = disguised(samples, 16_000, 0.7)
    for at_once in (7, 64):
        monkeypatch.setattr(masking, "_FRAMES", at_once)
        assert np.abs(disguised(samples, 16_000, 0.7).astype(int) - whole).max() <= 1


@pytest.mark.parametrize("name", SOUNDS)
def test_disguise_takes_any_sound(name: str) -> None:
    heard = disguised(SOUNDS[name], 8_000, 0.6)
    assert heard.shape == SOUNDS[name].shape
    assert heard.dtype == np.int16


def test_every_recording_and_vendor_has_a_coefficient_of_the_published_range() -> None:
    drawn = np.array([coefficient(f"key-{n}") for n in range(2_000)])
    assert drawn.min() >= 0.5
    assert drawn.max() <= 0.9
    assert abs(drawn.mean() - 0.7) < 5 * 0.4 / np.sqrt(12 * len(drawn))
    assert np.array_equal(drawn, [coefficient(f"key-{n}") for n in range(2_000)])
    assert len({*drawn.tolist()}) == len(drawn)
