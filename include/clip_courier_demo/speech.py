"""Speech out of text: eSpeak NG through ctypes, and the little arithmetic on samples that recordings need.

The library keeps oscillator phases between utterances, which nothing in its interface resets. It is therefore loaded
anew for every utterance (a fraction of a millisecond), which makes the samples depend on the arguments alone.
"""

import _ctypes
import ctypes
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any, ClassVar

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]

RATE_HZ = 22050

# Variants with a `breath` setting (f2, f3, f5, ...) read uninitialised memory and differ from run to run.
VARIANTS = ("", "m1", "m3", "m4", "m7", "f1", "f4")

# Headroom: a lossy encoder overshoots, and what is decoded above full scale differs from reader to reader.
_GAIN = 0.6

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS; mode 1, AUDIO_OUTPUT_RETRIEVAL, returns no samples here
_PARAMETER_RATE, _PARAMETER_PITCH = 1, 3
_POSITION_CHARACTER, _CHARS_UTF8 = 1, 1
_NO_MORE_EVENTS, _WORD_BEGINS = 0, 1


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h; positions in text count from 1, those in the sound are milliseconds."""

    _fields_: ClassVar = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


_ON_SAMPLES = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))

# When something is said: start and end in milliseconds.
Times = tuple[tuple[int, int], ...]


class SpeechFailed(RuntimeError):
    """Install espeakng-loader again: the synthesiser or its voices could not be loaded."""


@dataclass(frozen=True)
class Voice:
    """A way of speaking: an eSpeak voice such as `de`, a variant out of VARIANTS, words a minute, pitch 0 to 99."""

    name: str
    variant: str = ""
    words_per_minute: int = 170
    pitch: int = 50


def speak(text: str, voice: Voice) -> Samples:
    """Mono samples at RATE_HZ of `text` spoken by `voice`; raises SpeechFailed. Not for use from several threads."""
    return speak_timed(text, voice)[0]


def speak_timed(text: str, voice: Voice) -> tuple[Samples, Times]:
    """The same with the time of each word of the text, as parted by spaces; a word lasts until the next one begins."""
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        return _synthesise(library, text, voice)
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)


def _synthesise(library: ctypes.CDLL, text: str, voice: Voice) -> tuple[Samples, Times]:
    pieces: list[bytes] = []
    begins: dict[int, int] = {}

    def collect(samples: int | None, count: int, events: Any) -> int:
        if samples and count > 0:
            pieces.append(ctypes.string_at(samples, count * 2))
        place = 0
        while events[place].type != _NO_MORE_EVENTS:
            if events[place].type == _WORD_BEGINS:
                begins.setdefault(events[place].text_position - 1, events[place].audio_position)
            place += 1
        return 0

    if library.espeak_Initialize(_SYNCHRONOUS, 0, str(espeakng_loader.get_data_path()).encode(), 0) != RATE_HZ:
        raise SpeechFailed("the speech synthesiser did not start")
    on_samples = _ON_SAMPLES(collect)  # a name of its own, or it is freed while the library still calls it
    library.espeak_SetSynthCallback(on_samples)
    name = f"{voice.name}+{voice.variant}" if voice.variant else voice.name
    if library.espeak_SetVoiceByName(name.encode()) != 0:
        raise SpeechFailed(f"the speech synthesiser has no voice {name!r}")
    library.espeak_SetParameter(_PARAMETER_RATE, voice.words_per_minute, 0)
    library.espeak_SetParameter(_PARAMETER_PITCH, voice.pitch, 0)
    utf8 = text.encode() + b"\0"
    library.espeak_Synth(utf8, ctypes.c_size_t(len(utf8)), 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None)
    library.espeak_Synchronize()
    samples = (np.frombuffer(b"".join(pieces), dtype=np.int16) * _GAIN).astype(np.int16)
    return samples, _times(text, begins, len(samples) * 1000 // RATE_HZ)


def _times(text: str, begins: Mapping[int, int], duration_ms: int) -> Times:
    """Of the words of a text; the synthesiser says some in one breath ("in the"), which share its time by letters."""
    words = [(word.start(), word.end()) for word in re.finditer(r"\S+", text)]
    found = [min((at for place, at in begins.items() if start <= place < end), default=-1) for start, end in words]
    known = [(n, at) for n, at in enumerate(found) if at >= 0 and n > 0]
    bounds = np.zeros(len(words) + 1)
    for (first, start), (last, end) in pairwise([(0, 0), *known, (len(words), duration_ms)]):
        shares = np.cumsum([0, *(b - a for a, b in words[first:last])], dtype=float)
        bounds[first : last + 1] = start + (end - start) * shares / max(shares[-1], 1)
    edges = np.maximum.accumulate(bounds).astype(int).tolist()
    return tuple(pairwise(edges))


def resample(samples: Samples, rate_hz: int) -> Samples:
    """Samples at RATE_HZ as fewer samples at `rate_hz`, band-limited by cutting the spectrum."""
    if rate_hz == RATE_HZ:
        return samples
    step = math.gcd(rate_hz, RATE_HZ)
    blocks = _smooth(-(-len(samples) // (RATE_HZ // step)))
    before, after = blocks * (RATE_HZ // step), blocks * (rate_hz // step)
    spectrum = np.fft.rfft(samples.astype(np.float64), before)[: after // 2 + 1]
    resampled = np.fft.irfft(spectrum, after)[: round(len(samples) * rate_hz / RATE_HZ)] * (after / before)
    return np.clip(np.rint(resampled), -32768, 32767).astype(np.int16)


def _smooth(at_least: int) -> int:
    """The next number without a prime factor above 5; Fourier transforms of other lengths take far longer."""
    return next(number for number in count(at_least) if number and 30**12 % number == 0)


def cut(samples: Samples, milliseconds: int) -> Samples:
    """The first `milliseconds` of samples at RATE_HZ, faded out over the last 20 ms."""
    short = samples[: RATE_HZ * milliseconds // 1000].astype(np.float64)
    fade = min(len(short), RATE_HZ // 50)
    short[len(short) - fade :] *= np.linspace(1.0, 0.0, fade)
    return np.rint(short).astype(np.int16)


def two_parties(first: Samples, second: Samples) -> Samples:
    """Two channels, shape (frames, 2): the first party speaks in the left one, then the second in the right one."""
    both = np.zeros((len(first) + len(second), 2), dtype=np.int16)
    both[: len(first), 0] = first
    both[len(first) :, 1] = second
    return both
