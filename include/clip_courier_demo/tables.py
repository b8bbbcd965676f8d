"""The landing's clips as Arrow tables, a slice of the plan at a time, all by arithmetic on whole columns."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clip_courier_demo import identities
from clip_courier_demo.clips import ACTIVATIONS, PARTICIPANTS, PRODUCTS, ClipPlan
from clip_courier_demo.consent import DAY_US
from clip_courier_demo.dealing import Ints
from clip_courier_demo.defects import BAD_LOCALES, OUTSIDE_URIS, UNKNOWN_COUNTRIES, is_defect
from clip_courier_demo.locales import LOCALES
from clip_courier_demo.people import People
from clip_courier_demo.recordings import Recording

_PARTICIPANT = pa.struct([("person_id", pa.string()), ("role", pa.string())])
_HYPOTHESIS = pa.struct(
    [("rank", pa.int8()), ("text", pa.string()), ("confidence", pa.float32()), ("engine", pa.string())]
)
_WORD = pa.struct([("word", pa.string()), ("start_ms", pa.int32()), ("end_ms", pa.int32())])

CLIP_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("call_id", pa.string()),
        ("product", pa.string()),
        ("activation", pa.string()),
        ("locale", pa.string()),
        ("country", pa.string()),
        ("recorded_at", pa.timestamp("us", tz="UTC")),
        ("duration_ms", pa.int32()),
        ("sample_rate_hz", pa.int32()),
        ("channels", pa.int8()),
        ("audio_uri", pa.string()),
        ("audio_sha256", pa.string()),
        ("participants", pa.list_(_PARTICIPANT)),
        ("hypotheses", pa.list_(_HYPOTHESIS)),
        ("words", pa.list_(_WORD)),
        # Anything else is allowed and identifying; these are.
        ("device_serial", pa.string()),
        ("account_email", pa.string()),
        ("phone_number", pa.string()),
        ("speaker_name", pa.string()),
        ("ip_address", pa.string()),
    ]
)

_FUTURE_DAYS = 3  # after the last day
_WITHOUT_WORDS = 20  # one recording in so many has no word timing
_WITHOUT_SHA256 = 25  # one recording in so many comes without its hash


@dataclass(frozen=True)
class Shared:
    """What clips take from their recording: Arrow arrays of one entry each recording.

    `hypotheses` has three entries for each: in order, with a confidence above one, with a rank twice.
    `corrupt` are the paths and hashes of files damaged in each way.
    """

    uri: Any
    audio_sha256: Any
    duration_ms: Ints
    sample_rate_hz: Ints
    channels: Ints
    hypotheses: Any
    words: Any
    corrupt: dict[str, list[tuple[str, str]]]


def share(recordings: list[Recording], corrupt: dict[str, list[tuple[str, str]]]) -> Shared:
    """The recordings as columns."""
    hashes = [None if n % _WITHOUT_SHA256 == 1 else one.audio_sha256 for n, one in enumerate(recordings)]
    words = [None if n % _WITHOUT_WORDS == 3 else one.heard.words for n, one in enumerate(recordings)]
    word_rows = [
        row and [dict(zip(("word", "start_ms", "end_ms"), word, strict=True)) for word in row] for row in words
    ]
    guesses = [[vars(guess) for guess in one.heard.hypotheses] for one in recordings]
    overconfident = [[{**row[0], "confidence": 1.7}, *row[1:]] for row in guesses]
    doubled = [[row[0], {**row[-1], "rank": 1}] for row in guesses]
    return Shared(
        uri=pa.array([one.uri for one in recordings]),
        audio_sha256=pa.array(hashes, pa.string()),
        duration_ms=np.array([one.duration_ms for one in recordings]),
        sample_rate_hz=np.array([one.sample_rate_hz for one in recordings]),
        channels=np.array([one.channels for one in recordings]),
        hypotheses=pa.array(guesses + overconfident + doubled, pa.list_(_HYPOTHESIS)),
        words=pa.array(word_rows, pa.list_(_WORD)),
        corrupt=corrupt,
    )


def clips_table(plan: ClipPlan, clip: Ints, defect: Ints, recording: Ints, shared: Shared, people: People) -> Any:
    """Rows of the landing's `clips` for a slice of the plan; `clip` numbers the clips, all arrays run in parallel."""
    seed, speaker = people.seed, plan.speaker
    bad_rate, bad_rank = is_defect(defect, "confidence_above_one"), is_defect(defect, "duplicate_rank")
    uri, sha256 = _files(clip, defect, recording, shared, seed)
    columns = [
        identities.clip_ids(seed, clip),
        identities.call_ids(seed, plan.call),
        pa.array(PRODUCTS).take(pa.array(plan.product)),
        pa.array(ACTIVATIONS).take(pa.array(plan.activation)),
        _instead(_names(people.locale[speaker]), defect, "bad_locale", BAD_LOCALES, clip),
        _countries(people.countries(speaker), defect, clip),
        pa.array(plan.recorded_us + (plan.day + _FUTURE_DAYS) * DAY_US * is_defect(defect, "future")).cast(
            pa.timestamp("us", tz="UTC")
        ),
        _durations(shared.duration_ms[recording], defect),
        _sample_rates(shared.sample_rate_hz[recording], defect),
        pa.array(shared.channels[recording], pa.int8()),
        uri,
        sha256,
        _participants(plan, people),
        shared.hypotheses.take(pa.array(recording + len(shared.uri) * (bad_rate + 2 * bad_rank))),
        shared.words.take(pa.array(recording)),
        identities.device_serials(seed, speaker),
        identities.account_emails(seed, speaker),
        identities.phone_numbers(seed, speaker, people.locale[speaker]),
        identities.full_names(seed, speaker),
        identities.ip_addresses(seed, clip),
    ]
    return pa.Table.from_arrays(columns, schema=CLIP_SCHEMA)


def _names(locales: Ints) -> Any:
    return pa.array([locale.tag for locale in LOCALES]).take(pa.array(locales))


def _instead(column: Any, defect: Ints, name: str, values: tuple[str, ...], clip: Ints) -> Any:
    """The column, but with one of `values` where the clip has the defect."""
    return pc.if_else(pa.array(is_defect(defect, name)), pa.array(values).take(pa.array(clip % len(values))), column)


def _countries(column: Any, defect: Ints, clip: Ints) -> Any:
    lower = pc.if_else(pa.array(is_defect(defect, "lowercase_country")), pc.ascii_lower(column), column)
    return _instead(lower, defect, "unknown_country", UNKNOWN_COUNTRIES, clip)


def _durations(true_ms: Ints, defect: Ints) -> Any:
    sign = np.where(is_defect(defect, "negative_duration"), -1, 1) * ~is_defect(defect, "zero_duration")
    return pa.array(true_ms * sign, pa.int32())


def _sample_rates(true_hz: Ints, defect: Ints) -> Any:
    wrong = np.where(is_defect(defect, "wrong_sample_rate"), np.where(true_hz == 16000, 48000, 16000), true_hz)
    return pa.array(wrong * ~is_defect(defect, "zero_sample_rate"), pa.int32())


def _files(clip: Ints, defect: Ints, recording: Ints, shared: Shared, seed: int) -> tuple[Any, Any]:
    """`audio_uri` and `audio_sha256`, wrong in the ways that the defects ask for."""
    uri, sha256 = shared.uri.take(pa.array(recording)), shared.audio_sha256.take(pa.array(recording))
    missing = pc.binary_join_element_wise("lost/", identities.clip_ids(seed, clip), ".wav", "")
    uri = pc.if_else(pa.array(is_defect(defect, "missing_file")), missing, uri)
    uri = _instead(uri, defect, "uri_outside", OUTSIDE_URIS, clip)
    other = pc.replace_substring_regex(pc.fill_null(sha256, "0" * 64), "^.{8}", "deadbeef")
    sha256 = pc.if_else(pa.array(is_defect(defect, "wrong_sha256")), other, sha256)
    for name, files in shared.corrupt.items():
        if files:
            uri = _instead(uri, defect, name, tuple(path for path, _ in files), clip)
            sha256 = _instead(sha256, defect, name, tuple(digest for _, digest in files), clip)
    return uri, sha256


def _participants(plan: ClipPlan, people: People) -> Any:
    """Lists of one or two people, or of what the plan says is wrong with them."""
    wrong = np.array(PARTICIPANTS)[plan.participants]
    sizes = np.where(plan.call >= 0, 2, 1) * ~np.isin(wrong, ("null", "empty"))
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    first, last = offsets[:-1][sizes > 0], offsets[1:][sizes > 0] - 1
    persons = np.empty(offsets[-1], dtype=np.int64)
    persons[last] = plan.listener[sizes > 0]
    persons[first] = plan.speaker[sizes > 0]
    persons[last[wrong[sizes > 0] == "null_person"]] = -1
    is_listener = np.ones(offsets[-1], dtype=np.int64)
    is_listener[first] = 0
    roles = pa.array(["speaker", "listener"]).take(pa.array(is_listener))
    values = pa.StructArray.from_arrays([identities.person_ids(people.seed, persons), roles], fields=list(_PARTICIPANT))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, mask=pa.array(wrong == "null"))
