"""The demo world's sound: who says what into which file, and what the recogniser makes of it.

Up to a cap every clip has a recording of its own. Beyond it clips of the same locale and kind share recordings, apart
from those in which someone says who they are: such a recording belongs to one clip, so that no identifying word is
ever heard from several people.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from clip_courier_demo import audiofiles, identities, speech, utterances
from clip_courier_demo.clips import CALL, KINDS, LONG, PRODUCTS, SECRET_SHARE, SHORT, STEREO, ClipPlan
from clip_courier_demo.dealing import Ints
from clip_courier_demo.hearing import loudness
from clip_courier_demo.locales import LOCALES, Locale
from clip_courier_demo.people import People
from clip_courier_demo.recogniser import Heard, hear
from clip_courier_demo.utterances import Utterance

Progress = Callable[[str, int, int], None]

# Recordings of clips that are refused for their length are few: the long ones are large.
_FEW = {SHORT: 2, LONG: 1}
_SECRETS_OF_CAP = 5

_LONG_FRAMES = 31 * speech.RATE_HZ
_SHORT_MS = (250, 450)

_CONTAINERS, _CONTAINER_SHARES = ("wav", "flac", "ogg", "m4a"), (0.68, 0.14, 0.1, 0.08)
_RATES_HZ = (8000, 16000, 22050)
_CALL_RATE_SHARES, _RATE_SHARES = (0.6, 0.4, 0.0), (0.1, 0.7, 0.2)


@dataclass(frozen=True)
class Recording:
    """One audio file under `landing/audio/`, what is said in it and when, and what the recogniser heard.

    `times` are those of the words of `said.text`, as parted by spaces.
    """

    owner: int
    uri: str
    locale: Locale
    said: Utterance
    times: speech.Times
    heard: Heard
    duration_ms: int
    frames: int
    sample_rate_hz: int
    channels: int
    loudness: list[float]
    size_bytes: int
    audio_sha256: str
    pcm_sha256: str


def secret_clips(clips: int, audio_cap: int) -> int:
    """How many clips say something identifying: a share of all, but no more than a share of the recordings."""
    return min(round(clips * SECRET_SHARE), max(1, audio_cap // _SECRETS_OF_CAP))


def share_recordings(plan: ClipPlan, people: People, audio_cap: int) -> tuple[Ints, Ints]:
    """For each clip the number of its recording, and for each recording the clip that it was made by.

    At most `audio_cap` recordings, or one for every kind and locale in use where the cap is below that.
    """
    recording = np.empty(len(plan), dtype=np.int64)
    secret = np.flatnonzero(plan.is_secret)
    recording[secret] = np.arange(len(secret))
    owners = [secret]
    made = len(secret)
    pool = np.where(plan.is_secret == 1, -1, people.locale[plan.speaker] * len(KINDS) + plan.kind)
    counts = np.bincount(pool[pool >= 0], minlength=len(LOCALES) * len(KINDS))
    for number, size in enumerate(_pool_sizes(counts, audio_cap - made)):
        members = np.flatnonzero(pool == number)
        if len(members):
            recording[members] = made + np.arange(len(members)) % size
            owners.append(members[:size])
            made += int(size)
    return recording, np.concatenate(owners)


def _pool_sizes(counts: Ints, total: int) -> Ints:
    few = np.array([_FEW.get(number % len(KINDS), 0) for number in range(len(counts))])
    sizes: Ints = np.minimum(counts, few)
    is_plain = few == 0
    shares = (total - sizes.sum()) * counts // max(1, counts[is_plain].sum())
    sizes = np.where(is_plain, np.minimum(counts, np.maximum(shares, 1)), sizes)
    while sizes.sum() > total and sizes.max() > 1:
        sizes[sizes.argmax()] -= 1
    return sizes


def record(plan: ClipPlan, people: People, owners: Ints, audio: Path, progress: Progress) -> list[Recording]:
    """Synthesises and writes one file for each owner."""
    recordings = []
    for number, (owner, uri, tags) in enumerate(_files(plan, people, owners)):
        random = np.random.default_rng([people.seed, 5, number])
        recordings.append(_record(random, plan.rows(slice(owner, owner + 1)), people, owner, audio, uri, tags))
        progress("speech", number + 1, len(owners))
    return recordings


def _files(plan: ClipPlan, people: People, owners: Ints) -> Iterator[tuple[int, str, dict[str, str]]]:
    """Owner, path without its ending, and tags of each recording; path and tags tell who speaks."""
    speakers, seed = plan.speaker[owners], people.seed
    columns: list[list[Any]] = [
        owners.tolist(),
        plan.product[owners].tolist(),
        plan.recorded_us[owners].tolist(),
        identities.person_ids(seed, speakers).to_pylist(),
        identities.clip_ids(seed, owners).to_pylist(),
        identities.full_names(seed, speakers).to_pylist(),
        identities.device_serials(seed, speakers).to_pylist(),
        identities.phone_numbers(seed, speakers, people.locale[speakers]).to_pylist(),
        identities.account_emails(seed, speakers).to_pylist(),
    ]
    for owner, product, recorded_us, person_id, clip_id, name, serial, phone, email in zip(*columns, strict=True):
        day = datetime.fromtimestamp(recorded_us / 1e6, UTC).date()
        tags = {"title": clip_id, "artist": name, "comment": f"{serial} {phone} {email}", "software": f"app {serial}"}
        yield owner, f"{PRODUCTS[product]}/{day}/{person_id}/{clip_id}", tags


def _record(
    random: np.random.Generator, clip: ClipPlan, people: People, owner: int, audio: Path, uri: str, tags: dict[str, str]
) -> Recording:
    locale = LOCALES[int(people.locale[clip.speaker[0]])]
    kind = int(clip.kind[0])
    said, sound, times = _say(random, clip, people, locale)
    rate_hz = int(random.choice(_RATES_HZ, p=_CALL_RATE_SHARES if kind in (CALL, STEREO) else _RATE_SHARES))
    container = str(random.choice(_CONTAINERS, p=_CONTAINER_SHARES))
    samples = _resampled(sound, rate_hz)
    data = audiofiles.encode(samples, rate_hz, container, tags, owner)
    decoded = samples if container in ("wav", "flac") else audiofiles.decode(data)
    path = audio / f"{uri}.{container}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    duration_ms = round(len(decoded) * 1000 / rate_hz)
    times = tuple((min(start, duration_ms), min(end, duration_ms)) for start, end in times)
    is_token = [bool(utterances.tokens(word)) for word in said.text.split()]
    return Recording(
        owner=owner,
        uri=f"{uri}.{container}",
        locale=locale,
        said=said,
        times=times,
        heard=hear(random, said, locale, tuple(compress(times, is_token))),
        duration_ms=duration_ms,
        frames=len(decoded),
        loudness=loudness(decoded),
        sample_rate_hz=rate_hz,
        channels=2 if kind == STEREO else 1,
        size_bytes=len(data),
        audio_sha256=hashlib.sha256(data).hexdigest(),
        pcm_sha256=hashlib.sha256(decoded.astype("<i2").tobytes()).hexdigest(),
    )


def _say(
    random: np.random.Generator, clip: ClipPlan, people: People, locale: Locale
) -> tuple[Utterance, speech.Samples, speech.Times]:
    """What is said in a clip of this kind, its sound at speech.RATE_HZ, and when each word of its text is said."""
    kind, speaker, listener = int(clip.kind[0]), int(clip.speaker[0]), int(clip.listener[0])
    voice = _voice(people, speaker, locale)
    if kind == SHORT:
        said = utterances.answer(random, locale.language)
        sound, times = speech.speak_timed(said.say, voice)
        return said, speech.cut(sound, int(random.integers(*_SHORT_MS))), times
    said = utterances.everyday(
        random, locale.language, 1 if kind == STEREO or clip.is_secret[0] else _sentences(random)
    )
    if clip.is_secret[0]:
        said += utterances.identifying(random, locale.language, people, speaker)
    if kind == STEREO:
        reply = utterances.everyday(random, locale.language, 1)
        other, answered = speech.speak_timed(reply.say, _voice(people, listener, locale))
        sound, times = speech.speak_timed(said.say, voice)
        later = len(sound) * 1000 // speech.RATE_HZ
        times = (*times, *((start + later, end + later) for start, end in answered))
        return said + reply, speech.two_parties(sound, other), times
    sound, times = speech.speak_timed(said.say, voice)
    while kind == LONG and len(sound) < _LONG_FRAMES:
        said += utterances.everyday(random, locale.language, 5)
        sound, times = speech.speak_timed(said.say, voice)
    return said, sound, utterances.times_of(said, times)


def _sentences(random: np.random.Generator) -> int:
    return int(random.integers(1, 4))


def _voice(people: People, person: int, locale: Locale) -> speech.Voice:
    """The voice of a person: the same in all their recordings."""
    random = np.random.default_rng([people.seed, 6, person])
    variant = str(random.choice(speech.VARIANTS))
    return speech.Voice(locale.voice, variant, int(random.integers(150, 200)), int(random.integers(35, 70)))


def _resampled(sound: speech.Samples, rate_hz: int) -> speech.Samples:
    if sound.ndim == 1:
        return speech.resample(sound, rate_hz)
    return np.stack([speech.resample(channel, rate_hz) for channel in sound.T], axis=1)
